package webapp_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestVerify(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newSite(t, server, "open")
		zoe := s.add(t, "zoe")
		b := s.browser(t)

		if a := b.do(http.MethodGet, "/auth/verify", ""); a.status != http.StatusUnauthorized || a.header.Get("X-Tandem-User") != "" {
			t.Errorf("nobody: %d %v", a.status, a.header)
		}
		if a := b.get("/auth/verify"); a.status != http.StatusUnauthorized {
			t.Errorf("a browser, where its proxy can only deny: %d", a.status)
		}
		for header, want := range map[[4]string]string{
			{"X-Forwarded-Uri", "/app?a=1&b"}:                               "/login?next=%2Fapp%3Fa%3D1%26b",
			{"X-Forwarded-Uri", "//elsewhere.test/", "X-A", ""}:             "/login",
			{"X-Forwarded-Uri", "https://elsewhere.test/"}:                  "/login",
			{"X-Forwarded-Uri", "", "X-A", ""}:                              "/login",
			{"X-Forwarded-Uri", "/form", "X-Forwarded-Method", "POST"}:      "",
			{"X-Forwarded-Uri", "/page", "X-Forwarded-Method", "GET"}:       "/login?next=%2Fpage",
			{"X-Forwarded-Uri", "/api", "Accept", "application/json, */*"}:  "",
			{"X-Forwarded-Uri", "/html", "Accept", "text/html, */*;q=0.01"}: "/login?next=%2Fhtml",
		} {
			pairs := []string{"Accept", "text/html", header[0], header[1]}
			if header[2] != "" {
				pairs = append(pairs, header[2], header[3])
			}
			a := b.do(http.MethodGet, "/auth/verify?redirect=1", "", pairs...)
			if wantStatus := map[bool]int{true: http.StatusFound, false: http.StatusUnauthorized}[want != ""]; a.status != wantStatus || a.header.Get("Location") != want {
				t.Errorf("%q: %d %q, want %q", header, a.status, a.header.Get("Location"), want)
			}
		}

		b.login("zoe")
		handle := *b.session().Handle
		a := b.get("/auth/verify?redirect=1")
		if a.status != http.StatusOK || a.body != "" || a.header.Get("X-Tandem-User") != zoe.ID || a.header.Get("X-Tandem-User-Name") != "zoe" || a.header.Get("X-Tandem-Session") != handle {
			t.Errorf("logged in: %d %v", a.status, a.header)
		}
		if a := b.do(http.MethodPost, "/auth/verify", ""); a.status != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", a.status)
		}

		server.Stop()
		for _, who := range []*browser{b, s.browser(t)} {
			a := who.get("/auth/verify?redirect=1")
			for deadline := time.Now().Add(20 * time.Second); a.status != http.StatusServiceUnavailable; a = who.get("/auth/verify?redirect=1") {
				if time.Now().After(deadline) {
					t.Fatalf("Redis is away: %d", a.status)
				}
			}
			if a.header.Get("Retry-After") == "" || a.header.Get("X-Tandem-User") != "" {
				t.Errorf("Redis is away: %v", a.header)
			}
		}
	})
}
