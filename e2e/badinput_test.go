package e2e

import (
	"encoding/base32"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestBadInput(t *testing.T) {
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(r.url, "ada")

	t.Run("fixation", func(t *testing.T) { testFixation(t, r, redis) })
	t.Run("login", func(t *testing.T) { testBadLogins(t, r) })
	t.Run("api", func(t *testing.T) { testBadAPI(t, r, ada) })
	t.Run("handshake", func(t *testing.T) { testBadHandshakes(t, r, ada) })
	t.Run("frames", func(t *testing.T) { testBadFrames(t, r, ada) })

	r.waitStatus("/readyz", http.StatusOK, time.Second)
	ada.open(r.url, "fine").operation("1", "still serving")
}

// testFixation presents IDs that Tandem never issued. None may be adopted, echoed, or looked up as given.
func testFixation(t *testing.T, r *replica, redis *redistest.Server) {
	chosen := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(strings.Repeat("A", 64)))
	corpus := []string{
		chosen, chosen[:102], chosen + "A", strings.ToLower(chosen), "session:x", "tandem:accounts", "*", "../../etc/passwd",
		strings.Repeat("A", 10_000), "%00", "a%0d%0aSet-Cookie:x=1", "A B", `"quoted"`, "{tag}", "…", "0", "",
	}
	client := redis.Client(t)
	for _, id := range corpus {
		for _, path := range []string{"/", "/api/session", "/login", "/account"} {
			p := newPerson(t)
			req := p.request(http.MethodGet, r.url+path, nil)
			req.Header["Cookie"] = []string{"tandem=" + id}
			a := p.do(req)
			if a.status >= 500 {
				t.Errorf("%s with ID %.20q: %d", path, id, a.status)
			}
			if set := strings.Join(a.header["Set-Cookie"], ";"); len(id) > 8 && strings.Contains(set, id) {
				t.Errorf("%s echoes the ID %.20q", path, id)
			}
		}
		// Written through: a session is made, under an ID of our own.
		p := newPerson(t)
		req := p.request(http.MethodPatch, r.url+"/api/session", strings.NewReader(`{"set":{"chat.name":"mallory"}}`))
		req.Header.Set("Content-Type", "application/json")
		req.Header["Cookie"] = []string{"tandem=" + id}
		a := p.do(req)
		if a.status != http.StatusOK {
			t.Errorf("PATCH with ID %.20q: %d %s", id, a.status, a.body)
		}
		set := strings.Join(a.header["Set-Cookie"], ";")
		if !sessionID.MatchString(set) || strings.Contains(set, chosen) {
			t.Errorf("PATCH with ID %.20q sets no fresh cookie", id)
		}
		if !strings.Contains(set, "HttpOnly") || !strings.Contains(set, "SameSite") {
			t.Errorf("cookie attributes: %s", set[strings.Index(set, ";"):])
		}
		if n, err := client.Exists(t.Context(), "session:"+id).Result(); err != nil || n != 0 {
			t.Errorf("the ID %.20q was adopted", id)
		}
	}
}

func testBadLogins(t *testing.T, r *replica) {
	for name, c := range map[string]struct {
		form   url.Values
		status int
	}{
		"wrong password": {url.Values{"username": {"ada"}, "password": {"wrong"}}, http.StatusUnauthorized},
		"unknown user":   {url.Values{"username": {"nobody"}, "password": {"wrong"}}, http.StatusUnauthorized},
		"no password":    {url.Values{"username": {"ada"}}, http.StatusBadRequest},
		"nothing":        {url.Values{}, http.StatusBadRequest},
	} {
		p := newPerson(t)
		a := p.post(r.url+"/login", c.form)
		if a.status/100 != 4 {
			t.Errorf("%s: %d", name, a.status)
		}
		if len(a.header["Set-Cookie"]) != 0 {
			t.Errorf("%s: sets a cookie", name)
		}
	}
	p := newPerson(t)
	req := p.request(http.MethodPost, r.url+"/login", strings.NewReader(url.Values{"username": {"ada"}, "password": {password}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://evil.example")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if a := p.do(req); a.status != http.StatusForbidden {
		t.Errorf("a login from another site: %d", a.status)
	}
	for _, next := range []string{"//evil.example", `/\evil.example`, "https://evil.example/", "javascript:alert(1)", "/\tx", "/%09/evil.example"} {
		a := newPerson(t).post(r.url+"/login", url.Values{"username": {"ada"}, "password": {password}, "next": {next}})
		u, err := url.Parse(a.header.Get("Location"))
		if err != nil || u.Host != "" || u.Scheme != "" || strings.HasPrefix(u.Path, "//") {
			t.Errorf("next=%q leads to %q", next, a.header.Get("Location"))
		}
	}
}

func testBadAPI(t *testing.T, r *replica, ada *person) {
	before := ada.session(r.url)
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"not writable": {`{"set":{"chat.name":"x","user.name":"root"}}`, http.StatusForbidden},
		"reserved":     {`{"set":{"tandem.sid":"x"}}`, http.StatusForbidden},
		"delete user":  {`{"delete":["user.id"]}`, http.StatusForbidden},
		"not JSON":     {`{"set":`, http.StatusBadRequest},
		"wrong kind":   {`{"set":[]}`, http.StatusBadRequest},
		"too large":    {`{"set":{"chat.name":"` + strings.Repeat("x", 300_000) + `"}}`, http.StatusRequestEntityTooLarge},
	} {
		req := ada.request(http.MethodPatch, r.url+"/api/session", strings.NewReader(c.body))
		req.Header.Set("Content-Type", "application/json")
		a := ada.do(req)
		if a.status != c.status || !strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: %d %s %s", name, a.status, a.header.Get("Content-Type"), tail(a.body, 200))
		}
	}
	if after := ada.session(r.url); after.Values["chat.name"] != before.Values["chat.name"] || after.User.Name != "ada" {
		t.Errorf("a refused PATCH wrote: %+v", after)
	}
	if a := newPerson(t).post(r.url+"/api/session/renew", nil); a.status != http.StatusUnauthorized {
		t.Errorf("renew without a session: %d", a.status)
	}
}

func testBadHandshakes(t *testing.T, r *replica, ada *person) {
	refused := func(name, path string, header http.Header, status int) {
		t.Helper()
		s, resp := ada.dial(r.url, path, header)
		if s != nil {
			t.Errorf("%s: accepted", name)
			return
		}
		if resp.StatusCode != status || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
	refused("bad ID", "/ws/documents/a%20b", nil, http.StatusBadRequest)
	refused("empty ID", "/ws/documents/", nil, http.StatusBadRequest)
	refused("long ID", "/ws/documents/"+strings.Repeat("x", 129), nil, http.StatusBadRequest)
	refused("foreign origin", "/ws/documents/x", http.Header{"Origin": {"https://evil.example"}}, http.StatusForbidden)
	if a := ada.get(r.url + "/ws/documents/x"); a.status != http.StatusUpgradeRequired {
		t.Errorf("not an upgrade: %d", a.status)
	}
	own := http.Header{"Origin": {r.url}}
	if s, resp := ada.dial(r.url, "/ws/documents/x", own); s == nil {
		t.Errorf("the own origin was refused: %s", resp.Status)
	}
	s, _ := newPerson(t).dial(r.url, "/ws/documents/x", nil)
	s.want("hello")
	s.send(map[string]any{"type": "join_document", "id": "j"})
	if f := s.wantError("AUTH_REQUIRED"); f.fields["re"] != "j" {
		t.Errorf("before authentication: %s", f.raw)
	}
	s.send(map[string]any{"type": "authenticate"})
	if f := s.want("auth_result"); f.fields["ok"] != false {
		t.Errorf("nobody was authenticated: %s", f.raw)
	}
	s.wantClose(4401, "")
}

func testBadFrames(t *testing.T, r *replica, ada *person) {
	s := ada.open(r.url, "frames")
	for name, c := range map[string]struct{ frame, code string }{
		"garbage":          {`}{`, "BAD_MESSAGE"},
		"not an object":    {`[1,2]`, "BAD_MESSAGE"},
		"two objects":      {`{"type":"ping"}{"type":"ping"}`, "BAD_MESSAGE"},
		"no type":          {`{"id":"1"}`, "BAD_MESSAGE"},
		"type a number":    {`{"type":7}`, "BAD_MESSAGE"},
		"unknown type":     {`{"type":"fly"}`, "UNKNOWN_TYPE"},
		"no id":            {`{"type":"operation","payload":1}`, "BAD_MESSAGE"},
		"no payload":       {`{"type":"operation","id":"1"}`, "BAD_MESSAGE"},
		"id too long":      {`{"type":"operation","id":"` + strings.Repeat("x", 65) + `","payload":1}`, "BAD_MESSAGE"},
		"join again":       {`{"type":"join_document"}`, "ALREADY_JOINED"},
		"not writable":     {`{"type":"session_set","set":{"user.id":"root"}}`, "FORBIDDEN"},
		"snapshot too far": {`{"type":"snapshot","seq":99,"payload":{}}`, "CONFLICT"},
	} {
		t.Run(name, func(t *testing.T) {
			s.sendRaw(websocket.TextMessage, []byte(c.frame))
			s.wantError(c.code)
		})
	}
	s.sendRaw(websocket.BinaryMessage, []byte(`{"type":"ping"}`))
	s.wantError("BAD_MESSAGE")
	s.send(map[string]any{"type": "ping", "id": "alive"})
	s.want("pong")

	big, err := json.Marshal(map[string]any{"type": "operation", "id": "big", "payload": strings.Repeat("x", 70_000)})
	if err != nil {
		t.Fatal(err)
	}
	s.sendRaw(websocket.TextMessage, big)
	s.wantClose(1009, "")

	n := ada.authenticated(r.url, "frames")
	n.send(map[string]any{"type": "operation", "id": "1", "payload": 1})
	n.wantError("NOT_JOINED")
}

// A configuration with three mistakes names each, with file, line and column.
func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	writeFile(t, file, `redis: redis://127.0.0.1:6379/0
session:
  idle_timeout: soon
  colour: red
listeners:
  - address: 127.0.0.1:8080
    routes:
      - {path: /, use: magic}
`)
	code, out := runTandem(t, "", "check", "--config", file)
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{file + ":3:17: ", file + ":4:3: ", file + ":8:24: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no line starts with %s:\n%s", filepath.Base(want), out)
		}
	}
	writeFile(t, file, "redis: 'embedded:'\n")
	if code, out := runTandem(t, "", "check", "--config", file); code != 0 {
		t.Errorf("a good file: exit %d: %s", code, out)
	}
	if code, _ := runTandem(t, "", "serve", "--no-such-flag"); code != 2 {
		t.Errorf("an unknown flag: exit %d", code)
	}
	if code, out := runTandem(t, "", "version"); code != 0 || !strings.Contains(out, "go1.") {
		t.Errorf("version: exit %d: %s", code, out)
	}
}

// Accounts and sessions from the command line.
func TestCommands(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL(), more: "webapp: {registration: closed}\n"})
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	writeFile(t, file, "redis: "+redis.URL()+"\n")
	run := func(want int, stdin string, args ...string) string {
		t.Helper()
		code, out := runTandem(t, stdin, append(args, "--config", file)...)
		if code != want {
			t.Errorf("tandem %v: exit %d, want %d: %s", args, code, want, out)
		}
		return out
	}
	run(0, password+"\n", "users", "add", "ada", "--password-stdin")
	run(1, password+"\n", "users", "add", "Ada", "--password-stdin")
	if out := run(0, "", "users", "list"); !strings.Contains(out, "ada") {
		t.Errorf("users list: %s", out)
	}
	ada := newPerson(t)
	ada.login(r.url, "ada")
	handle := ada.session(r.url).Handle
	s := ada.open(r.url, "cli")
	if out := run(0, "", "sessions", "list", "--user", "ada"); !strings.Contains(out, handle) {
		t.Errorf("sessions list: %s", out)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(run(0, "", "sessions", "list", "--json")), &list); err != nil || len(list) != 1 || list[0]["handle"] != handle {
		t.Errorf("sessions list --json: %v %v", err, list)
	}
	if out := run(0, "", "sessions", "show", handle); !strings.Contains(out, "ada") {
		t.Errorf("sessions show: %s", out)
	}
	run(1, "", "sessions", "show", "aaaaaaaaaaaaaaaaaaaaaaaaaa")
	run(0, "", "sessions", "revoke", handle)
	s.wantClose(4401, "revoked")
	ada.login(r.url, "ada")
	again := ada.open(r.url, "cli")
	run(0, "", "sessions", "revoke", "--user", "ada")
	again.wantClose(4401, "revoked")
	run(0, "", "users", "remove", "ada")
	if code, out := runTandem(t, "x\n", "users", "add", "x", "--password-stdin"); code != 1 || !strings.Contains(out, "embedded") {
		t.Errorf("users add without a Redis: exit %d: %s", code, out)
	}
}
