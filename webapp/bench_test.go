package webapp_test

import (
	"net/http"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// BenchmarkHome is the same page with a session and without, over one
// keep-alive connection: the difference is what a session costs.
func BenchmarkHome(b *testing.B) {
	s := newSite(b, redistest.Start(b), "closed")
	s.add(b, "ada")
	for name, login := range map[string]bool{"anonymous": false, "session": true} {
		b.Run(name, func(b *testing.B) {
			c := s.browser(b)
			if login {
				c.login("ada")
			}
			for b.Loop() {
				if a := c.get("/"); a.status != http.StatusOK {
					b.Fatal(a.status)
				}
			}
		})
	}
}
