package wstest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

func testSubscription(t *testing.T, p Pair) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := p.A.Append(t.Context(), docOf(t), operation(fmt.Sprint("load", i)), ws.Position{}); err != nil {
				t.Errorf("append: %v", err)
				return
			}
		}
	})
	for range 20 {
		r, unsubscribe := mustSubscribe(t, p.B)
		from := mustHistory(t, p.B, nil, 1) // read after subscribing
		upTo := from.Head + 20
		got := r.Wait(t, "operations", func(s Recorded) bool {
			return len(s.Operations) > 0 && s.Operations[len(s.Operations)-1].Seq >= upTo
		})
		unsubscribe()
		if got.Gaps > 0 {
			continue // it may have missed what a gap covers
		}
		seqs := map[uint64]bool{}
		for _, op := range got.Operations {
			seqs[op.Seq] = true
		}
		for seq := from.Head + 1; seq <= upTo; seq++ {
			if !seqs[seq] {
				t.Fatalf("missed %d, subscribed at %d", seq, from.Head)
			}
		}
	}
}

func testUnsubscribe(t *testing.T, p Pair) {
	witness, stop := mustSubscribe(t, p.A)
	defer stop()
	r, unsubscribe := mustSubscribe(t, p.B)
	first := mustAppend(t, p.A, operation("1"))
	r.Wait(t, "the first operation", func(s Recorded) bool { return s.Has(first.Position) })
	unsubscribe()
	unsubscribe() // harmless
	before := r.Recorded()
	last := appendMany(t, p.A, 2, 20)
	witness.Wait(t, "the last operation on A", func(s Recorded) bool { return s.Has(last.Position) })
	again, stopAgain := mustSubscribe(t, p.B) // B delivers to another receiver
	defer stopAgain()
	more := mustAppend(t, p.A, operation("21"))
	again.Wait(t, "the newest on B", func(s Recorded) bool { return s.Has(more.Position) })
	if after := r.Recorded(); len(after.Operations) != len(before.Operations) || after.Gaps != before.Gaps {
		t.Error("the receiver was called after unsubscribe returned")
	}
}

func testSecondSubscription(t *testing.T, p Pair) {
	r, unsubscribe := mustSubscribe(t, p.A)
	if _, err := p.A.Subscribe(t.Context(), docOf(t), NewRecorder()); err == nil {
		t.Error("a second subscription to one document")
	}
	ack := mustAppend(t, p.B, operation("1"))
	r.Wait(t, "the operation, as the first one lives", func(s Recorded) bool { return s.Has(ack.Position) })
	unsubscribe()
	_, unsubscribe = mustSubscribe(t, p.A)
	unsubscribe()
}

func member(conn string) ws.Member {
	return ws.Member{
		ConnectionID: conn, UserID: "7", UserName: "Ada <é>", Color: "#aabbcc",
		State: json.RawMessage(`{"cursor":9007199254740993}`),
	}
}

func joined(conns ...string) ws.PresenceChange {
	var c ws.PresenceChange
	for _, conn := range conns {
		c.Joined = append(c.Joined, member(conn))
	}
	return c
}

func mustAnnounce(t *testing.T, b ws.Backplane, change ws.PresenceChange) {
	t.Helper()
	if err := b.Announce(t.Context(), docOf(t), change); err != nil {
		t.Fatalf("announce: %v", err)
	}
}

func mustMembers(t *testing.T, b ws.Backplane) []string {
	t.Helper()
	members, err := b.Members(t.Context(), docOf(t))
	if err != nil {
		t.Fatalf("members: %v", err)
	}
	var conns []string
	for _, m := range members {
		conns = append(conns, m.ConnectionID)
	}
	slices.Sort(conns)
	return conns
}

func testPresence(t *testing.T, p Pair) {
	onA, stopA := mustSubscribe(t, p.A)
	defer stopA()
	onB, stopB := mustSubscribe(t, p.B)
	defer stopB()
	mustAnnounce(t, p.A, joined("a1", "a2"))
	mustAnnounce(t, p.B, joined("b1"))
	both := func(s Recorded) bool { return s.Joined("a1") > 0 && s.Joined("a2") > 0 && s.Joined("b1") > 0 }
	onA.Wait(t, "three joined on A", both)
	got := onB.Wait(t, "three joined on B", both)
	if m := got.Presence[0].Joined[0]; m.UserName != "Ada <é>" || string(m.State) != `{"cursor":9007199254740993}` {
		t.Errorf("announced member: %+v", m)
	}
	if got := mustMembers(t, p.B); !slices.Equal(got, []string{"a1", "a2", "b1"}) {
		t.Errorf("members: %v", got)
	}

	moved := member("a1")
	moved.State = json.RawMessage(`[1]`)
	change := ws.PresenceChange{
		Updated: []ws.Member{moved},
		Left:    []ws.Departure{{Member: member("a2"), Reason: "leave"}},
	}
	mustAnnounce(t, p.A, change)
	mustAnnounce(t, p.A, change) // as after a lost reply
	onB.Wait(t, "update and departure", func(s Recorded) bool { return s.Updated("a1") > 0 && s.Left("a2", "leave") > 0 })
	members, err := p.B.Members(t.Context(), docOf(t))
	if err != nil || len(members) != 2 || members[0].ConnectionID != "a1" || string(members[0].State) != `[1]` {
		t.Errorf("members: %+v, %v", members, err)
	}
	mustAnnounce(t, p.A, ws.PresenceChange{}) // nothing
}

// A newcomer on B takes the place of a member of A.
func testReplaced(t *testing.T, p Pair) {
	onA, stopA := mustSubscribe(t, p.A)
	defer stopA()
	lost := member("a1")
	lost.Away = true
	mustAnnounce(t, p.A, joined("a1", "a2"))
	mustAnnounce(t, p.A, ws.PresenceChange{Updated: []ws.Member{lost}})
	change := joined("b1")
	change.Left = []ws.Departure{{Member: lost, Reason: "replaced"}}
	mustAnnounce(t, p.B, change)
	onA.Wait(t, "both in one announcement", func(s Recorded) bool {
		for _, c := range s.Presence {
			if len(c.Joined) == 1 && c.Joined[0].ConnectionID == "b1" && len(c.Left) == 1 {
				return true
			}
		}
		return false
	})
	if got := mustMembers(t, p.B); !slices.Equal(got, []string{"a2", "b1"}) {
		t.Errorf("members: %v", got)
	}
}

func testDeadReplica(t *testing.T, p Pair) {
	mustAnnounce(t, p.A, joined("a1", "a2"))
	onB, stop := mustSubscribe(t, p.B) // after they joined
	defer stop()
	mustAnnounce(t, p.B, joined("b1"))
	p.KillA()
	s := onB.Wait(t, "the members of A leaving", func(s Recorded) bool {
		return s.Left("a1", "") > 0 && s.Left("a2", "") > 0 || s.Gaps > 0
	})
	want := 1
	if s.Gaps > 0 { // it covers what was announced, and the members tell
		want = s.Left("a1", "")
	}
	if s.Left("a1", "replica") != want || s.Left("a2", "replica") != want || s.Left("b1", "") != 0 {
		t.Errorf("departures: %+v", s.Presence)
	}
	deadline := time.Now().Add(patience)
	for got := mustMembers(t, p.B); !slices.Equal(got, []string{"b1"}); got = mustMembers(t, p.B) {
		if time.Now().After(deadline) {
			t.Fatalf("members: %v", got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := p.B.Announce(ctx, docOf(t), joined("b2")); err != nil {
		t.Errorf("announce after the death of another: %v", err)
	}
}
