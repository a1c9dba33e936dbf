package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

func (g *Gateway) adminURL() string { return "http://" + g.AdminAddress().String() }

// adminSite is a gateway with an admin listener and the token "right".
func adminSite(t *testing.T, cfg AdminConfig) *Gateway {
	t.Helper()
	up := upstream(t, showHeader)
	c := toUpstream(Upstream{Targets: []string{up.URL}})
	cfg.Address = "127.0.0.1:0"
	c.Admin = cfg
	if registry, ok := cfg.Gatherer.(*prometheus.Registry); ok {
		c.Metrics = registry
	}
	return start(t, c)
}

func TestAdminToken(t *testing.T) {
	g := adminSite(t, AdminConfig{Token: "right"})
	for _, path := range []string{"/admin/v1/connections", "/admin/v1/", "/admin/v1/none"} {
		for _, authorization := range []string{"", "Bearer", "Bearer wrong", "Bearer right2", "Bearer righ", "Basic right", "right"} {
			if a := get(t, g.adminURL()+path, "Authorization", authorization); a.status != 401 || a.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %q: %d", path, authorization, a.status)
			}
		}
	}
	for _, authorization := range []string{"Bearer right", "bearer right", "Bearer  right "} {
		if a := get(t, g.adminURL()+"/admin/v1/connections", "Authorization", authorization); a.status != 200 {
			t.Errorf("%q: %d", authorization, a.status)
		}
	}
	off := adminSite(t, AdminConfig{})
	for _, authorization := range []string{"", "Bearer ", "Bearer x"} {
		if a := get(t, off.adminURL()+"/admin/v1/connections", "Authorization", authorization); a.status != 403 || !strings.Contains(a.body, "admin.token_file") {
			t.Errorf("no token configured, %q: %d %s", authorization, a.status, a.body)
		}
	}
}

func TestReadiness(t *testing.T) {
	var down, draining atomic.Bool
	g := adminSite(t, AdminConfig{
		Draining: draining.Load,
		Checks: []Check{
			{"redis", func() error {
				if down.Load() {
					return errors.New("connection refused")
				}
				return nil
			}},
			{"subscriptions", func() error { return nil }},
		},
	})
	ready := func() (int, string, map[string]checkResult) {
		a := get(t, g.adminURL()+"/readyz")
		var body struct {
			Status string
			Checks map[string]checkResult
		}
		if err := json.Unmarshal([]byte(a.body), &body); err != nil {
			t.Fatalf("%s: %v", a.body, err)
		}
		return a.status, body.Status, body.Checks
	}
	if status, text, checks := ready(); status != 200 || text != "ok" || len(checks) != 3 || !checks["redis"].OK {
		t.Errorf("%d %s %v", status, text, checks)
	}
	down.Store(true)
	if status, text, checks := ready(); status != 503 || text != "unavailable" || checks["redis"].OK || checks["redis"].Error != "connection refused" || !checks["subscriptions"].OK {
		t.Errorf("%d %s %v", status, text, checks)
	}
	if a := get(t, g.adminURL()+"/livez"); a.status != 200 {
		t.Errorf("alive without Redis: %d", a.status)
	}
	down.Store(false)
	draining.Store(true)
	if status, _, checks := ready(); status != 503 || checks["draining"].OK || !checks["redis"].OK {
		t.Errorf("%d %v", status, checks)
	}
}

func TestAdminPages(t *testing.T) {
	g := adminSite(t, AdminConfig{
		Token: "right", Gatherer: prometheus.NewRegistry(),
		ExtraConnections: func() []ConnectionInfo { return []ConnectionInfo{{ID: "c1", Kind: "document", Document: "doc"}} },
		Mux: map[string]http.Handler{"documents/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Method+" "+r.URL.Path)
		})},
	})
	get(t, g.url())
	if a := get(t, g.adminURL()+"/metrics"); a.status != 200 || !strings.Contains(a.body, `tandem_gateway_request_duration_seconds_count{class="2xx",kind="upstream",listener="127.0.0.1:0",route="/"} 1`) {
		t.Errorf("metrics: %d %s", a.status, a.body)
	}
	if a := get(t, g.adminURL()+"/debug/pprof/goroutine?debug=1"); a.status != 200 {
		t.Errorf("pprof: %d", a.status)
	}
	if a := get(t, g.adminURL()+"/admin/v1/documents/a%2Fb", "Authorization", "Bearer right"); a.body != "GET /documents/a/b" {
		t.Errorf("mux: %s", a.body)
	}
	if a := get(t, g.adminURL()+"/admin/v1/documents/a"); a.status != 401 {
		t.Errorf("mux without a token: %d", a.status)
	}
	if a := get(t, g.adminURL()+"/admin/v1/sessions", "Authorization", "Bearer right"); a.status != 404 {
		t.Errorf("no session store: %d", a.status)
	}
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, _ = c.Read(make([]byte, 10))
	var list struct {
		Items []map[string]any `json:"items"`
	}
	// What was written is counted once the write has returned, which may be after the client has read it.
	eventually(t, "the connection is idle and counted", func() bool {
		a := get(t, g.adminURL()+"/admin/v1/connections", "Authorization", "Bearer right")
		if err := json.Unmarshal([]byte(a.body), &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Items) == 2 && list.Items[0]["state"] == stateIdle && list.Items[0]["bytes_out"] != 0.0
	})
	for _, field := range []string{"id", "kind", "state", "listener", "route", "client", "user", "session", "document", "bytes_in", "bytes_out", "since"} {
		if _, ok := list.Items[0][field]; !ok {
			t.Errorf("no %s in %v", field, list.Items[0])
		}
	}
	if first := list.Items[0]; first["client"] != c.LocalAddr().String() || first["bytes_in"] == 0.0 || list.Items[1]["document"] != "doc" {
		t.Errorf("%v", list.Items)
	}
}

func TestAdminSessions(t *testing.T) {
	server := redistest.Mini(t)
	f, err := sessionstore.New(server.Client(t), sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	login := func(id, name string) string {
		s, err := f.Login(sessionstore.WithMeta(t.Context(), sessionstore.Meta{UserAgent: "browser", Address: "10.0.0.1"}), nil, sessionstore.Login{UserID: id, UserName: name})
		if err != nil {
			t.Fatal(err)
		}
		return s.Handle()
	}
	first, second, other := login("7", "ada"), login("7", "ada"), login("a/b", "bob")
	g := adminSite(t, AdminConfig{Token: "right", Sessions: f, SocketCounts: func(_ context.Context, handles []string) []int {
		counts := make([]int, len(handles))
		for i, handle := range handles {
			if handle == first {
				counts[i] = 2
			}
		}
		return counts
	}})
	call := func(method, path string) answer {
		return do(t, request(t, method, g.adminURL()+"/admin/v1/"+path, "Authorization", "Bearer right"))
	}
	handles := func(user string) []string {
		a := call(http.MethodGet, "sessions?user="+user)
		var list struct {
			Items []map[string]any `json:"items"`
		}
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != 200 {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		var handles []string
		for _, item := range list.Items {
			if item["created"] == nil || item["last_seen"] == nil || item["user_agent"] != "browser" || item["address"] != "10.0.0.1" || item["user"] == "" {
				t.Errorf("%v", item)
			}
			if item["handle"] == first && item["sockets"] != 2.0 {
				t.Errorf("sockets: %v", item)
			}
			handles = append(handles, item["handle"].(string))
		}
		slices.Sort(handles)
		return handles
	}
	same := func(got []string, want ...string) bool { slices.Sort(want); return slices.Equal(got, want) }
	if got := handles("7"); !same(got, first, second) {
		t.Errorf("by ID: %v", got)
	}
	if got := handles("ada"); !same(got, first, second) {
		t.Errorf("by name: %v", got)
	}
	if got := handles(""); !same(got, first, second, other) {
		t.Errorf("all: %v", got)
	}
	if got := handles("nobody"); got != nil {
		t.Errorf("nobody: %v", got)
	}
	for _, unknown := range []string{sessionstore.NewHandle(), "malformed", "%20"} {
		if a := call(http.MethodDelete, "sessions/"+unknown); a.status != 404 {
			t.Errorf("%s: %d", unknown, a.status)
		}
	}
	if a := call(http.MethodDelete, "sessions/"+first); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := call(http.MethodDelete, "sessions/"+first); a.status != 404 {
		t.Errorf("twice: %d", a.status)
	}
	if a := call(http.MethodDelete, "users/a%2Fb/sessions"); a.status != 200 || a.body != "{\"ended\":1}\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := handles(""); !same(got, second) {
		t.Errorf("left: %v", got)
	}
	server.Stop()
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		path := map[string]string{http.MethodGet: "sessions?user=7", http.MethodDelete: "sessions/" + second}[method]
		if a := call(method, path); a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%s without Redis: %d %s", path, a.status, a.body)
		}
	}
}
