package wstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/seed-6230208e/tandem/ws"
)

// Append implements ws.Backplane.
func (r *Replica) Append(ctx context.Context, id string, op ws.Operation, known ws.Position) (ws.Ack, error) {
	n := r.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return ws.Ack{}, err
	}
	d := n.documentLocked(id)
	if known.Epoch == d.epoch && known.Seq > d.head {
		n.beginEpochLocked(id, d)
	}
	key := op.UserID + "\x00" + op.ID
	if seq, ok := d.seen[key]; ok {
		return ws.Ack{Position: ws.Position{Epoch: d.epoch, Seq: seq}, Duplicate: true}, r.replyLocked()
	}
	d.head++
	d.seen[key] = d.head
	at := ws.Position{Epoch: d.epoch, Seq: d.head}
	tail := op.FrameTail()
	entry := ws.Entry{Seq: d.head, Frame: append(ws.OperationHead(at), tail...)}
	d.entries, d.tails = append(d.entries, entry), append(d.tails, tail)
	if cut := len(d.entries) - n.keep; cut > 0 {
		d.entries, d.tails = d.entries[cut:], d.tails[cut:]
	}
	n.announceLocked(id, news{deliver: func(to ws.Receiver) { to.Operation(at.Epoch, entry) }})
	return ws.Ack{Position: at}, r.replyLocked()
}

// History implements ws.Backplane.
func (r *Replica) History(ctx context.Context, id string, since *ws.Position, maxBytes int) (ws.History, error) {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return ws.History{}, err
	}
	d := r.network.documentLocked(id)
	h := ws.History{Epoch: d.epoch, Head: d.head, SnapshotSeq: d.snapshotSeq}
	first := d.head - uint64(len(d.entries)) + 1
	from := d.snapshotSeq
	if since != nil && since.Epoch == d.epoch && since.Seq <= d.head && since.Seq+1 >= first {
		from, h.Recovered = since.Seq, true
	} else {
		h.Snapshot = bytes.Clone(d.snapshot)
		h.Recovered = since == nil && from+1 >= first
	}
	size := 0
	for _, e := range d.entries {
		if e.Seq <= from {
			continue
		}
		size += len(e.Frame)
		if size > maxBytes && len(h.Entries) > 0 {
			h.More = true
			break
		}
		h.Entries = append(h.Entries, e)
	}
	return h, r.replyLocked()
}

// KeepSnapshot implements ws.Backplane.
func (r *Replica) KeepSnapshot(ctx context.Context, id string, at ws.Position, payload json.RawMessage) error {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return err
	}
	d := r.network.documentLocked(id)
	if at.Epoch != d.epoch || at.Seq > d.head || at.Seq < d.snapshotSeq {
		return fmt.Errorf("snapshot at %s/%d: %w", at.Epoch, at.Seq, ws.ErrConflict)
	}
	d.snapshotSeq, d.snapshot = at.Seq, bytes.Clone(payload)
	return r.replyLocked()
}

// beginEpochLocked starts a new life of the log with what is left of it.
func (n *Network) beginEpochLocked(id string, d *document) {
	n.epochs++
	d.epoch = fmt.Sprintf("epoch%d", n.epochs)
	for i := range d.entries {
		e := &d.entries[i]
		e.Frame = append(ws.OperationHead(ws.Position{Epoch: d.epoch, Seq: e.Seq}), d.tails[i]...)
	}
	n.announceLocked(id, news{deliver: ws.Receiver.Gap})
}
