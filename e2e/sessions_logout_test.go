package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Logouts, each racing ten writes by pages and sockets of two replicas: no session comes back, in Redis or in an
// answer.
func TestLogoutIsFinal(t *testing.T) {
	s := startSite(t, "")
	rng := seeded(t)
	const workers = 4
	var mu sync.Mutex
	var keys []string
	t.Run("races", func(t *testing.T) {
		for n := range workers {
			seed := rng.Uint64()
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(seed, 0))
				for i := range sizes.logouts / workers {
					key := raceLogout(t, s, rng, fmt.Sprintf("u%d-%d", n, i))
					mu.Lock()
					keys = append(keys, key)
					mu.Unlock()
				}
			})
		}
	})

	rdb := s.redis.Client(t)
	if n, err := rdb.Exists(t.Context(), keys...).Result(); err != nil || n != 0 {
		t.Errorf("%d of %d sessions are back in Redis: %v", n, len(keys), err)
	}
	others := 0
	for it := rdb.Scan(t.Context(), 0, "session:*", 1000).Iterator(); it.Next(t.Context()); {
		others++
	}
	if others != 0 {
		t.Errorf("everybody was logged out and %d sessions are in Redis", others)
	}
	t.Logf("%d logouts, each racing 10 writes: no session came back", len(keys))
}

// logoutRace is one session whose user logs out while it is written.
type logoutRace struct {
	*site
	p      *person // with the session's cookie, whatever happens
	handle string

	begun     chan struct{} // one for each write that was begun
	loggedOut atomic.Bool   // the logout has been answered
}

// raceLogout returns the key that the session had.
func raceLogout(t *testing.T, s *site, rng *rand.Rand, id string) string {
	t.Helper()
	user := visitor(t, s.app, id)
	r := &logoutRace{site: s, p: user.frozen(s.a.url), handle: user.session(s.a.url).Handle, begun: make(chan struct{}, 10)}
	onA, onB := user.authenticated(s.a.url, "logout"), user.authenticated(s.b.url, "logout")
	work := []func() error{
		func() error { return r.write(onA, "sa", 2) },
		func() error { return r.write(onB, "sb", 2) },
	}
	for i := range 3 {
		work = append(work,
			func() error { return r.patch(s.a.url, fmt.Sprint("chat.pa", i)) },
			func() error { return r.patch(s.b.url, fmt.Sprint("chat.pb", i)) })
	}
	rng.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	first, at := rng.IntN(9), []string{s.a.url, s.b.url}[rng.IntN(2)]
	work = append(work, func() error { return r.logout(at, first) })
	together(t, work...)

	onA.wantClose(4401, "logout")
	onB.wantClose(4401, "logout")
	for _, base := range []string{s.a.url, s.b.url} {
		if err := r.gone(base); err != nil {
			t.Error(err)
		}
	}
	return "session:" + user.sessionID(s.a.url)
}

// logout waits for some writes to have begun. A socket's second write may never begin: it is not waited for.
func (r *logoutRace) logout(base string, after int) error {
	for range after {
		<-r.begun
	}
	a, err := r.p.tryJSON(http.MethodPost, base+"/logout", nil, nil)
	r.loggedOut.Store(true)
	if err == nil && a.status != http.StatusSeeOther {
		err = fmt.Errorf("logout: %d %s", a.status, a.body)
	}
	return err
}

func (r *logoutRace) patch(base, name string) error {
	late := r.loggedOut.Load()
	r.begun <- struct{}{}
	var s session
	a, err := r.p.tryJSON(http.MethodPatch, base+"/api/session", map[string]any{"set": map[string]any{name: 1}}, &s)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusUnauthorized && strings.Contains(a.body, `"session_ended"`):
		return nil
	case a.status != http.StatusOK || s.Handle != r.handle:
		return fmt.Errorf("PATCH: %d %s", a.status, a.body)
	case late:
		return errors.New("a PATCH that began after the logout wrote to the session")
	}
	return nil
}

// write sets attributes over the socket until it is closed.
func (r *logoutRace) write(s *socket, name string, times int) error {
	for i := range times {
		if i == 0 {
			r.begun <- struct{}{}
		}
		f, err := s.try(fmt.Sprint(i), map[string]any{"type": "session_set", "set": map[string]any{"chat." + name: i}}, nil)
		if errors.Is(err, errClosed) {
			return nil // how is looked at later
		}
		if err != nil || f.kind() != "session" {
			return fmt.Errorf("session_set: %s %w", f.raw, err)
		}
	}
	return nil
}

// gone checks that the old cookie is worth nothing.
func (r *logoutRace) gone(base string) error {
	s, a, err := r.p.trySession(base)
	switch {
	case err != nil:
		return err
	case a.status != http.StatusOK:
		return fmt.Errorf("after the logout: %d %s", a.status, a.body)
	case s.User != nil || s.Handle != "" || len(s.Values) != 0:
		return fmt.Errorf("after the logout the old cookie shows %s", a.body)
	}
	return nil
}

// An application that was slow writes its session after the logout, blindly. It has it back for itself; Tandem does
// not take it for a login.
func TestLateBlindWrite(t *testing.T) {
	t.Parallel()
	s := startSite(t, "")
	ada := visitor(t, s.app, "ada")
	fixed := ada.frozen(s.a.url)
	handle := ada.session(s.a.url).Handle
	sock := ada.authenticated(s.b.url, "late")
	if a := ada.post(s.a.url+"/logout", nil); a.status != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.status)
	}
	sock.wantClose(4401, "logout")
	if m := decoded(t, fixed.get(s.app+"/app/visit")); m["visits"] == nil {
		t.Fatalf("the application did not write: %v", m)
	}
	for _, base := range []string{s.a.url, s.b.url, s.a.url} {
		now := fixed.session(base)
		if now.User != nil || now.Handle == handle || len(now.Values) != 0 {
			t.Errorf("the session is back: %+v", now)
		}
		late, _ := fixed.dial(base, "/ws/documents/late", nil)
		late.want("hello")
		late.send(map[string]any{"type": "authenticate"})
		if f := late.want("auth_result"); f.fields["ok"] != false {
			t.Errorf("a socket was authenticated: %s", f.raw)
		}
		late.wantClose(4401, "")
	}
}
