package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// Left on one replica, right on the other: one unique ID, one counter; a side that is taken is refused, any other shape
// is not found.
func TestPairs(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startReplica(t, settings{redis: redis.URL(), routes: pairRoutes}), startReplica(t, settings{redis: redis.URL(), routes: pairRoutes})
	ada, bob := newPerson(t), newPerson(t)
	ada.register(a.url, "ada")

	if s, resp := bob.dial(a.url, "/left/p1", nil); s != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody was let in: %v", resp.Status)
	}
	if got := ada.get(a.url + "/left/"); got.status != http.StatusNotFound || !strings.Contains(got.body, "left/{id}") {
		t.Errorf("another shape: %d %s", got.status, got.body)
	}

	left, _ := ada.dial(a.url, "/left/p1", nil)
	left.sendRaw(websocket.TextMessage, []byte("early"))
	right, _ := ada.dial(b.url, "/right/p1", nil)
	right.sendRaw(websocket.TextMessage, []byte("hello"))
	unique := ""
	seen := map[string]bool{}
	for _, got := range []string{left.plain(), right.plain()} {
		var id, message string
		var index int
		parts := strings.Split(got, " | ")
		if len(parts) != 3 {
			t.Fatalf("answer %q", got)
		}
		id, message = parts[0], parts[2]
		if _, err := fmt.Sscan(parts[1], &index); err != nil || index < 0 || index > 1 || seen[parts[1]] {
			t.Errorf("index in %q", got)
		}
		seen[parts[1]] = true
		if unique != "" && id != unique {
			t.Errorf("two unique IDs: %s, %s", unique, id)
		}
		unique = id
		if message != "early" && message != "hello" {
			t.Errorf("message in %q", got)
		}
	}

	eve := newPerson(t)
	eve.login(b.url, "ada") // another session
	if s, resp := eve.dial(b.url, "/left/p1", nil); s != nil || resp.StatusCode != http.StatusConflict {
		t.Errorf("a taken side: %v", resp.Status)
	}
	ada.post(a.url+"/logout", nil)
	left.wantClose(4401, "logout")
	right.wantClose(4401, "logout")
}
