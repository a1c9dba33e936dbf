package wsredis_test

import (
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
)

// A newcomer is not told that it is paired with somebody whose replica has
// died, whether it takes a free side or one of the dead's.
func TestPairNewcomerBesideTheDead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		// A replica that was stopped looks like one that has died: it frees nothing.
		dead, b := startPairs(t, "dead", s.Addr()), startPairs(t, "b", s.Addr())
		mustClaim(t, dead, ws.Left, "left")
		mustClaim(t, dead, ws.Right, "right")
		dead.replica.stop()
		var again *seated
		eventually(t, "the dead's side to be free", func() bool {
			var err error
			again, err = claim(t, b, ws.Left, "again", "")
			return err == nil
		})
		again.mu.Lock()
		defer again.mu.Unlock()
		for _, state := range again.heard {
			if state.Counterpart != 0 {
				t.Errorf("told of a counterpart: %+v", again.heard)
			}
		}
	})
}

// Redis may come back with a pair as it was a while ago. Its numbers were
// given already: both sides go on in another life of the pair.
func TestPairSetBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, b, admin := startPairs(t, "a", s.Addr()), startPairs(t, "b", s.Addr()), s.Client(t)
		left, right := mustClaim(t, a, ws.Left, "left"), mustClaim(t, b, ws.Right, "right")
		state := left.met(0)
		before := admin.HGetAll(t.Context(), pairHash).Val()
		p := ws.PairPost{Unique: state.Unique, To: state.Counterpart, Number: 1}
		if _, ok := left.post(p, "x"); !ok {
			t.Fatal("not posted")
		}
		pipe := admin.TxPipeline()
		pipe.Del(t.Context(), pairHash)
		pipe.HSet(t.Context(), pairHash, before)
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		left.Refresh()
		wantAnotherLife(t, state.Unique, left, right)
	})
}

// A Redis that was restarted from a snapshot says so itself: nobody has to
// know what is missing, not even the side that posts first.
func TestPairAfterRestart(t *testing.T) {
	s := redistest.Start(t)
	a, b, admin := startPairs(t, "a", s.Addr()), startPairs(t, "b", s.Addr()), s.Client(t)
	left, right := mustClaim(t, a, ws.Left, "left"), mustClaim(t, b, ws.Right, "right")
	state := left.met(0)
	if err := admin.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if _, ok := left.post(ws.PairPost{Unique: state.Unique, To: state.Counterpart, Number: 1}, "x"); !ok {
		t.Fatal("not posted")
	}
	s.Kill()
	s.Restart()
	post := ws.PairPost{Unique: state.Unique, To: right.met(0).Counterpart, Number: 1, Count: 1, Messages: []ws.PairMessage{{Kind: ws.PairText}}}
	eventually(t, "an answer", func() bool {
		r, ok, err := right.Post(t.Context(), post)
		if ok {
			t.Fatalf("index %d was given twice", r.First)
		}
		return err == nil
	})
	wantAnotherLife(t, state.Unique, left, right)
}

// wantAnotherLife waits for both sides to be paired as something else.
func wantAnotherLife(t *testing.T, before string, left, right *seated) {
	t.Helper()
	eventually(t, "another life of the pair", func() bool {
		l, r := left.now(), right.now()
		return l.Unique != before && l.Unique == r.Unique && l.Counterpart != 0 && r.Counterpart != 0
	})
	if n := left.now(); n.Sent != 0 || n.Incoming != 0 {
		t.Errorf("%+v", n)
	}
}
