package accounts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheap is argon2id at the lowest cost there is.
var cheap = Params{Memory: 8, Time: 1, Threads: 1}

func newAccounts(t *testing.T, s *redistest.Server, cfg Config) *Accounts {
	t.Helper()
	cfg.Hash = cheap
	a, err := New(s.Client(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAccounts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := t.Context()
		a := newAccounts(t, s, Config{})
		if found, err := a.Any(ctx); found || err != nil {
			t.Fatalf("Any = %v, %v before the first account", found, err)
		}
		ada, err := a.Add(ctx, "Ada@example.org", "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Add(ctx, "aDA@example.ORG", "another one"); !errors.Is(err, ErrExists) {
			t.Errorf("same name in other case: %v", err)
		}
		if _, err := a.AddFirst(ctx, "bob", "password"); !errors.Is(err, ErrNotFirst) {
			t.Errorf("AddFirst as the second: %v", err)
		}
		if u, err := a.Verify(ctx, "ADA@example.org", "correct horse", "192.0.2.1"); err != nil || u != ada {
			t.Errorf("Verify = %+v, %v; want %+v", u, err, ada)
		}
		for _, c := range [][2]string{{"ada@example.org", "Correct horse"}, {"nobody", "correct horse"}, {"", ""}, {"a b", "x"},
			{"ada@example.org", strings.Repeat("x", 1<<20)}, {"ada@example.org", ""}} {
			if _, err := a.Verify(ctx, c[0], c[1], ""); !errors.Is(err, ErrBadCredentials) {
				t.Errorf("Verify(%.20q, %.20q): %v", c[0], c[1], err)
			}
		}
		if _, err := a.Add(ctx, "bob", "password"); err != nil {
			t.Fatal(err)
		}
		users, err := a.List(ctx)
		if err != nil || len(users) != 2 || users[0] != ada || users[1].Name != "bob" {
			t.Errorf("List = %+v, %v", users, err)
		}
		if u, err := a.Remove(ctx, "ADA@EXAMPLE.ORG"); err != nil || u != ada {
			t.Errorf("Remove = %+v, %v", u, err)
		}
		if _, err := a.Remove(ctx, "ada@example.org"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Remove again: %v", err)
		}
		again, err := a.Add(ctx, "ada@example.org", "correct horse")
		if err != nil || again.ID == ada.ID {
			t.Errorf("Add after Remove = %+v, %v; want a new ID", again, err)
		}
	})
}

func TestRules(t *testing.T) {
	a := newAccounts(t, redistest.Mini(t), Config{})
	for _, name := range []string{"", strings.Repeat("x", 65), "a b", "ä", "a{b}", "a:b", "a\n", "a/b", "a\x00"} {
		if _, err := a.Add(t.Context(), name, "password"); !errors.Is(err, ErrBadName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, password := range []string{"", "1234567", strings.Repeat("x", 1025)} {
		if _, err := a.Add(t.Context(), "name", password); !errors.Is(err, ErrBadPassword) {
			t.Errorf("password of %d bytes: %v", len(password), err)
		}
	}
	for i, password := range []string{"12345678", strings.Repeat("x", 1024), "pass\x00word", "Pässwört"} {
		name := fmt.Sprintf("%s.%d_-@", strings.Repeat("n", 50), i)
		if _, err := a.Add(t.Context(), name, password); err != nil {
			t.Errorf("Add(%q): %v", name, err)
		}
		if _, err := a.Verify(t.Context(), name, password, ""); err != nil {
			t.Errorf("Verify(%q): %v", name, err)
		}
	}
}

// Two replicas, many browsers, one first user.
func TestAddFirstHasOneWinner(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		replicas := []*Accounts{newAccounts(t, s, Config{}), newAccounts(t, s, Config{})}
		var mu sync.Mutex
		won := 0
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := replicas[i%2].AddFirst(t.Context(), fmt.Sprintf("user%d", i), "password")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !errors.Is(err, ErrNotFirst) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if users, err := replicas[0].List(t.Context()); won != 1 || len(users) != 1 || err != nil {
			t.Errorf("%d won, accounts %+v, %v", won, users, err)
		}
	})
}

func TestThrottle(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := t.Context()
		a, b := newAccounts(t, s, Config{}), newAccounts(t, s, Config{})
		for _, name := range []string{"ada", "bob"} {
			if _, err := a.Add(ctx, name, "password"); err != nil {
				t.Fatal(err)
			}
		}
		fail := func(a *Accounts, name, address string) {
			t.Helper()
			if _, err := a.Verify(ctx, name, "wrong", address); !errors.Is(err, ErrBadCredentials) {
				t.Fatalf("Verify: %v", err)
			}
		}
		throttled := func(a *Accounts, name, address string) {
			t.Helper()
			_, err := a.Verify(ctx, name, "password", address)
			var e *ThrottledError
			if !errors.As(err, &e) || e.RetryAfter <= 0 || e.RetryAfter > time.Minute {
				t.Fatalf("right password for %s from %s: %v", name, address, err)
			}
		}
		for i := range 10 { // one account, over two replicas, from many addresses
			fail([]*Accounts{a, b}[i%2], "ada", fmt.Sprintf("192.0.2.%d", i))
		}
		throttled(a, "ADA", "198.51.100.1")
		throttled(b, "ada", "")
		if _, err := b.Verify(ctx, "bob", "password", "192.0.2.1"); err != nil {
			t.Errorf("another account: %v", err)
		}
		for i := range 10 { // one IPv6 network, many names
			fail(a, fmt.Sprintf("nobody%d", i), fmt.Sprintf("2001:db8::%d", i))
		}
		throttled(b, "bob", "2001:db8::ffff")
		if _, err := b.Verify(ctx, "bob", "password", "2001:db8:1::1"); err != nil {
			t.Errorf("another network: %v", err)
		}
	})
}

func TestThrottleEnds(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := t.Context()
		const window = 300 * time.Millisecond
		a := newAccounts(t, s, Config{Failures: 2, Window: window})
		if _, err := a.Add(ctx, "ada", "password"); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; {
			_, err := a.Verify(ctx, "ada", "wrong", "192.0.2.1")
			var e *ThrottledError
			if errors.As(err, &e) {
				if e.RetryAfter > window {
					t.Fatalf("RetryAfter %v", e.RetryAfter)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("never throttled")
			}
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := a.Verify(ctx, "ada", "password", "192.0.2.1"); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("throttled for ever")
			}
		}
	})
}

// Only the accounts themselves live for ever.
func TestKeysExpire(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := t.Context()
		a := newAccounts(t, s, Config{})
		if _, err := a.Add(ctx, "ada", "password"); err != nil {
			t.Fatal(err)
		}
		_, _ = a.Verify(ctx, "ada", "wrong", "192.0.2.1")
		_, _ = a.Verify(ctx, "ada", "wrong", "not an address}"+strings.Repeat("x", 1000))
		rdb := s.Client(t)
		keys, err := rdb.Keys(ctx, "*").Result() // a test's own Redis
		if err != nil || len(keys) != 5 {
			t.Fatalf("keys %q, %v", keys, err)
		}
		for _, key := range keys {
			ttl, err := rdb.TTL(ctx, key).Result()
			if err != nil || (ttl < 0) != strings.HasPrefix(key, "tandem:account:") {
				t.Errorf("%s has TTL %v, %v", key, ttl, err)
			}
			if len(key) > 100 {
				t.Errorf("%s is long", key)
			}
		}
	})
}

func TestUnavailable(t *testing.T) {
	s := redistest.Start(t)
	a := newAccounts(t, s, Config{})
	s.Stop()
	_, verify := a.Verify(t.Context(), "ada", "password", "192.0.2.1")
	_, add := a.Add(t.Context(), "ada", "password")
	_, anybody := a.Any(t.Context())
	_, list := a.List(t.Context())
	for i, err := range []error{verify, add, anybody, list} {
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBadCredentials) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestHashingIsBounded(t *testing.T) {
	h := newHasher(cheap, 1)
	ctx, cancel := context.WithCancel(t.Context())
	hold, held := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.do(ctx, func() error { close(held); <-hold; return nil }) })
	<-held
	answers := make(chan error, h.most)
	for range h.most {
		wg.Go(func() { answers <- h.do(ctx, func() error { return nil }) })
	}
	if err := <-answers; !errors.Is(err, ErrBusy) || errors.Is(err, context.Canceled) {
		t.Errorf("the one too many: %v", err)
	}
	cancel()
	if err := <-answers; !errors.Is(err, context.Canceled) {
		t.Errorf("a waiting one that was cancelled: %v", err)
	}
	close(hold)
	wg.Wait()
}
