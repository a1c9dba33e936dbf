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
