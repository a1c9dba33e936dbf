package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// The pair's hash is deleted while both sides use it: both are told, pair anew under another unique ID, and within one
// the index never goes back.
func TestPairHashDeleted(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "")
	ada := s.visitor("ada")
	left, right := ada.jsonSide(s.a, "/left/p"), ada.jsonSide(s.b, "/right/p")
	lives := map[any]bool{}
	paired := func() {
		t.Helper()
		l, r := left.want("paired").fields["unique_id"], right.want("paired").fields["unique_id"]
		if l != r || lives[l] {
			t.Fatalf("paired as %v and %v, after %v", l, r, lives)
		}
		lives[l] = true
	}
	lose := func() {
		t.Helper()
		if err := s.client.Del(t.Context(), pairKey("p")).Err(); err != nil {
			t.Fatal(err)
		}
	}
	say := func(side *socket, index int) {
		t.Helper()
		side.send(map[string]any{"type": "message", "data": fmt.Sprint("message ", index)})
		if f := side.want("message"); f.number("index") != index || f.fields["data"] != fmt.Sprint("message ", index) {
			t.Fatalf("%s, want index %d", f.raw, index)
		}
	}
	paired()
	for i := range 10 {
		say(left, 2*i)
		say(right, 2*i+1)
	}
	lose()
	say(left, 0) // a message finds it at once, and is answered in the next life
	for _, side := range []*socket{left, right} {
		side.want("counterpart_left")
	}
	paired()
	say(right, 1)
	lose() // and without one it is found, too
	for _, side := range []*socket{left, right} {
		side.want("counterpart_left")
	}
	paired()
	for i := range 10 {
		say(right, 2*i)
		say(left, 2*i+1)
	}
}

// When both have gone for longer than the grace the hash is gone; nothing of a pair is kept without an end.
func TestPairKeysEnd(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "pairs: {mode: relay}\n")
	ada := s.visitor("ada")
	left, right := ada.jsonSide(s.a, "/left/p"), ada.jsonSide(s.b, "/right/p")
	unique := left.want("paired").fields["unique_id"]
	left.send(map[string]any{"type": "message", "data": "x"})
	right.want("message")
	ttl := func() time.Duration { return s.client.TTL(t.Context(), pairKey("p")).Val() }
	if d := ttl(); d <= 0 || d > 2*time.Minute {
		t.Errorf("the hash lives for %v", d)
	}
	left.conn.Close()
	right.want("counterpart_left")
	right.conn.Close()
	eventually(t, 15*time.Second, func() error {
		if d := ttl(); d > 10*time.Second {
			return fmt.Errorf("with nobody there it lives for %v", d)
		}
		return nil
	})
	again := ada.jsonSide(s.b, "/left/p") // within the grace it is the same pair
	if got := s.field("p", "unique"); got != unique {
		t.Errorf("unique ID %s, before %v", got, unique)
	}
	again.conn.Close()
	eventually(t, 30*time.Second, func() error {
		if n := s.client.Exists(t.Context(), pairKey("p")).Val(); n != 0 {
			return fmt.Errorf("it is there, for %v", ttl())
		}
		return nil
	})
	for _, key := range s.client.Keys(t.Context(), "*").Val() {
		if !strings.HasPrefix(key, "tandem:account") && s.client.TTL(t.Context(), key).Val() <= 0 {
			t.Errorf("%s has no end", key)
		}
	}
}

// A side that waits and one that is paired both end with their session, and with their replica: the latter is told in
// JSON when to come back, and finds the same pair on the other one.
func TestPairEnds(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "drain: {spread: 1s}\n")
	ada, bob := s.visitor("ada"), s.visitor("bob")
	waiting, _ := ada.dial(s.a.url, "/right/alone", nil)
	left, right := ada.jsonSide(s.a, "/left/p"), bob.jsonSide(s.b, "/right/p")
	right.want("paired")
	ada.post(s.b.url+"/logout", nil)
	left.wantClose(4401, "logout")
	waiting.wantClose(4401, "logout")
	right.want("counterpart_left")
	ada.refused(s.a, "/left/p", http.StatusUnauthorized)

	ada.login(s.a.url, "ada")
	waiting, _ = ada.dial(s.a.url, "/right/alone", nil)
	left = ada.jsonSide(s.a, "/left/p")
	unique := left.want("paired").fields["unique_id"]
	right.want("paired")
	s.a.signal(syscall.SIGTERM)
	if f := left.want("reconnect"); f.number("after_ms") < 0 || f.number("after_ms") > 1000 {
		t.Errorf("%s", f.raw)
	}
	waiting.wantClose(websocket.CloseServiceRestart, "restart")
	left.wantClose(websocket.CloseServiceRestart, "restart")
	right.want("counterpart_left")
	if f := ada.jsonSide(s.b, "/left/p").want("paired"); f.fields["unique_id"] != unique {
		t.Errorf("%s, before %v", f.raw, unique)
	}
}

// What an upgrade would be refused for is told to who asks without one, the same as the upgrade's own refusal.
func TestPairRefusals(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "limits: {connections_per_session: 1}\n")
	ada, bob, nobody := s.visitor("ada"), s.visitor("bob"), newPerson(t)
	ada.jsonSide(s.a, "/left/p")
	for _, c := range []struct {
		who    *person
		path   string
		origin string
		status int
		says   string
	}{
		{nobody, "/left/p", "", http.StatusUnauthorized, "login_required"},
		{bob, "/left/p", "", http.StatusConflict, "side_taken"},
		{ada, "/right/p", "", http.StatusTooManyRequests, "too_many_connections"},
		{bob, "/right/p", "https://evil.example", http.StatusForbidden, "origin_not_allowed"},
		{bob, "/left/p/q", "", http.StatusNotFound, "right/{id}"},
		{bob, "/left/", "", http.StatusNotFound, "left/{id}"},
		{bob, "/left/a%20b", "", http.StatusNotFound, "left/{id}"},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		side, resp := c.who.dial(s.a.url, c.path, header)
		if side != nil || resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s, want %d", c.path, resp.Status, c.status)
		}
		req := c.who.request(http.MethodOptions, s.a.url+c.path, nil)
		req.Header = header
		asked := c.who.do(req)
		if asked.status != c.status || !strings.Contains(asked.body, c.says) {
			t.Errorf("OPTIONS %s: %d %s", c.path, asked.status, asked.body)
		}
	}
	for method, want := range map[string]int{http.MethodGet: http.StatusUpgradeRequired, http.MethodOptions: http.StatusNoContent, http.MethodPost: http.StatusMethodNotAllowed} {
		if got := bob.do(bob.request(method, s.b.url+"/right/p", nil)); got.status != want {
			t.Errorf("%s: %d %s", method, got.status, got.body)
		}
	}
	s.redis.Stop()
	eventually(t, 15*time.Second, func() error {
		got := bob.do(bob.request(http.MethodOptions, s.b.url+"/right/p", nil))
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			return fmt.Errorf("without Redis: %d %v", got.status, got.header)
		}
		return nil
	})
	bob.refused(s.b, "/right/p", http.StatusServiceUnavailable)
	s.redis.Restart()
}

// Pairs that are open to all: two that nobody knows are paired, and a session that ended is nobody's, not an obstacle.
func TestPairOpenToAll(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "pairs: {login: optional}\n")
	nobody, ada := newPerson(t), s.visitor("ada")
	gone := &person{t: t, http: ada.http, fixed: ada.cookies(s.a.url)}
	ada.post(s.a.url+"/logout", nil)
	left, right := nobody.jsonSide(s.a, "/left/p"), gone.jsonSide(s.b, "/right/p")
	if l, r := left.want("paired"), right.want("paired"); l.fields["unique_id"] != r.fields["unique_id"] {
		t.Errorf("%s, %s", l.raw, r.raw)
	}
	nobody.refused(s.b, "/left/p", http.StatusConflict) // two that nobody knows are not the same
}
