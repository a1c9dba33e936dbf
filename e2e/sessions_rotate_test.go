package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// The session's ID is replaced again and again while its sockets on two replicas write: none is disconnected, nothing
// that was acknowledged is lost, each is told to renew the cookie, the old IDs are worth nothing, and a logout under the
// newest ID closes all.
func TestRotationUnderWrites(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	more := "limits: {frames_per_second: 0}\n"
	a := startReplica(t, settings{redis: redis.URL(), more: more})
	b := startReplica(t, settings{redis: redis.URL(), more: more})
	ada := newPerson(t)
	ada.register(a.url, "ada")
	handle := ada.session(a.url).Handle

	writers := make([]*rotatedWriter, sizes.rotatingSockets)
	written := make(chan struct{}, sizes.rotatingSockets*sizes.rotatingWrites)
	var work []func() error
	for i := range writers {
		w := &rotatedWriter{sock: ada.authenticated([]*replica{a, b}[i%2].url, "rotation"), name: fmt.Sprint("chat.s", i)}
		writers[i] = w
		work = append(work, func() error { return w.run(sizes.rotatingWrites, written) })
	}
	var old []*person
	work = append(work, func() error { // a login each time that a part of the writes is done
		for i := range sizes.rotations {
			for range cap(written) / (sizes.rotations + 1) {
				select {
				case <-written:
				case <-time.After(30 * time.Second):
					return fmt.Errorf("the sockets do not get on after %d rotations", i)
				}
			}
			before := ada.frozen(a.url)
			if err := tryLogin(ada, []*replica{a, b}[i%2].url, "ada"); err != nil {
				return err
			}
			old = append(old, before)
		}
		return nil
	})
	began := time.Now()
	together(t, work...)
	t.Logf("%d sockets, %d writes each, %d rotations: %v", len(writers), sizes.rotatingWrites, sizes.rotations, time.Since(began))

	now := ada.session(b.url)
	if now.Handle != handle || now.User == nil {
		t.Errorf("the session is another: %+v", now)
	}
	for _, w := range writers {
		if now.Values[w.name] != float64(sizes.rotatingWrites) {
			t.Errorf("%s is %v, acknowledged was %d", w.name, now.Values[w.name], sizes.rotatingWrites)
		}
		if w.renews == 0 {
			w.sock.want("renew")
		}
	}
	ids := map[string]bool{ada.sessionID(a.url): true}
	for _, p := range old {
		ids[p.sessionID(a.url)] = true
		for _, r := range []*replica{a, b} {
			if s := p.session(r.url); s.User != nil || s.Handle != "" {
				t.Errorf("an old ID is still worth something: %+v", s)
			}
		}
	}
	if len(ids) != sizes.rotations+1 {
		t.Errorf("%d IDs in %d rotations", len(ids), sizes.rotations)
	}
	if r := ada.post(b.url+"/logout", nil); r.status != http.StatusSeeOther {
		t.Fatalf("logout: %d", r.status)
	}
	for _, w := range writers {
		w.sock.wantClose(4401, "logout")
	}
}

// tryLogin is login for goroutines other than the test's.
func tryLogin(p *person, base, name string) error {
	form := url.Values{"username": {name}, "password": {password}}
	req, err := http.NewRequest(http.MethodPost, base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a, err := p.try(req)
	if err == nil && a.status != http.StatusSeeOther {
		err = fmt.Errorf("login %s: %d %s", name, a.status, tail(a.body, 500))
	}
	return err
}

// rotatedWriter counts up one attribute over its socket.
type rotatedWriter struct {
	sock   *socket
	name   string
	renews int
}

func (w *rotatedWriter) run(writes int, written chan<- struct{}) error {
	for i := 1; i <= writes; i++ {
		f, err := w.sock.try(fmt.Sprint(i), map[string]any{"type": "session_set", "set": map[string]any{w.name: i}}, func(f frame) {
			if f.kind() == "renew" {
				w.renews++
			}
		})
		if err != nil || f.kind() != "session" {
			return fmt.Errorf("%s, write %d: %s %w", w.name, i, f.raw, err)
		}
		written <- struct{}{}
	}
	return nil
}
