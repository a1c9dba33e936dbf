package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// mishap is something that happens to Redis while sessions are in use.
type mishap struct {
	redis string // URL
	// durable: what was acknowledged is there afterwards. A failover may lose the last moment, as Redis replicates.
	durable bool
	// happen causes it, and returns when nothing more is going to happen. users have their sessions in Redis.
	happen func(t *testing.T, users []*asker)
}

// asker uses a session without a break, on two replicas in turn. Each answer must be right, or a 503 that says when to
// come again.
type asker struct {
	name   string
	handle string
	key    string  // of the session in Redis
	p      *person // with the session's cookie
	sock   *socket // open all the time
	bases  []string

	durable     bool
	acked, sent int // numbers written to chat.n; owned by run
	right, away atomic.Int64
}

// use asks and writes until stop is closed.
func (u *asker) use(stop <-chan struct{}) error {
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		case <-pace.C:
		}
		base := u.bases[i%len(u.bases)]
		write := i%3 == 0
		var a answer
		var err error
		if write {
			u.sent++
			a, err = u.p.tryJSON(http.MethodPatch, base+"/api/session", map[string]any{"set": map[string]any{"chat.n": u.sent}}, nil)
		} else {
			a, err = u.p.tryJSON(http.MethodGet, base+"/api/session", nil, nil)
		}
		if err == nil {
			err = u.check(a, write)
		}
		if err != nil {
			return fmt.Errorf("%s, request %d: %w", u.name, i, err)
		}
	}
}

func (u *asker) check(a answer, write bool) error {
	if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "" {
		u.away.Add(1)
		return nil
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%d %s", a.status, a.body)
	}
	var s session
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		return err
	}
	n, _ := s.Values["chat.n"].(float64)
	switch least := u.acked; {
	case s.User == nil || s.User.Name != u.name || s.Handle != u.handle:
		return fmt.Errorf("another session, or none: %s", a.body)
	case write && int(n) != u.sent:
		return fmt.Errorf("wrote %d, the answer shows %v", u.sent, n)
	case int(n) > u.sent, u.durable && int(n) < least:
		return fmt.Errorf("chat.n is %v, acknowledged was %d, sent %d", n, least, u.sent)
	}
	if write {
		u.acked = u.sent
	}
	u.right.Add(1)
	return nil
}

// survive has users work on two replicas while the mishap happens: sessions stay intact, answers are right or 503,
// sockets live on, and all is well afterwards.
func (m mishap) survive(t *testing.T) {
	t.Helper()
	s := settings{redis: m.redis, more: "session: {verify_every: 1s}\nwebapp: {registration: open}\n"}
	a, b := startReplica(t, s), startReplica(t, s)
	var users []*asker
	for i := range 4 {
		p := newPerson(t)
		name := fmt.Sprint("user", i)
		p.register(a.url, name)
		users = append(users, &asker{
			name: name, handle: p.session(a.url).Handle, key: "session:" + p.sessionID(a.url), p: p.frozen(a.url),
			sock: p.open([]*replica{a, b}[i%2].url, "survivors"), bases: []string{a.url, b.url}, durable: m.durable,
		})
	}

	stop := make(chan struct{})
	var using sync.WaitGroup
	failed := make(chan error, len(users))
	for _, u := range users {
		using.Go(func() {
			if err := u.use(stop); err != nil {
				failed <- err
			}
		})
	}
	defer func() {
		close(stop)
		using.Wait()
	}()
	getOn := func() { // everybody gets right answers, from now on
		t.Helper()
		for _, u := range users {
			from := u.right.Load()
			eventually(t, 40*time.Second, func() error {
				select {
				case err := <-failed:
					t.Fatal(err)
				default:
				}
				if got := u.right.Load() - from; got < 20 {
					return fmt.Errorf("%s got %d right answers and %d times 503", u.name, got, u.away.Load())
				}
				return nil
			})
		}
	}
	getOn()
	began := time.Now()
	m.happen(t, users)
	getOn()
	for _, r := range []*replica{a, b} {
		r.waitStatus("/readyz", http.StatusOK, 40*time.Second)
	}
	var right, away int64
	for _, u := range users {
		right, away = right+u.right.Load(), away+u.away.Load()
		u.liveOn(t)
	}
	t.Logf("all well after %v; %d right answers, %d times 503", time.Since(began).Round(time.Millisecond), right, away)

	for i, u := range users { // and the end still reaches everybody
		if got := u.p.post(u.bases[i%2]+"/logout", nil); got.status != http.StatusSeeOther {
			t.Errorf("logout: %d %s", got.status, got.body)
		}
		u.sock.wantClose(4401, "logout")
	}
}

// liveOn checks that the socket has lived through it all and works.
func (u *asker) liveOn(t *testing.T) {
	t.Helper()
	for _, request := range []map[string]any{
		{"type": "session_set", "set": map[string]any{"chat.socket": "lives"}},
		{"type": "operation", "payload": "lives"},
	} {
		eventually(t, 20*time.Second, func() error {
			f, err := u.sock.try("after "+u.name, request, nil)
			switch {
			case errors.Is(err, errClosed):
				c := <-u.sock.closed
				t.Fatalf("the socket of %s was closed: %d %q", u.name, c.Code, c.Text)
				return nil
			case err != nil:
				return err
			case f.kind() == "error" && f.fields["code"] == "UNAVAILABLE":
				return errors.New(f.raw)
			case f.kind() == "error":
				t.Fatalf("%s: %s", u.name, f.raw)
			}
			return nil
		})
	}
}

// Redis is killed and comes back with what it had written to disk.
func TestSessionsSurviveRestart(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	mishap{redis: redis.URL(), durable: true, happen: func(*testing.T, []*asker) {
		redis.Kill()
		redis.Restart()
	}}.survive(t)
}

// Redis is back and answers that it is still loading.
func TestSessionsSurviveLoading(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always",
		"--key-load-delay", "50", "--loading-process-events-interval-bytes", "1024")
	mishap{redis: redis.URL(), durable: true, happen: func(t *testing.T, users []*asker) {
		rdb := redis.Client(t)
		pipe := rdb.Pipeline()
		for i := range 20_000 {
			pipe.Set(t.Context(), fmt.Sprint("filler:", i), "x", 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		redis.RestartLoading()
		// Meanwhile everybody is told so: no page takes "loading" for "nobody is logged in".
		from := users[0].away.Load()
		eventually(t, 20*time.Second, func() error {
			if users[0].away.Load() == from {
				return errors.New("nobody was told")
			}
			return nil
		})
		if err := rdb.Ping(t.Context()).Err(); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
			t.Logf("it was no longer loading when they were told: %v", err)
		}
	}}.survive(t)
}
