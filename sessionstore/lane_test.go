package sessionstore

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestLaneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lanes
		leave := l.enter(t.Context(), "r")
		var order []int
		for i := range 3 {
			go func() {
				defer l.enter(t.Context(), "r")()
				order = append(order, i)
			}()
			synctest.Wait()
		}
		other := l.enter(t.Context(), "another") // does not wait
		other()
		if len(order) != 0 {
			t.Fatal("somebody did not wait")
		}
		leave()
		synctest.Wait()
		if fmt.Sprint(order) != "[0 1 2]" || len(l.busy) != 0 {
			t.Errorf("order %v, left %v", order, l.busy)
		}
	})
}

// Nobody waits for one that does not get on, nor for longer than his caller.
func TestLanePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lanes
		began := time.Now()
		hangs := l.enter(t.Context(), "r")
		l.enter(t.Context(), "r")()
		if waited := time.Since(began); waited != laneWait {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), laneWait/2)
		defer cancel()
		l.enter(ctx, "r")()
		if waited := time.Since(began); waited != laneWait*3/2 {
			t.Errorf("waited %v", waited)
		}
		hangs()
		if len(l.busy) != 0 {
			t.Errorf("left %v", l.busy)
		}
	})
}

// However many write one session through one factory, none is in another's
// way; those of two factories meet and all the same get on.
func TestWritersOfOneSession(t *testing.T) {
	const writers, writes = 20, 10
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		a, err := New(srv.Client(t), Config{})
		check(t, err)
		b, err := New(srv.Client(t), Config{})
		check(t, err)
		write := func(id string, factories ...*Factory) {
			var all sync.WaitGroup
			for i := range writers {
				f := factories[i%len(factories)]
				all.Go(func() {
					for range writes {
						_, err := f.Update(t.Context(), id, func(s *Session) error {
							n, _ := s.Get("n")
							sum, _ := n.(float64)
							return s.Set("n", sum+1)
						})
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		}
		s, err := a.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		write(s.ID(), a)
		if n := testutil.ToFloat64(a.metrics.conflicts); n != 0 {
			t.Errorf("%v conflicts of one factory with itself", n)
		}
		write(s.ID(), a, b)
		now, err := a.Load(t.Context(), s.ID())
		check(t, err)
		if n, _ := now.Get("n"); n != float64(2*writers*writes) {
			t.Errorf("n is %v", n)
		}
		t.Logf("two factories: %v and %v conflicts in %d writes",
			testutil.ToFloat64(a.metrics.conflicts), testutil.ToFloat64(b.metrics.conflicts), writers*writes)
	})
}

// A callback that writes the session which it is called for gets on, too.
func TestUpdateWithinUpdate(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		f, err := New(srv.Client(t), Config{})
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		now, err := f.Update(t.Context(), s.ID(), func(outer *Session) error {
			if _, err := f.Update(t.Context(), s.ID(), func(inner *Session) error { return inner.Set("inner", true) }); err != nil {
				return err
			}
			return outer.Set("outer", true)
		})
		check(t, err)
		if got := fmt.Sprint(now.Names()); got != "[inner outer user.id user.name]" {
			t.Errorf("attributes %s", got)
		}
	})
}
