//go:build slow

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A master of a Cluster dies and nobody replaces it: the one that once told whether Redis is up. Sessions on the others
// are served, those on it answer 503, the replica stays ready; and when it is back everybody is served.
func TestSessionsWithoutOneMaster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 0, "--cluster-require-full-coverage", "no", "--appendonly", "yes", "--appendfsync", "always")
	r := startReplica(t, settings{redis: c.URL()})
	dead := c.Master(c.Slot("tandem:probe"))
	type user struct {
		*person
		there bool
	}
	var users []user
	for there, elsewhere := 0, 0; there < 2 || elsewhere < 2; {
		p := newPerson(t)
		if answer := p.sendJSON(http.MethodPatch, r.url+"/api/session", map[string]any{"set": map[string]any{"chat.name": "x"}}); answer.status != http.StatusOK {
			t.Fatalf("PATCH: %d %s", answer.status, answer.body)
		}
		u := user{p, c.Master(c.Slot("session:"+p.sessionID(r.url))) == dead}
		if u.there {
			there++
		} else {
			elsewhere++
		}
		users = append(users, u)
	}
	served := func(is bool) func() error {
		return func() error {
			for i, u := range users {
				want := http.StatusOK
				if u.there && !is {
					want = http.StatusServiceUnavailable
				}
				if answer, err := u.tryJSON(http.MethodGet, r.url+"/api/session", nil, nil); err != nil || answer.status != want {
					return fmt.Errorf("user %d: %d, %v; want %d", i, answer.status, err, want)
				}
			}
			return nil
		}
	}
	eventually(t, 30*time.Second, served(true))
	dead.Kill()
	eventually(t, 30*time.Second, served(false))
	r.waitStatus("/readyz", http.StatusOK, 30*time.Second)
	for range 5 {
		if err := served(false)(); err != nil {
			t.Error(err)
		}
	}
	dead.Restart()
	eventually(t, 30*time.Second, served(true))
	r.waitStatus("/readyz", http.StatusOK, 30*time.Second)
}
