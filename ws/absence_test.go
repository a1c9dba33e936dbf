package ws_test

import (
	"slices"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// patient waits for whoever is lost until the test is over.
func patient(c *ws.Config) { c.Documents.PresenceGrace = time.Hour }

// away waits until a replica knows that a member was lost.
func away(t *testing.T, r *replica, id string) {
	t.Helper()
	eventually(t, "it to be known as lost", func() bool {
		members, err := r.backplane.Members(t.Context(), "d")
		return err == nil && slices.ContainsFunc(members, func(m ws.Member) bool { return m.ConnectionID == id && m.Away })
	})
}

// overtake returns when all that has been announced has come to the witness's
// replica: what is announced later has.
func overtake(t *testing.T, w *world, r *replica, witness *wstest.Client) {
	t.Helper()
	marker, _ := r.join("d", w.login("9"))
	witness.ExpectPresence("a marker", joinedBy(marker.ID))
	marker.Close()
	witness.ExpectPresence("the marker leaving", left(marker.ID, "closed"))
}

// Who comes back takes the place of the connection that was lost, in one frame,
// on the same replica and on another.
func TestReturnWithinGrace(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(patient), w.replica(patient)
	ada := w.login("7")
	for name, to := range map[string]*replica{"same replica": a, "other replica": b} {
		t.Run(name, func(t *testing.T) {
			witness, _ := b.join("d", w.login("8"))
			lost, _ := a.join("d", ada)
			lost.SendText(`{"type":"presence","state":1}`)
			witness.ExpectPresence("its state", func(p wstest.Presence) bool { return len(p.Updated) > 0 })
			lost.Cut()
			away(t, to, lost.ID)
			overtake(t, w, b, witness)
			stranger, joined := to.join("d", w.login("7")) // another session of the same user
			if !has(joined.Presence, lost.ID) {
				t.Error("who was lost a moment ago is not listed")
			}
			back, joined := to.join("d", ada)
			if has(joined.Presence, lost.ID) || !has(joined.Presence, back.ID) {
				t.Errorf("present: %+v", joined.Presence)
			}
			witness.ExpectPresence("the return", func(p wstest.Presence) bool {
				if slices.ContainsFunc(append(p.Left, p.Updated...), func(e wstest.Present) bool { return e.ConnectionID == lost.ID }) !=
					slices.ContainsFunc(p.Joined, func(e wstest.Present) bool { return e.ConnectionID == back.ID }) {
					t.Errorf("not in one frame: %+v", p)
				}
				return left(lost.ID, "replaced")(p)
			})
			eventually(t, "one of each to be left", func() bool {
				m, err := a.backplane.Members(t.Context(), "d")
				return err == nil && len(m) == 3
			})
			for _, c := range []*wstest.Client{back, stranger, witness} {
				c.SendText(`{"type":"leave_document"}`)
				c.Expect("left_document")
			}
		})
	}
}

func has(list []wstest.Present, id string) bool {
	return slices.ContainsFunc(list, func(e wstest.Present) bool { return e.ConnectionID == id })
}

// Who says goodbye, or has to go, has left at once.
func TestNoGraceForWhoLeaves(t *testing.T) {
	w := newWorld(t)
	r := w.replica(patient)
	witness, _ := r.join("d", w.login("8"))
	closed, _ := r.join("d", w.login("7"))
	closed.Close()
	witness.ExpectPresence("closed", left(closed.ID, "closed"))
	ada := w.login("7")
	ended, _ := r.join("d", ada)
	if err := w.factory.End(t.Context(), ada.id, sessionstore.ReasonLogout); err != nil {
		t.Fatal(err)
	}
	witness.ExpectPresence("logged out", left(ended.ID, "session"))
}

// Whose session ends is not waited for, be the connection still there or lost a
// moment ago.
func TestGraceEndsWithTheSession(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(patient), w.replica(patient)
	witness, _ := b.join("d", w.login("8"))
	ada := w.login("7")
	lost, _ := a.join("d", ada)
	lost.Cut()
	away(t, a, lost.ID)
	if err := w.factory.End(t.Context(), ada.id, sessionstore.ReasonLogout); err != nil {
		t.Fatal(err)
	}
	witness.ExpectPresence("logged out", left(lost.ID, "session"))
	eventually(t, "the document to be forgotten", func() bool {
		m, err := a.backplane.Members(t.Context(), "d")
		return err == nil && len(m) == 1
	})
}

// Who does not come back has left. A replica that stops leaves the wait to the
// others.
func TestGraceEnds(t *testing.T) {
	w := newWorld(t)
	witness, _ := w.replica(nil).join("d", w.login("8"))
	short := w.replica(func(c *ws.Config) { c.Documents.PresenceGrace = 60 * time.Millisecond })
	lost, _ := short.join("d", w.login("7"))
	lost.Cut()
	witness.ExpectPresence("left", left(lost.ID, "closed"))
	eventually(t, "the document to be forgotten", func() bool {
		m, err := short.backplane.Members(t.Context(), "d")
		return err == nil && len(m) == 1
	})

	long := w.replica(patient)
	last, _ := long.join("d", w.login("7"))
	last.Cut()
	away(t, long, last.ID)
	if err := long.hub.Close(); err != nil {
		t.Fatal(err)
	}
	away(t, long, last.ID)
	long.backplane.Kill()
	witness.ExpectPresence("left", left(last.ID, "replica"))
}

// A client that is told to reconnect and does so has not left.
func TestReturnAfterDrain(t *testing.T) {
	w := newWorld(t)
	a := w.replica(func(c *ws.Config) { patient(c); c.Drain.Spread = 1 })
	b := w.replica(patient)
	ada := w.login("7")
	witness, _ := b.join("d", w.login("8"))
	told, _ := a.join("d", ada)
	witness.ExpectPresence("joined", joinedBy(told.ID))
	if err := a.hub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	told.Expect("reconnect")
	away(t, b, told.ID)
	overtake(t, w, b, witness)
	back, _ := b.join("d", ada)
	witness.ExpectPresence("the return", func(p wstest.Presence) bool {
		return joinedBy(back.ID)(p) || left(told.ID, "replaced")(p)
	})
}
