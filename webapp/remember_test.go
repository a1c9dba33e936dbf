package webapp_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// age is how long the session cookie that a is to live; zero: until the
// browser closes.
func age(t *testing.T, a answer) time.Duration {
	t.Helper()
	line := a.header.Get("Set-Cookie")
	c, err := http.ParseSetCookie(line)
	if err != nil {
		t.Fatalf("Set-Cookie %q: %v", line, err)
	}
	return time.Duration(c.MaxAge) * time.Second
}

// Who asks to stay logged in gets a cookie that lives as long as the session
// may, and keeps it over renewals.
func TestRemember(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		const absolute = 12 * time.Hour // the default
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		b := s.browser(t)
		form := url.Values{"username": {"ada"}, "password": {password}}
		if a := b.post("/login", form); age(t, a) != 0 {
			t.Errorf("an ordinary login: %s", age(t, a))
		}
		form.Set("remember", "1")
		if a := b.post("/login", form); age(t, a) > absolute || age(t, a) < absolute-time.Minute {
			t.Errorf("a login to be remembered: %s", age(t, a))
		}
		if a := b.do("POST", "/api/session/renew", ""); age(t, a) > absolute || age(t, a) < absolute-time.Minute {
			t.Errorf("renew: %s", age(t, a))
		}
		form.Set("password", "wrong")
		if a := b.post("/login", form, "Accept", "text/html"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "checked") {
			t.Errorf("the form forgets what was ticked: %d", a.status)
		}
		if strings.Contains(b.get("/login").body, "checked") {
			t.Error("the box is ticked from the start")
		}
	})
}
