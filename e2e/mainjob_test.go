package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// TestMainJob is the product in one test: log in on a page of replica A, be known on a socket of replica B, write from
// the socket, see it on the page, log out. With TANDEM_E2E_URL it runs against what listens there, a balancer in front
// of replicas, whichever of them answers.
func TestMainJob(t *testing.T) {
	a, b := os.Getenv("TANDEM_E2E_URL"), os.Getenv("TANDEM_E2E_URL")
	if a == "" {
		redis := redistest.Start(t)
		a, b = startReplica(t, settings{redis: redis.URL()}).url, startReplica(t, settings{redis: redis.URL()}).url
	}

	ada := newPerson(t)
	eventually(t, 30*time.Second, func() error { // containers start in any order
		if got := ada.get(a + "/api/session"); got.status != http.StatusOK {
			return fmt.Errorf("GET /api/session: %d", got.status)
		}
		return nil
	})
	ada.register(a, "ada")
	if s := ada.session(b); s.User == nil || s.User.Name != "ada" || len(s.Handle) != 26 {
		t.Fatalf("the other replica does not know the session: %+v", s)
	}

	// The socket is known by the page's session.
	onB := ada.open(b, "main-job")
	onA := ada.open(a, "main-job")

	// The socket writes; the page shows it.
	onB.send(map[string]any{"type": "session_set", "id": "s1", "set": map[string]any{"chat.name": "Countess"}})
	if f := onB.want("session"); f.fields["re"] != "s1" {
		t.Fatalf("reply: %s", f.raw)
	}
	if got := ada.session(a).Values["chat.name"]; got != "Countess" {
		t.Errorf("GET /api/session shows chat.name %v", got)
	}
	if page := ada.page(a + "/"); page.status != http.StatusOK || !strings.Contains(page.body, "Countess") {
		t.Errorf("the page (%d) does not show the chat name", page.status)
	}
	if f := onA.want("session_changed"); fmt.Sprint(f.fields["set"]) != "map[chat.name:Countess]" {
		t.Errorf("the other socket heard %s", f.raw)
	}

	// The page writes; the socket hears it.
	if r := ada.sendJSON(http.MethodPatch, a+"/api/session", map[string]any{"set": map[string]any{"chat.topic": "engines"}}); r.status != http.StatusOK {
		t.Fatalf("PATCH: %d %s", r.status, r.body)
	}
	onB.wantThat("session_changed", func(f frame) bool { return strings.Contains(f.raw, `"chat.topic":"engines"`) })

	testOneOrder(t, onA, onB)

	// Logout reaches, at once, with the reason.
	if r := ada.post(a+"/logout", nil); r.status != http.StatusSeeOther {
		t.Fatalf("logout: %d %s", r.status, r.body)
	}
	onB.wantClose(4401, "logout")
	onA.wantClose(4401, "logout")
	if s := ada.session(b); s.User != nil {
		t.Error("still logged in after the logout")
	}
}

// testOneOrder publishes from two sockets and checks that both see everything, once, in the same order.
func testOneOrder(t *testing.T, sockets ...*socket) {
	t.Helper()
	const each = 25
	acked := map[string]int{}
	for i := range each {
		for n, s := range sockets {
			id := fmt.Sprintf("op-%d-%d", n, i)
			f := s.operation(id, map[string]any{"n": n, "i": i})
			if f.binary || f.fields["duplicate"] != false {
				t.Fatalf("ack: %s", f.raw)
			}
			acked[id] = f.number("seq")
		}
	}
	again := sockets[0].operation("op-0-0", map[string]any{"n": 0, "i": 0})
	if again.fields["duplicate"] != true || again.number("seq") != acked["op-0-0"] {
		t.Errorf("sent again: %s, first seq %d", again.raw, acked["op-0-0"])
	}
	for n, s := range sockets {
		last := 0
		for range len(acked) {
			f := s.want("operation")
			if !f.binary {
				t.Fatalf("an operation came as a text frame: %s", f.raw)
			}
			if seq := f.number("seq"); last != 0 && seq != last+1 {
				t.Fatalf("socket %d: seq %d after %d", n, seq, last)
			}
			last = f.number("seq")
			id, _ := f.fields["id"].(string)
			if acked[id] != last {
				t.Errorf("socket %d: %s has seq %d, acknowledged as %d", n, id, last, acked[id])
			}
			if payload, _ := json.Marshal(f.fields["payload"]); !strings.Contains(id, "op-") || len(payload) == 0 {
				t.Errorf("broadcast: %s", f.raw)
			}
		}
	}
}
