package ws_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

var upgradeHeader = http.Header{
	"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
}

func with(h http.Header, key, value string) http.Header {
	h = h.Clone()
	h.Set(key, value)
	return h
}

func TestRefusedBeforeTheUpgrade(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Routes = []string{"/ws/", "/ws/documents/"} })
	at := r.server.URL + "/ws/documents/"
	for _, test := range []struct {
		name, method, url string
		header            http.Header
		status            int
		says              string
	}{
		{"not an upgrade", "GET", at + "d", nil, 426, "WebSocket"},
		{"old version", "GET", at + "d", with(upgradeHeader, "Sec-Websocket-Version", "8"), 426, "13"},
		{"bad key", "GET", at + "d", with(upgradeHeader, "Sec-Websocket-Key", "x"), 400, "Key"},
		{"not GET", "POST", at + "d", upgradeHeader, 405, "GET"},
		{"no ID", "GET", at, upgradeHeader, 400, "1 to 128"},
		{"space", "GET", at + "a%20b", upgradeHeader, 400, "A-Za-z0-9"},
		{"slash", "GET", at + "a/b", upgradeHeader, 400, "A-Za-z0-9"},
		{"escaped slash", "GET", at + "a%2Fb", upgradeHeader, 400, "A-Za-z0-9"},
		{"brace", "GET", at + "%7Bdoc%7D", upgradeHeader, 400, "A-Za-z0-9"},
		{"too long", "GET", at + strings.Repeat("x", 129), upgradeHeader, 400, "128"},
		{"color by name", "GET", at + "d?color=red", upgradeHeader, 400, "#rrggbb"},
		{"short color", "GET", at + "d?color=%23fff", upgradeHeader, 400, "#rrggbb"},
		{"foreign origin", "GET", at + "d", with(upgradeHeader, "Origin", "https://evil.example"), 403, "origin"},
		{"null origin", "GET", at + "d", with(upgradeHeader, "Origin", "null"), 403, "origin"},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, body := request(t, test.method, test.url, "", test.header)
			var problem struct {
				Status       int
				Detail, Code string
			}
			if err := json.Unmarshal([]byte(body), &problem); err != nil {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			if res.StatusCode != test.status || problem.Status != test.status || !strings.Contains(problem.Detail, test.says) || problem.Code == "" {
				t.Errorf("%d %s", res.StatusCode, body)
			}
			if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %s", got)
			}
		})
	}
	if n, _ := r.hub.Counts(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestOrigins(t *testing.T) {
	for _, test := range []struct {
		entries []string
		origin  string // {host} is the server's
		allowed bool
	}{
		{nil, "", true},
		{nil, "http://{host}", true},
		{nil, "HTTP://{host}", true},
		{nil, "http://{host}.evil.example", false},
		{nil, "http://evil.example/{host}", false},
		{nil, "http://user@{host}", false},
		{[]string{"https://app.example"}, "https://app.example", true},
		{[]string{"https://app.example"}, "https://APP.example:443", true},
		{[]string{"https://app.example"}, "http://app.example", false},
		{[]string{"https://app.example"}, "http://{host}", false},
		{[]string{"https://app.example", "same-origin"}, "http://{host}", true},
		{[]string{"*"}, "https://anywhere.example", true},
		{[]string{"*"}, "null", true},
	} {
		o, err := ws.ParseOrigins(test.entries)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequest("GET", "http://tandem.example:8080/", nil)
		if test.origin != "" {
			r.Header.Set("Origin", strings.ReplaceAll(test.origin, "{host}", r.Host))
		}
		if got := o.Allow(r); got != test.allowed {
			t.Errorf("%v, %q: %v", test.entries, test.origin, got)
		}
	}
	for _, bad := range []string{"", "app.example", "https://app.example/", "https://app.example/x", "ftp://x", "null", "https://*.example"} {
		if _, err := ws.ParseOrigins([]string{bad}); (err == nil) != (bad == "https://*.example") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUnavailableBeforeTheUpgrade(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	r.hub.SetAvailable(false)
	res, body := request(t, "GET", r.server.URL+"/ws/documents/d", "", upgradeHeader)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestTooManyConnections(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) {
		cfg.Limits.ConnectionsPerSession = 2
		cfg.Limits.ConnectionsPerUser = 3
	})
	at := r.server.URL + "/ws/documents/d"
	refused := func(c *cookie) bool {
		client, res, err := wstest.TryDial(t, at, wstest.DialOptions{Header: c.header()})
		if err == nil {
			client.Expect("hello")
			client.Authenticate()
			return false
		}
		return res != nil && res.StatusCode == http.StatusTooManyRequests
	}
	first, second := w.login("7"), w.login("7")
	a := r.open("d", first)
	r.open("d", first)
	if !refused(first) {
		t.Error("a third socket of one session")
	}
	r.open("d", second)
	if !refused(second) {
		t.Error("a fourth socket of one user")
	}
	if !refused(w.login("7")) {
		t.Error("one more of a user, in a session that is new here")
	}
	if refused(w.login("8")) {
		t.Error("another user was refused")
	}
	a.Cut()
	eventually(t, "room for one more", func() bool { return r.hub.CountBySession(first.handle) == 1 })
	if refused(first) {
		t.Error("no room after one has gone")
	}
}

// Limits count over all replicas, and whoever they cannot refuse before the
// upgrade is refused at authenticate.
func TestTooManyConnectionsOverReplicas(t *testing.T) {
	w := newWorld(t)
	limits := func(cfg *ws.Config) { cfg.Limits.ConnectionsPerSession = 2 }
	one, two := w.replica(limits), w.replica(limits)
	ada := w.login("7")
	first := one.open("d", ada)
	waits := two.dial("d", ada) // counts before it has authenticated
	for _, r := range []*replica{one, two} {
		if res, body := request(t, "GET", r.server.URL+"/ws/documents/d", "", withCookie(upgradeHeader, ada)); res.StatusCode != http.StatusTooManyRequests ||
			res.Header.Get("Retry-After") == "" || !strings.Contains(body, "too_many_connections") {
			t.Errorf("a third socket: %d %s", res.StatusCode, body)
		}
	}
	s, err := w.factory.Load(t.Context(), ada.id)
	if err != nil {
		t.Fatal(err)
	}
	ticket, _, err := w.factory.IssueTicket(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c := two.dial("d", nil)
	c.Send(map[string]any{"type": "authenticate", "ticket": ticket})
	if e := c.ExpectError("RATE_LIMITED"); e.RetryAfterMS == 0 {
		t.Errorf("%+v does not say when to come back", e)
	}
	expectClose(t, c, ws.CloseTooMuch, "too many connections")

	waits.Authenticate() // has its place
	if n := one.hub.CountSockets(t.Context(), []string{"nobody", ada.handle}); n[0] != 0 || n[1] != 2 {
		t.Errorf("counted %v", n)
	}
	first.Close()
	eventually(t, "one to be counted", func() bool { return two.hub.CountSockets(t.Context(), []string{ada.handle})[0] == 1 })
	two.open("d", ada)
	if n := one.hub.CountSockets(t.Context(), []string{ada.handle}); n[0] != 2 {
		t.Errorf("counted %v", n)
	}
}

// A connection that speaks for another session than its cookie's counts there.
func TestTicketOfAnotherSession(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Limits.ConnectionsPerSession = 1 })
	ada, bob := w.login("7"), w.login("8")
	c := r.dial("d", ada)
	s, err := w.factory.Load(t.Context(), bob.id)
	if err != nil {
		t.Fatal(err)
	}
	ticket, _, err := w.factory.IssueTicket(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.Send(map[string]any{"type": "authenticate", "ticket": ticket})
	c.Expect("auth_result")
	if n := r.hub.CountSockets(t.Context(), []string{ada.handle, bob.handle}); n[0] != 0 || n[1] != 1 {
		t.Errorf("counted %v", n)
	}
	c.Cut()
	eventually(t, "nobody to be counted", func() bool {
		return r.hub.CountSockets(t.Context(), []string{bob.handle})[0] == 0
	})
}

func withCookie(h http.Header, c *cookie) http.Header {
	h = h.Clone()
	h.Set("Cookie", "tandem="+c.id)
	return h
}

// wrapped is a middleware's ResponseWriter that can only be unwrapped.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestUpgradeThroughAWrappedWriter(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	documents := r.hub.Documents()
	r.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		documents.ServeHTTP(wrapped{w}, req)
	})
	r.open("d", w.login("7"))
}

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t)
	for name, spoil := range map[string]func(*ws.Config){
		"Backplane":               func(c *ws.Config) { c.Backplane = nil },
		"Bind":                    func(c *ws.Config) { c.Bind = nil },
		"SessionID":               func(c *ws.Config) { c.SessionID = nil },
		"origin":                  func(c *ws.Config) { c.Origins = []string{"nonsense"} },
		"OperationsBehind":        func(c *ws.Config) { c.Documents.OperationsBehind = -1 },
		"Limits.FramesPerSecond":  func(c *ws.Config) { c.Limits.FramesPerSecond = -1 },
		"Heartbeat":               func(c *ws.Config) { c.Heartbeat = -1 },
		"Drain.Spread":            func(c *ws.Config) { c.Drain.Spread = -1 },
		"tandem_ws_frames_receiv": func(c *ws.Config) { c.Metrics = taken{} },
	} {
		cfg := w.config("x")
		spoil(&cfg)
		if _, err := ws.NewHub(cfg); err == nil || name != "tandem_ws_frames_receiv" && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// taken is a registry in which every name is taken.
type taken struct{ prometheus.Registerer }

func (taken) Register(prometheus.Collector) error { return prometheus.AlreadyRegisteredError{} }

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewPedanticRegistry()
	r := w.replica(func(cfg *ws.Config) { cfg.Metrics = registry })
	ada := w.login("7")
	c, _ := r.join("d", ada)
	c.Operate("a", 1)
	c.SendText(`{"type":"nonsense-` + ada.id + `"}`)
	c.ExpectError("UNKNOWN_TYPE")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if strings.Contains(name, ada.id) {
				t.Errorf("session ID in %s", name)
			}
		}
	}
	for name, want := range map[string]float64{
		"tandem_ws_connections joined":              1,
		"tandem_ws_connections connecting":          0,
		"tandem_ws_connections_peak":                1,
		"tandem_ws_documents":                       1,
		"tandem_ws_frames_received_total unknown":   1,
		"tandem_ws_operations_total appended":       1,
		"tandem_ws_append_seconds":                  1,
		"tandem_ws_errors_total UNKNOWN_TYPE":       1,
		"tandem_ws_frames_received_total operation": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, not %v", name, got[name], want)
		}
	}
}
