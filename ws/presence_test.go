package ws_test

import (
	"fmt"
	"testing"

	"github.com/seed-6230208e/tandem/ws/wstest"
)

func left(id, reason string) func(wstest.Presence) bool {
	return func(p wstest.Presence) bool {
		for _, e := range p.Left {
			if e.ConnectionID == id {
				return e.Reason == reason
			}
		}
		return false
	}
}

func joinedBy(id string) func(wstest.Presence) bool {
	return func(p wstest.Presence) bool {
		for _, e := range p.Joined {
			if e.ConnectionID == id {
				return true
			}
		}
		return false
	}
}

func TestPresenceOverTwoReplicas(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	onA, _ := a.join("d", w.login("7"))
	onA.ExpectPresence("the first joined", joinedBy(onA.ID))
	onB := wstest.Dial(t, b.server.URL+"/ws/documents/d?color=%23a1B2c3", wstest.DialOptions{Header: w.login("8").header()})
	onB.Authenticate()
	joined := onB.Join(nil)
	if len(joined.Presence) != 2 {
		t.Fatalf("present: %+v", joined.Presence)
	}
	onA.ExpectPresence("the second joined", func(p wstest.Presence) bool {
		for _, e := range p.Joined {
			if e.ConnectionID == onB.ID {
				return e.UserID == "8" && e.UserName == "name of 8" && e.Color == "#a1B2c3" && string(e.State) == "null"
			}
		}
		return false
	})
	for i := range 50 {
		onB.Send(map[string]any{"type": "presence", "state": map[string]int{"cursor": i}})
	}
	frames := 0
	onA.ExpectPresence("the newest state", func(p wstest.Presence) bool {
		frames++
		return len(p.Updated) == 1 && string(p.Updated[0].State) == `{"cursor":49}`
	})
	if frames > 25 {
		t.Errorf("%d frames for 50 states", frames)
	}
	third, _ := a.join("d", w.login("9"))
	eventually(t, "the third to see the state", func() bool {
		other := a.open("d", w.login("9"))
		defer other.Cut()
		for _, e := range other.Join(nil).Presence {
			if e.ConnectionID == onB.ID && string(e.State) == `{"cursor":49}` {
				return true
			}
		}
		return false
	})
	third.SendText(`{"type":"leave_document"}`)
	onB.ExpectPresence("the third left", left(third.ID, "leave"))
	onB.Cut()
	onA.ExpectPresence("the second left", left(onB.ID, "closed"))
}

func TestDeadReplicaLeavesPresence(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	onA, _ := a.join("d", w.login("7"))
	onB, _ := b.join("d", w.login("8"))
	onA.ExpectPresence("joined", joinedBy(onB.ID))
	b.backplane.Kill()
	onA.ExpectPresence("left", left(onB.ID, "replica"))
}

func TestPresenceAfterAGap(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	onA, _ := a.join("d", w.login("7"))
	old, _ := b.join("d", w.login("8"))
	onA.ExpectPresence("joined", joinedBy(old.ID))
	eventually(t, "both to be in the store", func() bool {
		m, err := b.backplane.Members(t.Context(), "d")
		return err == nil && len(m) == 2
	})
	a.backplane.SetUnavailable(true)
	old.Cut()
	fresh, _ := b.join("d", w.login("9"))
	eventually(t, "the newcomer alone on B", func() bool {
		m, err := b.backplane.Members(t.Context(), "d")
		return err == nil && len(m) == 2
	})
	a.backplane.SetUnavailable(false)
	seen := map[string]bool{}
	onA.ExpectPresence("what was missed", func(p wstest.Presence) bool {
		for _, e := range p.Joined {
			seen["+"+e.ConnectionID] = true
		}
		for _, e := range p.Left {
			seen["-"+e.ConnectionID] = true
		}
		return seen["+"+fresh.ID] && seen["-"+old.ID]
	})
	if seen["-"+onA.ID] {
		t.Error("the receiver itself was said to have left")
	}
}

// News of members that are lost although nothing was cut are made up for.
func TestLostPresenceNews(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	onA, _ := a.join("d", w.login("7"))
	gone, _ := b.join("d", w.login("8"))
	onA.ExpectPresence("joined", joinedBy(gone.ID))
	a.backplane.Drop(1)
	onB, _ := b.join("d", w.login("8"))
	onA.ExpectPresence("joined", joinedBy(onB.ID))
	a.backplane.Drop(1)
	gone.Close()
	onA.ExpectPresence("left", func(p wstest.Presence) bool {
		return has(p.Left, gone.ID)
	})
}

func TestPresenceIsAnnouncedAfterAnOutage(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	onA, _ := a.join("d", w.login("7"))
	onB, _ := b.join("d", w.login("8"))
	onA.ExpectPresence("joined", joinedBy(onB.ID))
	b.backplane.SetUnavailable(true)
	onB.Cut() // the last one on B: its departure waits for Redis
	eventually(t, "B to be empty", func() bool { n, _ := b.hub.Counts(); return n == 0 })
	b.backplane.SetUnavailable(false)
	onA.ExpectPresence("left", left(onB.ID, "closed"))
	again, _ := b.join("d", w.login("8")) // the document opens again
	onA.ExpectPresence("joined again", joinedBy(again.ID))
}

func TestManyJoinsAreFewFrames(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	first, _ := r.join("d", w.login("7"))
	ada := w.login("8")
	const count = 100
	clients := make([]*wstest.Client, count)
	for i := range clients {
		clients[i] = r.open("d", ada)
	}
	for i, c := range clients {
		c.SendText(fmt.Sprintf(`{"type":"join_document","id":"%d"}`, i))
	}
	seen := map[string]bool{}
	frames := 0
	first.ExpectPresence("everybody", func(p wstest.Presence) bool {
		frames++
		for _, e := range p.Joined {
			seen[e.ConnectionID] = true
		}
		return len(seen) == count+1
	})
	if frames > count/2 {
		t.Errorf("%d frames for %d joins", frames, count)
	}
}
