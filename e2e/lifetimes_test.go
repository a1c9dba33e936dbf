package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// TestRememberLimitAndAudit logs in more often than is allowed, once to be remembered, and reads in the log who did what.
func TestRememberLimitAndAudit(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	limited := settings{redis: redis.URL(), more: "session: {max_per_user: 2, absolute_timeout: 8h}\n"}
	a, b := startReplica(t, limited), startReplica(t, limited)

	first := newPerson(t)
	first.register(a.url, "ada")
	socket := first.open(b.url, "limits")
	id, handle := first.session(a.url).User.ID, first.session(a.url).Handle

	second, third := newPerson(t), newPerson(t)
	second.login(b.url, "ada")
	remembered := third.post(a.url+"/login", url.Values{"username": {"ada"}, "password": {password}, "remember": {"1"}})
	c, err := http.ParseSetCookie(remembered.header.Get("Set-Cookie"))
	if err != nil || c.MaxAge > 8*3600 || c.MaxAge < 8*3600-60 || time.Until(c.Expires) < 7*time.Hour {
		t.Errorf("the cookie to be remembered is %v (%v)", c, err)
	}
	socket.wantClose(4401, "revoked")
	if first.session(b.url).User != nil || second.session(a.url).User == nil || third.session(b.url).User == nil {
		t.Error("not the oldest session was ended")
	}

	stranger := newPerson(t)
	stranger.post(a.url+"/login", url.Values{"username": {"ada"}, "password": {"not hers"}})
	req := stranger.request(http.MethodGet, a.url+"/api/session", nil)
	req.Header.Set("Cookie", "tandem="+strings.Repeat("A", 103))
	stranger.do(req)
	third.post(a.url+"/logout", nil)
	for _, words := range [][]string{
		{`"login"`, `"session":"` + handle, `"user":"` + id, `"client":"127.0.0.1"`},
		{`"session ended"`, `"session":"` + handle, `"user":"` + id, `"reason":"revoked"`},
		{`"login failed"`, `"user":"` + id, `"reason":"bad_credentials"`, `"client":"127.0.0.1"`},
		{`"unknown session ID presented"`, `"client":"127.0.0.1"`},
		{`"session ended"`, `"reason":"logout"`},
	} {
		if !hasLine(a.out.String(), words...) {
			t.Errorf("no line of the log has %q", words)
		}
	}
}

// A session that is used lives on, by frames too, but not by pings; one that is not used ends, after a warning, and so
// does the one that is, when its absolute time is over.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	lives := settings{redis: redis.URL(), more: "session: {serializer: json, idle_timeout: 3s, absolute_timeout: 8s, verify_every: 1s}\n"}
	a, b := startReplica(t, lives), startReplica(t, lives)
	app := startStockApp(t, redis.URL(), "json")
	idler := visitor(t, app, "idler")
	idle := idler.authenticated(a.url, "life")
	used := visitor(t, app, "user").authenticated(b.url, "life")

	ended := make(chan struct{})
	go func() { // both say something more often than they time out; only one of them does something
		defer close(ended)
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			_ = idle.conn.WriteJSON(map[string]any{"type": "ping"}) // it is closed sooner or later
			if used.conn.WriteJSON(map[string]any{"type": "session_get"}) != nil {
				return
			}
		}
	}()
	idle.want("session_expiring")
	idle.wantClose(4401, "expired")
	select {
	case <-used.closed:
		t.Error("a session in use ended together with one that was idle")
	default:
	}
	used.wantClose(4401, "expired")
	<-ended
	if idler.session(b.url).User != nil {
		t.Error("the idle session is still there")
	}
	if !hasLine(a.out.String(), `"socket closed"`, `"reason":"expired"`) || !hasLine(b.out.String(), `"socket closed"`, `"reason":"expired"`) {
		t.Error("the logs do not say why")
	}
}

// hasLine reports whether one line holds all the words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}
