package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// The session's ID appears in Set-Cookie and Redis, and nowhere else. Every test searches the logs, answers, frames and
// metrics that it sees; this one leads the ID past everything that might show it: errors, upstreams, commands, news
// between replicas, an outage, values that cannot be read.
func TestSessionIDStaysSecret(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	link := redistest.NewLink(t, redis.Addr())
	rdb := redis.Client(t)
	news := listenToAll(t, redis)
	upstream := newNosy(t)
	s := settings{redis: redis.URLAt(link.Addr()), more: "session: {verify_every: 1s}\n", routes: fmt.Sprintf(`
      - {path: /up/, upstream: {targets: [%q]}}
      - {path: /gone/, upstream: {targets: ["http://%s"]}}
`, upstream.URL, freeAddress(t)) + strings.Trim(defaultRoutes, "\n")}
	a, b := startReplica(t, s), startReplica(t, s)

	ada := newPerson(t)
	ada.register(a.url, "ada")
	sock := ada.open(a.url, "secret")
	sock.send(map[string]any{"type": "session_set", "id": "1", "set": map[string]any{"chat.name": "ada"}})
	sock.want("session")
	sock.send(map[string]any{"type": "session_set", "id": "2", "set": map[string]any{"tandem.sid": "x"}})
	sock.wantError("FORBIDDEN")
	sock.operation("1", "hello")
	for _, path := range []string{"/", "/account", "/documents/secret", "/pairs/x", "/api/session", "/nothing", "/up/echo", "/gone/x"} {
		for _, base := range []string{a.url, b.url} {
			ada.page(base + path)
			ada.get(base + path)
		}
	}
	ada.post(a.url+"/api/session/renew", nil)
	ada.post(a.url+"/api/tickets", nil)
	ada.post(a.url+"/api/nothing", nil)
	ada.login(b.url, "ada") // a new ID
	sock.want("renew")
	ada.post(a.url+"/account/sessions/"+ada.session(a.url).Handle+"x/revoke", nil)
	ada.post(a.url+"/account/sessions/revoke-others", nil)
	handle := ada.session(b.url).Handle
	for _, r := range []*replica{a, b} {
		for _, path := range []string{"connections", "sessions", "sessions?user=ada", "documents/secret"} {
			r.adminJSON(http.MethodGet, path, nil, nil)
		}
		r.adminJSON(http.MethodDelete, "sessions/"+ada.sessionID(a.url), nil, nil) // an operator pastes the wrong thing
	}
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	writeFile(t, file, "redis: "+redis.URL()+"\n")
	for _, args := range [][]string{
		{"sessions", "list"}, {"sessions", "list", "--json"}, {"sessions", "show", handle}, {"sessions", "show", handle, "--json"},
	} {
		runTandem(t, "", append(args, "--config", file)...)
	}

	link.Cut()
	sock.wantThat("status", func(f frame) bool { return f.fields["redis"] == "down" })
	for _, path := range []string{"/account", "/api/session"} {
		ada.page(a.url + path)
	}
	link.Heal()
	a.waitStatus("/readyz", http.StatusOK, 20*time.Second)
	b.waitStatus("/readyz", http.StatusOK, 20*time.Second)

	key := "session:" + ada.sessionID(a.url)
	if err := rdb.Set(t.Context(), key, "not a session", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if got := ada.get(a.url + "/api/session"); got.status < 500 {
		t.Errorf("a value that cannot be read: %d", got.status)
	}
	if err := rdb.Del(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.HSet(t.Context(), key, "not", "a string").Err(); err != nil {
		t.Fatal(err)
	}
	ada.page(b.url + "/account")
	ada.post(b.url+"/logout", nil)

	if seen := news.String(); secret.MatchString(seen) || !strings.Contains(seen, handle) {
		t.Error("what replicas tell each other shows a session ID, or nothing was heard")
	}
	if seen := upstream.seen.String(); secret.MatchString(seen) || !strings.Contains(seen, handle) {
		t.Error("the upstream was shown the session's ID, or nothing")
	}
}

// listenToAll collects every message that is published in a Redis.
func listenToAll(t *testing.T, server *redistest.Server) *output {
	t.Helper()
	sub := server.Client(t).PSubscribe(t.Context(), "*")
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	var heard output
	var done sync.WaitGroup
	done.Go(func() {
		for m := range sub.Channel() {
			fmt.Fprintln(&heard, m.Channel, m.Payload)
		}
	})
	t.Cleanup(func() { _ = sub.Close(); done.Wait() })
	return &heard
}

// nosy is an upstream that keeps all that it is sent.
type nosy struct {
	*httptest.Server
	seen output
}

func newNosy(t *testing.T) *nosy {
	t.Helper()
	n := &nosy{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := httputil.DumpRequest(r, true)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = n.seen.Write(b)
		_, _ = w.Write(b)
	}))
	t.Cleanup(n.Close)
	return n
}

// No script of a page can read the ID.
func TestSessionIDIsHiddenFromScripts(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL()})
	newPerson(t).register(r.url, "ada")
	page := browser(t)
	step(t, page, "log in",
		chromedp.Navigate(r.url+"/login"),
		chromedp.SendKeys(`input[name=username]`, "ada"),
		chromedp.SendKeys(`input[name=password]`, password),
		chromedp.Submit(`input[name=password]`),
		chromedp.WaitVisible(`form[action="/logout"]`),
	)
	shown, err := chromedp.Run(page, chromedp.Evaluate[string](
		`[document.cookie, document.documentElement.outerHTML, location.href, JSON.stringify(localStorage), JSON.stringify(sessionStorage)].join("\n")`))
	if err != nil || secret.MatchString(shown) || !strings.Contains(shown, "ada") {
		t.Errorf("what scripts can read holds the session's ID, or nothing: %v", err)
	}
}
