package wsredis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func joined(conns ...string) ws.PresenceChange {
	var c ws.PresenceChange
	for _, conn := range conns {
		c.Joined = append(c.Joined, ws.Member{ConnectionID: conn, UserID: "7"})
	}
	return c
}

func announce(t testing.TB, r *replica, change ws.PresenceChange) {
	t.Helper()
	if err := r.Announce(t.Context(), doc, change); err != nil {
		t.Fatalf("announce: %v", err)
	}
}

func appendOne(t testing.TB, r *replica, id string) ws.Ack {
	t.Helper()
	ack, err := r.Append(t.Context(), doc, ws.Operation{ID: id, UserID: "7"}, ws.Position{})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return ack
}

func has(at ws.Position) func(wstest.Recorded) bool {
	return func(s wstest.Recorded) bool { return s.Has(at) }
}

func gap(s wstest.Recorded) bool { return s.Gaps > 0 }

// covered holds when at was delivered, or a gap came after those of before: a
// busy machine may lose a subscription again.
func covered(at ws.Position, before wstest.Recorded) func(wstest.Recorded) bool {
	return func(s wstest.Recorded) bool { return s.Has(at) || s.Gaps > before.Gaps }
}

func memberCount(t testing.TB, r *replica) int {
	t.Helper()
	members, err := r.Members(t.Context(), doc)
	if errors.Is(err, ws.ErrUnavailable) {
		return -1
	}
	if err != nil {
		t.Fatalf("members: %v", err)
	}
	return len(members)
}

// The link of one replica is cut and healed: it hears of it, says so, and
// gets a Gap for what it missed.
func TestLinkCut(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		link := redistest.NewLink(t, s.Addr())
		a, b := start(t, "a", link.Addr()), start(t, "b", s.Addr())
		onA := subscribe(t, a, doc)
		announce(t, a, joined("a1"))
		eventually(t, "health", func() bool { return a.Healthy() == nil })

		link.Cut()
		eventually(t, "ill health", func() bool { return a.Healthy() != nil })
		_, err := a.Append(t.Context(), doc, ws.Operation{ID: "1", UserID: "7"}, ws.Position{})
		if !errors.Is(err, ws.ErrUnavailable) {
			t.Errorf("append: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Subscribe(ctx, "other", wstest.NewRecorder()); !errors.Is(err, ws.ErrUnavailable) {
			t.Errorf("subscribe: %v", err)
		}
		missed := appendOne(t, b, "1")

		link.Heal()
		onA.Wait(t, "a gap", gap)
		eventually(t, "health", func() bool { return a.Healthy() == nil })
		next := appendOne(t, b, "2")
		if got := onA.Wait(t, "what came after", has(next.Position)); got.Has(missed.Position) {
			t.Error("heard what was announced while cut off")
		}
		eventually(t, "its member", func() bool { return memberCount(t, b) == 1 })
	})
}

// A link that swallows everything shows no error: only the probe finds out.
func TestDeafSubscription(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	a := start(t, "a", link.Addr())
	onA := subscribe(t, a, doc)
	eventually(t, "health", func() bool { return a.Healthy() == nil })
	link.DropIdle()
	eventually(t, "ill health", func() bool { return a.Healthy() != nil })
	onA.Wait(t, "a gap", gap)
	eventually(t, "health", func() bool { return a.Healthy() == nil })
	b := start(t, "b", s.Addr())
	onA.Wait(t, "an operation", has(appendOne(t, b, "1").Position))
}

func TestSubscriptionKilledByServer(t *testing.T) {
	s := redistest.Start(t)
	a := start(t, "a", s.Addr())
	recorders := make([]*wstest.Recorder, 1200) // more than one SUBSCRIBE takes
	var wg sync.WaitGroup
	for i := range recorders {
		wg.Go(func() { recorders[i] = subscribe(t, a, fmt.Sprint("d", i)) })
	}
	wg.Wait()
	if err := s.Client(t).Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	for i, r := range recorders {
		before := r.Wait(t, "a gap", gap)
		ack, err := a.Append(t.Context(), fmt.Sprint("d", i), ws.Operation{ID: "1", UserID: "7"}, ws.Position{})
		if err != nil {
			t.Fatal(err)
		}
		r.Wait(t, "an operation", covered(ack.Position, before))
	}
}

func TestServerRestart(t *testing.T) {
	s := redistest.Start(t)
	a := start(t, "a", s.Addr())
	onA := subscribe(t, a, doc)
	announce(t, a, joined("a1"))
	before := appendOne(t, a, "1")
	onA.Wait(t, "the operation", has(before.Position))

	s.Restart() // keeps nothing
	onA.Wait(t, "a gap", gap)
	eventually(t, "the member in the new Redis", func() bool {
		members, err := a.Members(t.Context(), doc)
		return err == nil && len(members) == 1
	})
	eventually(t, "health", func() bool { return a.Healthy() == nil })
	after := appendOne(t, a, "1")
	if after.Duplicate || after.Seq != 1 || after.Epoch == before.Epoch {
		t.Errorf("in the new Redis: %+v, before %+v", after, before)
	}
	onA.Wait(t, "the operation", has(after.Position))
}

func TestResync(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := start(t, "a", s.Addr())
		onA := subscribe(t, a, doc)
		a.Resync()
		onA.Wait(t, "a gap", gap)
	})
}

func TestPresenceRefill(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := start(t, "a", s.Addr()), start(t, "b", s.Addr())
		subscribe(t, a, doc)
		onB := subscribe(t, b, doc)
		announce(t, a, joined("a1", "a2"))
		announce(t, b, joined("b1"))
		remove(t, admin, "tandem:presence:{doc:d}")
		eventually(t, "the members", func() bool { return memberCount(t, b) == 3 })
		onB.Wait(t, "the refill's announcement", func(r wstest.Recorded) bool {
			return r.Joined("a1") == 2 && r.Joined("a2") == 2
		})
	})
}

// The announcement of a change of members is lost though nothing is cut: found
// by the next one, or by the tick.
func TestLostPresenceAnnouncement(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, b, admin := startTicking(t, "a", s.Addr(), calm), startTicking(t, "b", s.Addr(), calm), s.Client(t)
		onA := subscribe(t, a, doc)
		if memberCount(t, a) != 0 {
			t.Fatal("somebody is there")
		}
		lose := func() { // announce.lua without PUBLISH
			pipe := admin.TxPipeline()
			pipe.Incr(t.Context(), "tandem:presence-count:{doc:d}")
			pipe.Expire(t.Context(), "tandem:presence-count:{doc:d}", time.Hour)
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		lose()
		onA.Wait(t, "a gap for the only one", gap)
		announce(t, b, joined("b1"))
		onA.Wait(t, "the next", func(r wstest.Recorded) bool { return r.Joined("b1") == 1 })
		before := onA.Recorded().Gaps
		lose()
		announce(t, b, joined("b2"))
		onA.Wait(t, "a gap beside the next", func(r wstest.Recorded) bool { return r.Joined("b2") == 1 && r.Gaps > before })
	})
}

// A member whose place was taken on another replica is not put back by its own.
func TestReplacedMemberIsNotRefilled(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := start(t, "a", s.Addr()), start(t, "b", s.Addr())
		onA := subscribe(t, a, doc)
		subscribe(t, b, doc)
		change := joined("a1", "a2")
		change.Joined[0].Away = true
		announce(t, a, change)
		announce(t, b, ws.PresenceChange{Joined: joined("b1").Joined, Left: []ws.Departure{{Member: change.Joined[0], Reason: "replaced"}}})
		onA.Wait(t, "the replacement", func(r wstest.Recorded) bool { return r.Left("a1", "replaced") == 1 })
		remove(t, admin, "tandem:presence:{doc:d}")
		got := onA.Wait(t, "the refill", func(r wstest.Recorded) bool { return r.Joined("a2") == 2 && r.Joined("b1") == 2 })
		if got.Joined("a1") != 1 || memberCount(t, a) != 2 {
			t.Errorf("put back: %+v", got.Presence)
		}
	})
}

// A failover brings back a member that had left: its replica lives, so no
// lease ends, but the replica knows better.
func TestGhostOfLivingReplica(t *testing.T) {
	s := redistest.Start(t)
	admin := s.Client(t)
	a := start(t, "a", s.Addr())
	onA := subscribe(t, a, doc)
	announce(t, a, joined("stays", "left"))
	ghost := admin.HGet(t.Context(), "tandem:presence:{doc:d}", "left").Val()
	announce(t, a, ws.PresenceChange{Left: []ws.Departure{{Member: ws.Member{ConnectionID: "left"}, Reason: "leave"}}})
	if err := admin.HSet(t.Context(), "tandem:presence:{doc:d}", "left", ghost).Err(); err != nil {
		t.Fatal(err)
	}
	a.Resync()
	onA.Wait(t, "the ghost leaving", func(r wstest.Recorded) bool { return r.Left("left", "closed") == 1 })
	if n := memberCount(t, a); n != 1 {
		t.Errorf("%d members", n)
	}
}

// Two replicas find the members of a third dead at the same time.
func TestReapersRace(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		dead, kill := killable(t, "dead", s)
		a, b := startTicking(t, "a", s.Addr(), calm), startTicking(t, "b", s.Addr(), calm)
		onA, onB := subscribe(t, a, doc), subscribe(t, b, doc)
		var conns []string
		for i := range 50 {
			conns = append(conns, fmt.Sprint("conn", i))
		}
		announce(t, dead, joined(conns...))
		announce(t, a, joined("alive"))
		kill()
		eventually(t, "their leaving", func() bool { return memberCount(t, a) == 1 })
		announce(t, b, joined("last")) // comes after all that was announced
		for _, on := range []*wstest.Recorder{onA, onB} {
			got := on.Wait(t, "the last", func(r wstest.Recorded) bool { return r.Joined("last") > 0 })
			for _, conn := range conns {
				if got.Left(conn, "replica") != 1 || got.Left(conn, "") != 1 {
					t.Fatalf("%s left %d times", conn, got.Left(conn, ""))
				}
			}
			if got.Left("alive", "") != 0 {
				t.Error("a member of a living replica was reaped")
			}
		}
	})
}

// A replica that stops in good order leaves nothing behind.
func TestStop(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, b := start(t, "a", s.Addr()), start(t, "b", s.Addr())
		onB := subscribe(t, b, doc)
		change := joined("a1", "a2")
		change.Joined[1].Away = true
		announce(t, a, change)
		a.stop()
		onB.Wait(t, "its member leaving", func(r wstest.Recorded) bool { return r.Left("a1", "replica") == 1 })
		got := onB.Wait(t, "the one that was away leaving", func(r wstest.Recorded) bool { return r.Left("a2", "replica") == 1 })
		for _, c := range got.Presence {
			if len(c.Left) > 1 {
				t.Errorf("who was away left with the replica: %+v", c)
			}
		}
		if n := memberCount(t, b); n != 0 {
			t.Errorf("%d members", n)
		}
		if _, err := a.Subscribe(t.Context(), doc, wstest.NewRecorder()); !errors.Is(err, ws.ErrUnavailable) {
			t.Errorf("subscribe after the end: %v", err)
		}
	})
}

// The reply of an Append is lost and go-redis sends it again: one operation.
func TestLostReply(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		link := redistest.NewLink(t, s.Addr())
		b := start(t, "b", s.Addr())
		appendOne(t, b, "first") // the script is loaded
		a := start(t, "a", link.Addr())
		eventually(t, "health", func() bool { return a.Healthy() == nil })
		for i := range 20 {
			link.DropReplies(1) // the tick may be the one to suffer
			op := ws.Operation{ID: fmt.Sprint(i), UserID: "7"}
			calls := 0
			eventually(t, "an ack", func() bool {
				calls++
				ack, err := a.Append(t.Context(), doc, op, ws.Position{})
				if err != nil && !errors.Is(err, ws.ErrUnavailable) {
					t.Fatalf("append: %v", err)
				}
				if err == nil && ack.Duplicate != (calls > 1) {
					t.Errorf("%+v after %d calls", ack, calls)
				}
				return err == nil && ack.Seq == uint64(i)+2
			})
		}
		h, err := b.History(t.Context(), doc, nil, 1<<20)
		if err != nil || h.Head != 21 {
			t.Errorf("head %d, %v", h.Head, err)
		}
	})
}

// Nobody may miss what comes right after a subscription, not even when its
// announcement is the one that is lost.
func TestFirstAnnouncementLost(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, admin := startTicking(t, "a", s.Addr(), slow), s.Client(t)
		onA := subscribe(t, a, doc)
		h, err := a.History(t.Context(), doc, nil, 1)
		if err != nil || h.Head != 0 {
			t.Fatalf("%+v, %v", h, err)
		}
		pipe := admin.TxPipeline() // append.lua without PUBLISH
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: "tandem:log:{doc:d}", ID: "1-0", Values: []string{"f", "}"}})
		pipe.HSet(t.Context(), "tandem:doc:{doc:d}", "seq", 1)
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		onA.Wait(t, "a gap", gap)
	})
}

// A middlebox forgot the subscription's connection: the next document that is
// opened finds out, and is not refused for it.
func TestSubscribeOnDeafConnection(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	a := startTicking(t, "a", link.Addr(), slow)
	eventually(t, "health", func() bool { return a.Healthy() == nil })
	link.DropIdle()
	subscribe(t, a, doc)
	subscribe(t, a, "other")
}

// A presence hash that was lost is refilled by every replica. One that misses
// its own members there knows that it was lost, and tells nobody of the part
// that happens to be there.
func TestMembersAreWholeOrUnavailable(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := startTicking(t, "a", s.Addr(), calm), startTicking(t, "b", s.Addr(), calm)
		subscribe(t, a, doc)
		onB := subscribe(t, b, doc)
		announce(t, a, joined("a1"))
		announce(t, b, joined("b1"))
		onB.Wait(t, "both", func(r wstest.Recorded) bool { return r.Joined("a1") > 0 && r.Joined("b1") > 0 })
		// A tick between the loss and the question makes the loss good: ask again.
		for unavailable := false; !unavailable; {
			remove(t, admin, "tandem:presence:{doc:d}")
			eventually(t, "the members", func() bool {
				members, err := b.Members(t.Context(), doc)
				own := slices.ContainsFunc(members, func(m ws.Member) bool { return m.ConnectionID == "b1" })
				switch {
				case errors.Is(err, ws.ErrUnavailable):
					unavailable = true
				case err != nil || !own:
					t.Fatalf("%v, %v", members, err)
				}
				return len(members) == 2
			})
		}
	})
}
