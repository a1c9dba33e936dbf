package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// patience bounds every wait of these tests for something that comes soon.
const patience = 15 * time.Second

// ear is a Listener that writes down what it hears. Its fields but the
// channel are unguarded on purpose: the race detector proves that the calls
// come one at a time.
type ear struct {
	heard chan string
	calls int
	over  bool
	name  string // chat.name, as last heard
}

func newEar() *ear { return &ear{heard: make(chan string, 1000)} }

func (e *ear) note(format string, args ...any) {
	e.calls++
	if e.over {
		format = "AFTER THE LAST CALL: " + format
	}
	e.heard <- fmt.Sprintf(format, args...)
}

func (e *ear) SessionChanged(s *Snapshot) {
	raw, _ := s.JSON("chat.name")
	e.note("changed %s", raw)
}
func (e *ear) SessionRotated()                  { e.note("rotated") }
func (e *ear) SessionExpiring(in time.Duration) { e.note("expiring") }
func (e *ear) SessionEnded(r Reason)            { e.note("ended %s", r); e.over = true }
func (e *ear) SessionUnverified()               { e.note("unverified"); e.over = true }

// expect waits for want, which must be the next call.
func (e *ear) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-e.heard:
		if got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("heard nothing, want %q", want)
	}
}

// eventually waits for want, whatever comes before.
func (e *ear) eventually(t *testing.T, want string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case got := <-e.heard:
			if got == want {
				return
			}
		case <-late:
			t.Fatalf("did not hear %q", want)
		}
	}
}

// replica is one process of several over the same Redis.
type replica struct {
	*Factory
	w *Watcher
}

// never is a VerifyEvery that leaves everything to news and timers.
const never = time.Hour

func watchFrom(t testing.TB, rdb redis.UniversalClient, cfg Config, watch WatchConfig) replica {
	t.Helper()
	f, err := New(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if watch.Readable, err = ParsePatterns([]string{"chat.*"}); err != nil {
		t.Fatal(err)
	}
	w, err := NewWatcher(f, watch)
	if err != nil {
		t.Fatal(err)
	}
	w.sub.probeEvery = 200 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	until(t, "the watcher is healthy", func() bool { return w.Healthy() == nil })
	return replica{f, w}
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// open stores a new session.
func (r replica) open(t testing.TB, name string) *Session {
	t.Helper()
	s := r.New()
	if err := s.Set("chat.name", name); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (r replica) bind(t testing.TB, id string) (*ear, *Binding) {
	t.Helper()
	e := newEar()
	b, _, err := r.w.Bind(t.Context(), id, e)
	if err != nil {
		t.Fatal(err)
	}
	return e, b
}

func (r replica) set(t testing.TB, id, name string) {
	t.Helper()
	_, err := r.Update(t.Context(), id, func(s *Session) error { return s.Set("chat.name", name) })
	if err != nil {
		t.Fatal(err)
	}
}

// bound counts the watcher's entries.
func (r replica) bound() int {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return len(r.w.entries)
}

// throughLink is a client whose link to the server can be cut.
func throughLink(t *testing.T, s *redistest.Server) (*redistest.Link, *redis.Client) {
	t.Helper()
	link := redistest.NewLink(t, s.Addr())
	rdb := redis.NewClient(&redis.Options{
		Addr: link.Addr(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: time.Second, ReadTimeout: time.Second, WriteTimeout: time.Second,
	})
	t.Cleanup(func() { _ = rdb.Close() })
	return link, rdb
}

func TestWatcherLogoutReachesOtherReplicas(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		b := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		session := a.open(t, "Ann")
		first, _ := b.bind(t, session.ID())
		second, binding := b.bind(t, session.ID())
		other, _ := b.bind(t, a.open(t, "Bob").ID())
		if n := b.bound(); n != 2 {
			t.Errorf("%d entries for two sessions", n)
		}
		if err := a.End(t.Context(), session.ID(), ReasonRevoked); err != nil {
			t.Fatal(err)
		}
		first.expect(t, "ended revoked")
		second.expect(t, "ended revoked")
		until(t, "the entry is gone", func() bool { return b.bound() == 1 })
		if len(other.heard) != 0 {
			t.Errorf("another session heard %s", <-other.heard)
		}
		var ended *EndedError
		_, err := binding.Update(t.Context(), func(*Session) error { return nil })
		if !errors.As(err, &ended) || ended.Reason != ReasonRevoked {
			t.Errorf("update after the end: %v", err)
		}
	})
}

func TestWatcherTellsChanges(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		b := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		session := a.open(t, "Ann")
		ear, binding := b.bind(t, session.ID())

		a.set(t, session.ID(), "Bea")
		ear.expect(t, `changed "Bea"`)

		// What sockets may not read does not wake them.
		_, err := a.Update(t.Context(), session.ID(), func(s *Session) error { return s.Set("visits", 1) })
		if err != nil {
			t.Fatal(err)
		}
		snapshot, err := binding.Update(t.Context(), func(s *Session) error { return s.Set("chat.name", "Cia") })
		if err != nil {
			t.Fatal(err)
		}
		if raw, _ := snapshot.JSON("chat.name"); string(raw) != `"Cia"` {
			t.Errorf("update returned %s", raw)
		}
		if raw, _ := snapshot.JSON("visits"); string(raw) != `1` {
			t.Errorf("update returned visits %s", raw)
		}
		ear.expect(t, `changed "Cia"`) // its own, too
	})
}

// A socket follows its session to a new ID, and a logout under that ID still
// reaches it.
func TestWatcherFollowsRotation(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		b := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		session := a.open(t, "Ann")
		ear, binding := b.bind(t, session.ID())
		for range 2 {
			if err := session.Rotate(t.Context(), &Login{UserID: "7", UserName: "Ann"}); err != nil {
				t.Fatal(err)
			}
			ear.eventually(t, "rotated")
			until(t, "the binding knows the new ID", func() bool { return binding.Snapshot().id == session.ID() })
		}
		if got := binding.Snapshot().UserID(); got != "7" {
			t.Errorf("user %q after login", got)
		}
		_, err := binding.Update(t.Context(), func(s *Session) error { return s.Set("chat.name", "Bea") })
		if err != nil {
			t.Fatal(err)
		}
		ear.eventually(t, `changed "Bea"`)
		if err := a.End(t.Context(), session.ID(), ReasonLogout); err != nil {
			t.Fatal(err)
		}
		ear.eventually(t, "ended logout")
	})
}

// The same without any news: what the verification finds, and what an update
// finds that comes before it.
func TestWatcherFollowsRotationWithoutNews(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		b := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		b.w.sub.onNews = func(news) {}
		for _, find := range []func(*Binding){
			func(*Binding) { b.w.Reverify() },
			func(binding *Binding) {
				_, err := binding.Update(t.Context(), func(s *Session) error { return s.Set("chat.name", "Bea") })
				check(t, err)
			},
		} {
			session := a.open(t, "Ann")
			ear, binding := b.bind(t, session.ID())
			if err := session.Rotate(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			find(binding)
			ear.expect(t, "rotated")
			if binding.Snapshot().id != session.ID() {
				t.Error("the binding does not know the new ID")
			}
		}
	})
}

// Stock applications write and delete without a word: the verification sees
// it.
func TestWatcherSeesStockApplications(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		rdb := s.Client(t)
		a := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: 20 * time.Millisecond})
		session := a.open(t, "Ann")
		ear, binding := a.bind(t, session.ID())

		blind := `{"chat.name":"Blind"}`
		if err := rdb.Set(t.Context(), "session:"+session.ID(), blind, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		ear.expect(t, `changed "Blind"`)
		if got := binding.Snapshot().Handle(); got != session.Handle() {
			t.Errorf("the handle became %q", got)
		}
		if err := rdb.Del(t.Context(), "session:"+session.ID()).Err(); err != nil {
			t.Fatal(err)
		}
		ear.expect(t, "ended gone")
	})
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

// However a bind and the end of its session fall together, no live binding
// of an ended session is left, with the news alone.
func TestWatcherBindRacingEnd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		b := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: never})
		for range 50 {
			session := a.open(t, "Ann")
			var ending sync.WaitGroup
			ending.Go(func() { check(t, a.End(context.Background(), session.ID(), ReasonLogout)) })
			ear := newEar()
			_, _, err := b.w.Bind(t.Context(), session.ID(), ear)
			ending.Wait()
			switch {
			case err == nil:
				ear.expect(t, "ended logout")
			case !errors.Is(err, ErrEnded):
				t.Fatal(err)
			}
		}
		if n := b.bound(); n != 0 {
			t.Errorf("%d entries left", n)
		}
	})
}

// Many writers, bindings and closes at once: states come one at a time, the
// last one is the newest, and what was closed hears nothing more.
func TestWatcherManyAtOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := watchFrom(t, s.Client(t), Config{}, WatchConfig{VerifyEvery: 10 * time.Millisecond})
		session := a.open(t, "Ann")
		stays, binding := a.bind(t, session.ID())
		var work sync.WaitGroup
		for i := range 4 {
			work.Go(func() {
				for j := range 10 {
					_, err := binding.Update(context.Background(), func(s *Session) error {
						return s.Set("chat.name", fmt.Sprint(i, j))
					})
					check(t, err)
				}
			})
			work.Go(func() {
				for range 10 {
					ear := newEar()
					b, _, err := a.w.Bind(context.Background(), session.ID(), ear)
					if err != nil {
						t.Error(err)
						return
					}
					b.Touch()
					b.Close()
					b.Close()
				}
			})
		}
		work.Wait()
		a.set(t, session.ID(), "last")
		stays.eventually(t, `changed "last"`)
		if err := a.End(t.Context(), session.ID(), ReasonLogout); err != nil {
			t.Fatal(err)
		}
		stays.eventually(t, "ended logout")
		binding.Close()
		for len(stays.heard) > 0 {
			if got := <-stays.heard; strings.HasPrefix(got, "AFTER") {
				t.Error(got)
			}
		}
	})
}

func TestNewWatcherRefuses(t *testing.T) {
	f, err := New(redistest.Mini(t).Client(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewWatcher(nil, WatchConfig{}); err == nil {
		t.Error("no factory: no error")
	}
	if _, err := NewWatcher(f, WatchConfig{VerifyEvery: -1}); err == nil {
		t.Error("negative VerifyEvery: no error")
	}
}
