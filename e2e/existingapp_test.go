package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// startStockApp runs the application with its unmodified session store and waits until it answers.
func startStockApp(t *testing.T, redisURL, serializer string) string {
	t.Helper()
	address := freeAddress(t)
	startProcess(t, "stockapp", nil, binaries.stockapp, "-address", address, "-redis", redisURL, "-serializer", serializer)
	eventually(t, 10*time.Second, func() error {
		resp, err := http.Get("http://" + address + "/app/headers")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return "http://" + address
}

func decoded(t *testing.T, a answer) map[string]any {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return m
}

// An application that keeps its login in an unmodified redisstore logs a user in; Tandem in front knows the user, its
// sockets too, and neither destroys what the other wrote.
func TestExistingApp(t *testing.T) {
	t.Parallel()
	for _, serializer := range []string{"gob", "json"} {
		t.Run(serializer, func(t *testing.T) {
			redis := redistest.Start(t)
			upstream := startStockApp(t, redis.URL(), serializer)
			r := startReplica(t, settings{
				redis:  redis.URL(),
				routes: fmt.Sprintf("      - {path: /app/, upstream: {targets: [%q], forward_cookie: true}}\n", upstream) + defaultRoutes,
				more:   fmt.Sprintf("session: {serializer: %s, verify_every: 1s}\n", serializer),
			})
			ada := newPerson(t)
			if m := decoded(t, ada.post(r.url+"/app/login", url.Values{"id": {"u-7"}, "name": {"Ada Lovelace"}})); m["user.id"] != "u-7" {
				t.Fatalf("login in the application: %v", m)
			}
			if m := decoded(t, ada.get(r.url+"/app/visit")); m["visits"] != 1.0 {
				t.Fatalf("first visit: %v", m)
			}

			// Tandem knows the user; so do its sockets.
			s := ada.session(r.url)
			if s.User == nil || s.User.ID != "u-7" || s.User.Name != "Ada Lovelace" || len(s.Handle) != 26 {
				t.Fatalf("Tandem sees %+v", s)
			}
			sock := ada.authenticated(r.url, "shared")
			sock.send(map[string]any{"type": "session_set", "id": "1", "set": map[string]any{"chat.name": "Countess"}})
			sock.want("session")

			// The application sees what the socket wrote, and goes on counting; Tandem keeps its handle.
			if m := decoded(t, ada.get(r.url+"/app/visit")); m["visits"] != 2.0 || m["chat.name"] != "Countess" || m["user.id"] != "u-7" {
				t.Fatalf("second visit: %v", m)
			}
			if again := ada.session(r.url); again.Handle != s.Handle || again.Values["chat.name"] != "Countess" {
				t.Errorf("Tandem after the application's write: %+v", again)
			}
			// Directly, without Tandem in between: the same cookie, the same session.
			direct := ada.request(http.MethodGet, upstream+"/app/visit", nil)
			for _, c := range ada.cookies(r.url) {
				direct.AddCookie(c)
			}
			if m := decoded(t, newPerson(t).do(direct)); m["visits"] != 3.0 {
				t.Errorf("third visit: %v", m)
			}

			// The application knows who it is talking to also by header, and no client can say otherwise.
			forged := ada.request(http.MethodGet, r.url+"/app/headers", nil)
			forged.Header["X-Tandem-User"] = []string{"root"}
			forged.Header["x_tandem_user"] = []string{"root"}
			if body := ada.do(forged).body; strings.Contains(body, "root") || !strings.Contains(body, "u-7") {
				t.Errorf("headers: %s", body)
			}

			// It logs out in its own way: the key is just gone. The socket ends.
			decoded(t, ada.post(r.url+"/app/logout", nil))
			sock.wantClose(4401, "gone")
			if s := ada.session(r.url); s.User != nil {
				t.Errorf("still known after the application's logout: %+v", s)
			}
		})
	}
}
