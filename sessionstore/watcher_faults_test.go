package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// throughLink is a client, as the product makes it, whose link to the server
// can be cut.
func throughLink(t *testing.T, s *redistest.Server) (*redistest.Link, redis.UniversalClient) {
	t.Helper()
	link := redistest.NewLink(t, s.Addr())
	conn, err := redisconn.Open(redisconn.Config{
		URL: s.URLAt(link.Addr()), DialTimeout: time.Second, CommandTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, conn.Close()) })
	return link, conn.Client()
}

// A Redis that lost everything has ended every session.
func TestWatcherRedisLostEverything(t *testing.T) {
	s := redistest.Start(t)
	a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: 50 * time.Millisecond})
	ear, _ := a.bind(t, a.open(t, "Ann").ID())
	s.Kill()
	s.Restart()
	ear.expect(t, "ended gone")
}

// The replica was cut off when the session ended: it learns so when it is
// back, and why.
func TestWatcherLogoutWhileCutOff(t *testing.T) {
	s := redistest.Start(t)
	link, rdb := throughLink(t, s)
	const verify = 500 * time.Millisecond
	a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
	b := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: verify})
	session := a.open(t, "Ann")
	ear, _ := b.bind(t, session.ID())

	link.Cut()
	until(t, "the watcher notices", func() bool { return b.w.Healthy() != nil })
	if err := a.End(t.Context(), session.ID(), ReasonLogout); err != nil {
		t.Fatal(err)
	}
	link.Heal()
	healed := time.Now()
	ear.expect(t, "ended logout")
	if late := time.Since(healed); late > verify+time.Second {
		t.Errorf("told %s after the link was back", late)
	}
	until(t, "the watcher is healthy again", func() bool { return b.w.Healthy() == nil })
}

// A link that swallows everything gives no error: the probes notice.
func TestWatcherSilentLink(t *testing.T) {
	s := redistest.Start(t)
	link, rdb := throughLink(t, s)
	a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
	b := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: never})
	session := a.open(t, "Ann")
	ear, _ := b.bind(t, session.ID())

	link.Blackhole(true)
	until(t, "the watcher notices", func() bool { return b.w.Healthy() != nil })
	if err := a.End(t.Context(), session.ID(), ReasonLogout); err != nil {
		t.Fatal(err)
	}
	link.Blackhole(false)
	ear.expect(t, "ended logout") // found after the gap, as nothing verifies
	until(t, "the watcher is healthy again", func() bool { return b.w.Healthy() == nil })
}

// A subscription that the server killed is a gap: whatever happened in it is
// found without waiting for the verification.
func TestWatcherSubscriptionKilled(t *testing.T) {
	s := redistest.Start(t)
	rdb := s.Client(t)
	a := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: never})
	for i := range 5 {
		session, kept := a.open(t, "Ann"), a.open(t, "Bob")
		ear, _ := a.bind(t, session.ID())
		other, _ := a.bind(t, kept.ID())
		if err := rdb.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		if err := a.End(t.Context(), session.ID(), ReasonLogout); err != nil {
			t.Fatal(err)
		}
		a.set(t, kept.ID(), fmt.Sprint(i))
		ear.expect(t, "ended logout")
		other.expect(t, fmt.Sprintf(`changed "%d"`, i))
		until(t, "the watcher is healthy again", func() bool { return a.w.Healthy() == nil })
	}
}

// Redis out of reach for too long: nothing is known, and the binding ends.
func TestWatcherUnverified(t *testing.T) {
	s := redistest.Start(t)
	link, rdb := throughLink(t, s)
	a := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: 50 * time.Millisecond, MaxUnverified: 300 * time.Millisecond})
	session := a.open(t, "Ann")
	ear, binding := a.bind(t, session.ID())
	link.Cut()
	ear.expect(t, "unverified")
	if _, err := binding.Update(t.Context(), func(*Session) error { return nil }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("update: %v", err)
	}
	link.Heal()
	until(t, "the session can be bound again", func() bool {
		again, _, err := a.w.Bind(t.Context(), session.ID(), newEar())
		if err == nil {
			again.Close()
		}
		return err == nil
	})
}

// gate holds back the answer of one pipeline.
type gate struct {
	armed   atomic.Bool
	held    chan struct{} // the answer is there
	release chan struct{}
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if g.armed.CompareAndSwap(true, false) {
			close(g.held)
			<-g.release
		}
		return err
	}
}

// A state that was read before a newer one was saved, and comes after it,
// must not be told: a socket would see its own write undone.
func TestWatcherStateNeverGoesBack(t *testing.T) {
	s := redistest.Start(t)
	a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
	rdb := s.Client(t)
	b := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: never})
	session := a.open(t, "Ann")
	ear, binding := b.bind(t, session.ID())
	late := &gate{held: make(chan struct{}), release: make(chan struct{})}
	rdb.AddHook(late)

	late.armed.Store(true)
	a.set(t, session.ID(), "old")
	<-late.held
	_, err := binding.Update(t.Context(), func(s *Session) error { return s.Set("chat.name", "new") })
	if err != nil {
		t.Fatal(err)
	}
	ear.expect(t, `changed "new"`)
	close(late.release)
	a.set(t, session.ID(), "newest")
	ear.expect(t, `changed "newest"`)
}
