package sessionstore

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// Timers tell the end, not the verification: nobody waits for it.
func TestWatcherIdleExpiry(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{IdleTimeout: time.Second}, WatchConfig{VerifyEvery: never})
		session := a.open(t, "Ann")
		ear, _ := a.bind(t, session.ID())
		ear.expect(t, "expiring")
		ear.expect(t, "ended expired")
		if late := time.Since(session.IdleExpiresAt()); late < -100*time.Millisecond || late > time.Second {
			t.Errorf("told %s after the end", late)
		}
	})
}

// A stock application lengthens the TTL beyond the absolute lifetime, which
// ends all the same.
func TestWatcherAbsoluteExpiry(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		rdb := s.Client(t)
		cfg := Config{IdleTimeout: 5 * time.Second, AbsoluteTimeout: 2 * time.Second}
		a := watchFrom(t, rdb, cfg, WatchConfig{VerifyEvery: never})
		session := a.open(t, "Ann")
		ear, _ := a.bind(t, session.ID())
		if err := rdb.Expire(t.Context(), "session:"+session.ID(), time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		ear.eventually(t, "ended expired")
	})
}

// Redis deletes a session at its end, so that a frame of that moment finds
// nothing. It is told the same as everybody who only listens.
func TestWatcherUpdateAtTheEnd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		rdb := s.Client(t)
		a := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: never})
		for want, end := range map[Reason]time.Time{ReasonExpired: time.Now(), ReasonGone: time.Now().Add(time.Hour)} {
			session := a.open(t, "Ann")
			ear, binding := a.bind(t, session.ID())
			a.w.mu.Lock()
			binding.entry.snapshot.idleEnd = end
			a.w.mu.Unlock()
			if err := rdb.Del(t.Context(), "session:"+session.ID()).Err(); err != nil {
				t.Fatal(err)
			}
			_, err := binding.Update(t.Context(), func(*Session) error { return nil })
			var ended *EndedError
			if !errors.As(err, &ended) || ended.Reason != want {
				t.Errorf("%v, want %s", err, want)
			}
			ear.eventually(t, "ended "+string(want))
		}
	})
}

// Activity on a socket extends the session, at most once per TouchEvery.
func TestWatcherTouch(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		rdb := s.Client(t)
		cfg := Config{IdleTimeout: time.Minute, TouchEvery: 20 * time.Second}
		a := watchFrom(t, rdb, cfg, WatchConfig{VerifyEvery: never})
		session := a.open(t, "Ann")
		_, binding := a.bind(t, session.ID())
		key := "session:" + session.ID()
		// Time passes, by the clock of Redis, and the binding learns so.
		if !rdb.PExpire(t.Context(), key, 10*time.Second).Val() {
			t.Fatal("no session to shorten")
		}
		_, err := binding.Update(t.Context(), func(s *Session) error { return s.Set("chat.name", "Bea") })
		if err != nil {
			t.Fatal(err)
		}
		binding.Touch()
		until(t, "the life is extended", func() bool { return rdb.PTTL(t.Context(), key).Val() > 50*time.Second })
		until(t, "the binding knows", func() bool {
			return time.Until(binding.Snapshot().IdleExpiresAt()) > 50*time.Second
		})

		for range 100 {
			binding.Touch()
		}
		a.w.mu.Lock()
		if waiting := len(a.w.queue.touch); waiting != 0 {
			t.Errorf("%d touches wait within TouchEvery of the last", waiting)
		}
		a.w.mu.Unlock()
	})
}

// Attempts to subscribe are seconds apart after a while. That Redis is back is
// a reason not to wait for the next.
func TestReverifySubscribesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		rdb := redis.NewClient(&redis.Options{
			MaxRetries: -1, DialerRetries: 1,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}, // it looks the name up
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				return nil, errors.New("refused")
			},
		})
		defer rdb.Close()
		f, err := New(rdb, Config{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWatcher(f, WatchConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- w.Run(ctx) }()

		time.Sleep(time.Minute)
		synctest.Wait()
		before := dials.Load()
		w.Reverify()
		synctest.Wait() // no time passes
		if dials.Load() == before {
			t.Error("the subscription was not made again")
		}
		stop()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
	})
}
