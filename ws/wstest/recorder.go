package wstest

import (
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// patience is how long a test waits for what must come.
const patience = 15 * time.Second

// Recorder is a ws.Receiver that keeps what it is told.
type Recorder struct {
	mu      sync.Mutex
	state   Recorded
	changed chan struct{} // closed and replaced by each call
	entered int           // calls under way; more than one breaks the contract
	overlap bool
}

// Recorded is all that a Recorder was told, in order.
type Recorded struct {
	Operations []RecordedOperation
	Presence   []ws.PresenceChange
	Gaps       int
}

// RecordedOperation is one call of Receiver.Operation.
type RecordedOperation struct {
	Epoch string
	ws.Entry
}

// NewRecorder makes a Recorder that was told nothing.
func NewRecorder() *Recorder { return &Recorder{changed: make(chan struct{})} }

// Operation implements ws.Receiver.
func (r *Recorder) Operation(epoch string, e ws.Entry) {
	r.record(func(s *Recorded) { s.Operations = append(s.Operations, RecordedOperation{epoch, e}) })
}

// Presence implements ws.Receiver.
func (r *Recorder) Presence(change ws.PresenceChange) {
	r.record(func(s *Recorded) { s.Presence = append(s.Presence, change) })
}

// Gap implements ws.Receiver.
func (r *Recorder) Gap() { r.record(func(s *Recorded) { s.Gaps++ }) }

func (r *Recorder) record(add func(*Recorded)) {
	r.enter(1)
	defer r.enter(-1)
	r.mu.Lock()
	defer r.mu.Unlock()
	add(&r.state)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Recorder) enter(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entered += n
	r.overlap = r.overlap || r.entered > 1
}

// Recorded returns a copy of what was told so far.
func (r *Recorder) Recorded() Recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copyLocked()
}

func (r *Recorder) copyLocked() Recorded {
	return Recorded{
		Operations: append([]RecordedOperation(nil), r.state.Operations...),
		Presence:   append([]ws.PresenceChange(nil), r.state.Presence...),
		Gaps:       r.state.Gaps,
	}
}

// Wait returns what was told as soon as enough holds for it, and fails the
// test when that takes too long, saying what was waited for.
func (r *Recorder) Wait(t testing.TB, what string, enough func(Recorded) bool) Recorded {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		state, changed, overlap := r.copyLocked(), r.changed, r.overlap
		r.mu.Unlock()
		if overlap {
			t.Fatal("two calls to one receiver at a time")
		}
		if enough(state) {
			return state
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("waited in vain for %s; was told %d operations, %d gaps, presence %+v",
				what, len(state.Operations), state.Gaps, state.Presence)
		}
	}
}

// Joined counts the announcements that the connection joined.
func (s Recorded) Joined(conn string) int {
	return s.count(conn, func(c ws.PresenceChange) []ws.Member { return c.Joined })
}

// Updated counts the announcements of a new state of the connection.
func (s Recorded) Updated(conn string) int {
	return s.count(conn, func(c ws.PresenceChange) []ws.Member { return c.Updated })
}

// Left counts the announcements that the connection left, for that reason;
// with an empty one for any.
func (s Recorded) Left(conn, reason string) int {
	n := 0
	for _, c := range s.Presence {
		for _, d := range c.Left {
			if d.ConnectionID == conn && (reason == "" || d.Reason == reason) {
				n++
			}
		}
	}
	return n
}

// Has reports whether the operation was delivered.
func (s Recorded) Has(at ws.Position) bool {
	for _, op := range s.Operations {
		if op.Epoch == at.Epoch && op.Seq == at.Seq {
			return true
		}
	}
	return false
}

func (s Recorded) count(conn string, pick func(ws.PresenceChange) []ws.Member) int {
	n := 0
	for _, c := range s.Presence {
		for _, m := range pick(c) {
			if m.ConnectionID == conn {
				n++
			}
		}
	}
	return n
}
