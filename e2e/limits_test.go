package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// Connections are counted over all replicas, documents and pairs alike: one too many is refused before its upgrade,
// wherever it comes; a session keeps its places under a new ID; those of a replica that was killed are free again
// within 15 s.
func TestConnectionLimitsOverReplicas(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	s := settings{redis: redis.URL(), routes: pairRoutes, more: "limits: {connections_per_session: 4, connections_per_user: 5}\n"}
	a, b := startReplica(t, s), startReplica(t, s)
	ada := newPerson(t)
	ada.register(a.url, "ada")
	sockets := func() float64 {
		var list struct {
			Items []map[string]any `json:"items"`
		}
		if code := a.adminJSON(http.MethodGet, "sessions?user=ada", nil, &list); code != http.StatusOK || len(list.Items) == 0 {
			t.Fatalf("sessions: %d %v", code, list)
		}
		n := 0.0
		for _, item := range list.Items {
			n += item["sockets"].(float64)
		}
		return n
	}
	refused := func(who *person, path string) {
		t.Helper()
		for _, r := range []*replica{a, b} {
			open, resp := who.dial(r.url, path, nil)
			if open != nil {
				t.Fatalf("%s: one too many was let in", path)
			}
			if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s: one too many: %s", path, resp.Status)
			}
			resp.Body.Close()
		}
	}

	first := ada.authenticated(a.url, "d")
	ada.open(a.url, "d") // has not authenticated
	ada.authenticated(b.url, "d")
	if side, resp := ada.dial(b.url, "/left/p", nil); side == nil {
		t.Fatal(resp.Status)
	}
	if n := sockets(); n != 4 {
		t.Errorf("%v sockets are counted", n)
	}
	refused(ada, "/ws/documents/d")
	refused(ada, "/right/p")
	ada.login(a.url, "ada") // a new ID
	refused(ada, "/ws/documents/d")

	other := newPerson(t)
	other.login(b.url, "ada") // a session of her own
	if open, resp := other.dial(b.url, "/ws/documents/d", nil); open == nil {
		t.Fatal(resp.Status)
	}
	refused(other, "/ws/documents/d")

	_ = first.conn.Close()
	eventually(t, 5*time.Second, func() error { return isCount(sockets(), 4) })
	ada.authenticated(b.url, "d")
	refused(other, "/ws/documents/d")

	killed := time.Now()
	b.kill()
	eventually(t, 15*time.Second, func() error { return isCount(sockets(), 1) })
	t.Logf("the places of a killed replica were free after %s", time.Since(killed).Round(time.Millisecond))
	ada.authenticated(a.url, "d")
}

func isCount(got, want float64) error {
	if got != want {
		return fmt.Errorf("%v sockets are counted, not %v", got, want)
	}
	return nil
}
