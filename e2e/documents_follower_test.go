package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// place is a position in a document's log.
type place struct {
	Epoch string `json:"epoch"`
	Seq   int    `json:"seq"`
}

// heard is any frame of the document protocol.
type heard struct {
	Type string `json:"type"`
	Re   string `json:"re"`
	Code string `json:"code"`
	OK   bool   `json:"ok"`
	place
	entry
	Recovered  bool            `json:"recovered"`
	More       bool            `json:"more"`
	Operations []logged        `json:"operations"`
	Dropped    int             `json:"dropped"`
	Channel    string          `json:"channel"`
	Presence   json.RawMessage `json:"presence"`
}

// entry is what is the same of an operation wherever it is told.
type entry struct {
	ID      string          `json:"id"`
	UserID  string          `json:"user_id"`
	Payload json.RawMessage `json:"payload"`
}

func (e entry) String() string { return e.UserID + " " + e.ID + " " + string(e.Payload) }

type logged struct {
	Seq int `json:"seq"`
	entry
}

// follower is a client that keeps a document's log as the protocol tells it to: it orders by seq, fetches what is
// missing, starts over in another epoch, and sends what was not acknowledged again. It connects again for ever.
type follower struct {
	// Fixed before run.
	name     string
	document string
	where    func() string // URL of a replica to try next
	cookies  []*http.Cookie
	payload  func() string
	publish  int           // operations in all
	pace     time.Duration // between two of them
	slow     atomic.Int64  // time.Duration that it takes to read a frame
	rng      *rand.Rand

	// Owned by run, and read after it.
	at      place
	log     []string       // of at.Epoch, from seq 1 on
	ahead   map[int]string // came before what is missing
	asked   int            // number of the sync_request under way; 0: none
	asks    int
	sent    int
	pending []string         // not acknowledged, in their order
	retry   <-chan time.Time // when to send again what was refused; nil: nothing was
	acks    map[string]place // by ID
	epochs  []string
	told    counts

	// What others see of it while it runs.
	acked   atomic.Int64
	reached atomic.Pointer[place] // set before run
	ended   atomic.Bool           // with 4401
}

// counts of what a follower was told.
type counts struct{ connections, lagged, dropped, syncs, refused int }

const followerWindow = 20 // operations under way at most

var errEnded = errors.New("the session has ended")

// run follows until ctx ends, which is no error.
func (f *follower) run(ctx context.Context) error {
	f.ahead, f.acks = map[int]string{}, map[string]place{}
	for ctx.Err() == nil {
		err := f.live(ctx)
		var broken *brokenPromise
		f.ended.Store(errors.Is(err, errEnded))
		if errors.As(err, &broken) || errors.Is(err, errEnded) {
			return fmt.Errorf("%s in %s: %w", f.name, f.document, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50*time.Millisecond + rand.N(200*time.Millisecond)):
		}
	}
	return nil
}

// brokenPromise is what must never be seen.
type brokenPromise struct{ what string }

func (b *brokenPromise) Error() string { return b.what }

func broken(format string, args ...any) error { return &brokenPromise{fmt.Sprintf(format, args...)} }

// live is the life of one connection.
func (f *follower) live(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := f.dial(ctx)
	if err != nil {
		return err
	}
	f.told.connections++
	frames, end := make(chan heard, 1<<16), make(chan error, 1)
	go func() {
		defer close(frames)
		end <- f.read(conn, frames)
	}()
	defer func() {
		conn.Close()
		for range frames { // until read has returned
		}
	}()
	f.asked, f.retry = 0, nil
	if err := f.greet(conn, frames); err != nil {
		return err
	}
	pace := time.NewTicker(max(f.pace, time.Millisecond))
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case h, ok := <-frames:
			if !ok {
				return closeOf(<-end)
			}
			if err := f.hear(conn, h); err != nil {
				return err
			}
		case <-f.retry:
			f.retry, f.asked = nil, 0
			if err := errors.Join(f.sync(conn), f.resend(conn)); err != nil {
				return err
			}
		case <-pace.C:
			if err := f.next(conn); err != nil {
				return err
			}
		}
	}
}

func (f *follower) dial(ctx context.Context) (*websocket.Conn, error) {
	d := websocket.Dialer{HandshakeTimeout: 5 * time.Second}
	header := http.Header{}
	for _, c := range f.cookies {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	conn, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(f.where(), "http")+"/ws/documents/"+f.document, header)
	if resp != nil && err != nil && resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusTooManyRequests {
		err = broken("refused with %s", resp.Status)
	}
	return conn, err
}

func (f *follower) read(conn *websocket.Conn, frames chan<- heard) error {
	for {
		_, b, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		var h heard
		if err := json.Unmarshal(b, &h); err != nil {
			return broken("%v: %s", err, b)
		}
		frames <- h
		// What is under test; it ends at once when slow is set to 0.
		for began := time.Now(); time.Since(began) < time.Duration(f.slow.Load()); {
			time.Sleep(time.Millisecond)
		}
	}
}

// closeOf says whether a client comes back after such an end.
func closeOf(err error) error {
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || slices.Contains([]int{1001, 1006, 1012, 4429, 4503}, closed.Code) {
		return err
	}
	if closed.Code == 4401 {
		return fmt.Errorf("%w: %s", errEnded, closed.Text)
	}
	return broken("closed with %d %q", closed.Code, closed.Text)
}

// greet authenticates, joins and sends what is not acknowledged again.
func (f *follower) greet(conn *websocket.Conn, frames <-chan heard) error {
	join := map[string]any{"type": "join_document"}
	if f.at.Epoch != "" {
		join["since"] = f.at
	}
	for _, request := range []map[string]any{{"type": "authenticate"}, join} {
		if err := f.write(conn, request); err != nil {
			return err
		}
	}
	timeout := time.After(20 * time.Second)
	for {
		select {
		case h, ok := <-frames:
			switch {
			case !ok:
				return errors.New("closed while joining")
			case h.Type == "auth_result" && !h.OK:
				return fmt.Errorf("%w: %s", errEnded, h.Code)
			case h.Type == "error":
				f.told.refused++
				return fmt.Errorf("not joined: %s", h.Code)
			case h.Type == "joined_document":
				if err := f.caughtUp(conn, h); err != nil {
					return err
				}
				return f.resend(conn)
			}
		case <-timeout:
			return errors.New("no answer to join_document")
		}
	}
}

func (f *follower) write(conn *websocket.Conn, v any) error {
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	return conn.WriteJSON(v)
}

func (f *follower) resend(conn *websocket.Conn) error {
	for _, id := range f.pending {
		if err := f.send(conn, id); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) send(conn *websocket.Conn, id string) error {
	return f.write(conn, map[string]any{"type": "operation", "id": id, "payload": id + f.payload()})
}

// next publishes one more operation, if there is one and not too many are under way.
func (f *follower) next(conn *websocket.Conn) error {
	if f.sent >= f.publish || len(f.pending) >= followerWindow {
		return nil
	}
	f.sent++
	id := fmt.Sprintf("%s-%d", f.name, f.sent)
	f.pending = append(f.pending, id)
	return f.send(conn, id)
}

func (f *follower) hear(conn *websocket.Conn, h heard) error {
	switch h.Type {
	case "ack":
		return f.acknowledged(h)
	case "operation":
		return f.operation(conn, h)
	case "sync_response":
		if h.Re != fmt.Sprint("sync", f.asked) {
			return nil
		}
		f.asked = 0
		return f.caughtUp(conn, h)
	case "lagged":
		if h.Channel == "operations" {
			f.told.lagged++
			f.told.dropped += h.Dropped
			return f.sync(conn)
		}
	case "error":
		f.told.refused++
		if h.Code != "UNAVAILABLE" && h.Code != "RATE_LIMITED" {
			return broken("error %s", h.Code)
		}
		if f.retry == nil {
			f.retry = time.After(300*time.Millisecond + rand.N(300*time.Millisecond))
		}
	}
	return nil
}

func (f *follower) acknowledged(h heard) error {
	if before, ok := f.acks[h.Re]; ok && before.Epoch == h.Epoch && before.Seq != h.Seq {
		return broken("%s was acknowledged as %d and as %d", h.Re, before.Seq, h.Seq)
	}
	i := slices.Index(f.pending, h.Re)
	if i < 0 {
		return nil // acknowledged before
	}
	f.acks[h.Re] = h.place
	f.pending = slices.Delete(f.pending, i, i+1)
	f.acked.Add(1)
	return nil
}

// operation applies a broadcast, or asks for what is missing before it.
func (f *follower) operation(conn *websocket.Conn, h heard) error {
	if h.Epoch != f.at.Epoch {
		return f.sync(conn)
	}
	if h.Seq > f.at.Seq+1 {
		f.ahead[h.Seq] = h.entry.String()
		return f.sync(conn)
	}
	return f.apply(h.Seq, h.entry.String())
}

// apply takes the next operation, or one that it has, which must be the same.
func (f *follower) apply(seq int, what string) error {
	if seq <= f.at.Seq {
		if had := f.log[seq-1]; had != what {
			return broken("%d of epoch %s is %q and %q", seq, f.at.Epoch, had, what)
		}
		return nil
	}
	if seq != f.at.Seq+1 {
		return broken("%d comes after %d", seq, f.at.Seq)
	}
	for ok := true; ok; what, ok = f.ahead[f.at.Seq+1] {
		f.log = append(f.log, what)
		f.at.Seq++
		delete(f.ahead, f.at.Seq)
	}
	at := f.at
	f.reached.Store(&at)
	return nil
}

func (f *follower) sync(conn *websocket.Conn) error {
	if f.asked > 0 {
		return nil
	}
	f.asks++
	f.asked = f.asks
	f.told.syncs++
	return f.write(conn, map[string]any{"type": "sync_request", "id": fmt.Sprint("sync", f.asked), "since": f.at})
}

// caughtUp takes what joined_document and sync_response have.
func (f *follower) caughtUp(conn *websocket.Conn, h heard) error {
	if h.Epoch != f.at.Epoch {
		f.at, f.log = place{Epoch: h.Epoch}, nil
		clear(f.ahead)
		f.epochs = append(f.epochs, h.Epoch)
		at := f.at
		f.reached.Store(&at)
	} else if !h.Recovered {
		return broken("epoch %s does not know %d any more", f.at.Epoch, f.at.Seq)
	}
	for _, op := range h.Operations {
		if err := f.apply(op.Seq, op.entry.String()); err != nil {
			return err
		}
	}
	if h.More {
		return f.sync(conn)
	}
	return nil
}
