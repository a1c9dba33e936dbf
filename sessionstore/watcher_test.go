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
			until(t, "the binding knows the new ID", func() bool { return string(binding.Snapshot().ref) == session.ID() })
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
			if string(binding.Snapshot().ref) != session.ID() {
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
