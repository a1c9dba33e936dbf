package wsredis

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// appendTrips is how many round trips with appends are under way at a time.
const appendTrips = 8

// Append implements ws.Log: one script, one round trip, which appends that
// come at the same time share.
//
// A new epoch keeps what survived. When a failover or a restart may have lost
// the newest operations, those before stay in the log under the new epoch; when the log is gone, the
// kept snapshot stays and numbering goes on after it; when everything is gone,
// numbering starts at 1.
func (b *Backplane) Append(ctx context.Context, document string, op ws.Operation, known ws.Position) (ws.Ack, error) {
	reply, err := runTogether(ctx, b.appends, b.client, appendScript, call{logKeys(document), b.logArgs(document,
		b.keep, op.UserID+"\x00"+op.ID, known.Epoch, known.Seq, op.FrameTail())}).Slice()
	if err != nil {
		return ws.Ack{}, wrap("append", err)
	}
	r := reader{values: reply}
	ack := ws.Ack{Position: r.position(), Duplicate: r.flag()}
	if r.failed {
		return ws.Ack{}, fmt.Errorf("append: unexpected reply %v", reply)
	}
	b.subs.learn(document, ack.Position)
	return ack, nil
}

// History implements ws.Log. A document that nobody has opened before gets its
// epoch here, so that a client's first position holds.
func (b *Backplane) History(ctx context.Context, document string, since *ws.Position, maxBytes int) (ws.History, error) {
	epoch, seq := "", any("")
	if since != nil {
		epoch, seq = since.Epoch, since.Seq
	}
	// Each goes alone: answers are long, and those of a shared trip would have to come in the time of one.
	reply, err := historyScript.Run(ctx, b.client, logKeys(document), b.logArgs(document, epoch, seq, maxBytes)...).Slice()
	if err != nil {
		return ws.History{}, wrap("history", err)
	}
	r := reader{values: reply}
	at := r.position()
	h := ws.History{Epoch: at.Epoch, Head: at.Seq, SnapshotSeq: r.seq()}
	h.Snapshot = r.bytes()
	h.Recovered, h.More = r.flag(), r.flag()
	first := r.seq()
	tails := reader{values: r.list()}
	h.Entries = make([]ws.Entry, 0, len(tails.values))
	for seq := first; len(tails.values) > 0; seq++ {
		frame := append(ws.OperationHead(ws.Position{Epoch: at.Epoch, Seq: seq}), tails.text()...)
		h.Entries = append(h.Entries, ws.Entry{Seq: seq, Frame: frame})
	}
	if r.failed || tails.failed {
		return ws.History{}, fmt.Errorf("history: unexpected reply of %d values", len(reply))
	}
	b.subs.readUpTo(document, at)
	return h, nil
}

// KeepSnapshot implements ws.Log.
func (b *Backplane) KeepSnapshot(ctx context.Context, document string, at ws.Position, payload json.RawMessage) error {
	kept, err := snapshotScript.Run(ctx, b.client, logKeys(document),
		b.logArgs(document, at.Epoch, at.Seq, []byte(payload))...).Bool()
	switch {
	case err != nil:
		return wrap("keep snapshot", err)
	case !kept:
		return fmt.Errorf("snapshot at %s/%d: %w", at.Epoch, at.Seq, ws.ErrConflict)
	}
	return nil
}

// logArgs puts what every script on a log takes before args.
func (b *Backplane) logArgs(document string, args ...any) []any {
	return append([]any{newsChannel(document), newEpoch(), int64(b.retention / time.Second), b.durable.Load()}, args...)
}

// newEpoch names a life of a log: 80 random bits, none that JSON would escape.
func newEpoch() string { return strings.ToLower(rand.Text()[:16]) }

// reader takes a script's reply apart. The first value that is not what it
// should be sets failed.
type reader struct {
	values []any
	failed bool
}

func (r *reader) next() any {
	if len(r.values) == 0 {
		r.failed = true
		return nil
	}
	v := r.values[0]
	r.values = r.values[1:]
	return v
}

func (r *reader) text() string {
	s, ok := r.next().(string)
	r.failed = r.failed || !ok
	return s
}

// bytes is nil for a nil reply.
func (r *reader) bytes() []byte {
	v := r.next()
	if v == nil {
		return nil
	}
	s, ok := v.(string)
	r.failed = r.failed || !ok
	return []byte(s)
}

func (r *reader) seq() uint64 {
	n, ok := r.next().(int64)
	r.failed = r.failed || !ok || n < 0
	return uint64(n)
}

func (r *reader) flag() bool { return r.seq() == 1 }

func (r *reader) position() ws.Position { return ws.Position{Epoch: r.text(), Seq: r.seq()} }

func (r *reader) list() []any {
	list, ok := r.next().([]any)
	r.failed = r.failed || !ok
	return list
}

// texts is a list of texts.
func (r *reader) texts() []string {
	inner := reader{values: r.list()}
	list := make([]string, 0, len(inner.values))
	for len(inner.values) > 0 {
		list = append(list, inner.text())
	}
	r.failed = r.failed || inner.failed
	return list
}

// flags is a list of flags.
func (r *reader) flags() []bool {
	inner := reader{values: r.list()}
	list := make([]bool, 0, len(inner.values))
	for len(inner.values) > 0 {
		list = append(list, inner.flag())
	}
	r.failed = r.failed || inner.failed
	return list
}
