package e2e

import (
	"bufio"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// planted is a cookie value that Tandem never issued.
type planted struct {
	name, value string
	trace       string // what nobody may repeat; empty: value
	wellFormed  bool   // may be looked up, since only that tells
}

func (p planted) needle() string {
	if p.trace != "" {
		return p.trace
	}
	return p.value
}

// plantedIDs are values of all kinds: chosen, malformed, long, with control characters, names of keys that exist.
func plantedIDs(real, handle string) []planted {
	id := func(of string) string {
		return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(strings.Repeat(of, 8)))
	}
	chosen, other := id("fixation"), id("planting")
	return []planted{
		{name: "chosen", value: chosen, wellFormed: true},
		{name: "too short", value: other[:102]},
		{name: "too long", value: other + "A"},
		{name: "lower case", value: strings.ToLower(other)},
		{name: "wrong alphabet", value: other[:50] + "1" + other[51:]},
		{name: "somebody's, and more", value: real + "A"},
		{name: "somebody's, quoted twice", value: `""` + real + `""`, trace: `"` + real},
		{name: "somebody's, escaped", value: "%" + fmt.Sprintf("%x", real[0]) + real[1:]},
		{name: "somebody's handle", value: handle, trace: "session:" + handle},
		{name: "10 kB", value: strings.Repeat("B", 10_000), trace: strings.Repeat("B", 100)},
		{name: "200 kB", value: strings.Repeat("C", 200_000), trace: strings.Repeat("C", 100)},
		{name: "NUL", value: "fix\x00ation1", trace: "ation1"},
		{name: "DEL and escape", value: "fix\x7f\x1bation2", trace: "ation2"},
		{name: "line feed, escaped", value: "fix%0d%0aSet-Cookie:%20x=ation3", trace: "ation3"},
		{name: "not UTF-8", value: "fix\xff\xfeation4", trace: "ation4"},
		{name: "beyond ASCII", value: "fix…ation5", trace: "ation5"},
		{name: "a glob", value: "fix*ation6", trace: "ation6"},
		{name: "a path", value: "../../fix/ation7", trace: "ation7"},
		{name: "Lua", value: "'..redis.call('KEYS','fixation8')..'", trace: "fixation8"},
		{name: "a hash tag", value: "{fixation9}"},
		{name: "the accounts", value: "tandem:accounts", trace: "session:tandem:accounts"},
		{name: "an account", value: "tandem:account:{ada}", trace: "session:tandem:account"},
		{name: "a session's key", value: "session:" + real, trace: "session:session:"},
		{name: "a handle's key", value: "tandem:handle:{" + handle + "}", trace: "session:tandem:handle"},
		{name: "a tombstone", value: "tandem:end:{session:" + real + "}", trace: "session:tandem:end"},
	}
}

// Nobody can give a browser a session ID that Tandem then uses: it is not adopted, not echoed, and unless it has the
// form of an ID not looked up, at whatever door it is presented.
func TestFixation(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	corpus := plantedIDs(ada.sessionID(r.url), ada.session(r.url).Handle)
	monitor := startMonitor(t, redis)

	for _, p := range corpus {
		t.Run(p.name, func(t *testing.T) {
			for _, door := range []struct{ method, path, kind, body string }{
				{"GET", "/", "", ""}, {"GET", "/account", "", ""}, {"GET", "/documents/x", "", ""}, {"GET", "/login", "", ""},
				{"GET", "/api/session", "", ""}, {"POST", "/api/session/renew", "", ""}, {"POST", "/api/tickets", "", ""},
				{"PATCH", "/api/session", "application/json", `{"set":{"chat.name":"mallory"}}`},
				{"POST", "/logout", "", ""},
				{"POST", "/account/sessions/revoke-others", "", ""},
				{"POST", "/login", "application/x-www-form-urlencoded", url.Values{"username": {"ada"}, "password": {password}}.Encode()},
			} {
				testPlanted(t, r, p, door.method, door.path, door.kind, door.body)
			}
			testPlantedSocket(t, r, p)
		})
	}

	if s := ada.session(r.url); s.User == nil {
		t.Error("the real session did not survive")
	}
	seen := monitor.stop()
	for _, p := range corpus {
		if p.wellFormed && !strings.Contains(seen, p.value) {
			t.Errorf("%s: not looked up: nothing was watched", p.name)
		}
		if !p.wellFormed && strings.Contains(seen, p.needle()) {
			t.Errorf("%s: looked up as given", p.name)
		}
	}
	rdb := redis.Client(t)
	for it := rdb.Scan(t.Context(), 0, "*", 1000).Iterator(); it.Next(t.Context()); {
		for _, p := range corpus {
			if strings.Contains(it.Val(), p.needle()) {
				t.Errorf("%s: adopted", p.name)
			}
		}
	}
}

// testPlanted sends one request as any client could: by hand, so that nothing is cleaned up on the way.
func testPlanted(t *testing.T, r *replica, p planted, method, path, kind, body string) {
	t.Helper()
	door := method + " " + path
	resp, text := sendRaw(t, r.url, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nCookie: tandem=%s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		method, path, strings.TrimPrefix(r.url, "http://"), p.value, kind, len(body), body))
	if resp == nil { // a request that is no HTTP may be dropped without an answer
		return
	}
	if resp.StatusCode >= 500 {
		t.Errorf("%s: %d", door, resp.StatusCode)
	}
	if strings.Contains(text, p.needle()) {
		t.Errorf("%s: echoed", door)
	}
	set := strings.Join(resp.Header["Set-Cookie"], "\n")
	if resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge {
		if set != "" {
			t.Errorf("%s: a refused request got a cookie", door)
		}
		return
	}
	switch door {
	case "POST /login", "PATCH /api/session": // makes a session, under an ID of Tandem's own
		if id := sessionID.FindString(set); id == "" || id == p.value || !strings.Contains(set, "HttpOnly") || !strings.Contains(set, "SameSite=Lax") {
			t.Errorf("%s: %d, the cookie that is set is not a fresh one: %s", door, resp.StatusCode, sessionID.ReplaceAllString(set, "ID"))
		}
	case "POST /api/tickets", "POST /api/session/renew":
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d", door, resp.StatusCode)
		}
		fallthrough
	default:
		if sessionID.MatchString(set) {
			t.Errorf("%s: sets a session cookie", door)
		}
	}
}

// sendRaw sends the bytes of a request on a connection of its own. Without an answer the response is nil.
func sendRaw(t *testing.T, base, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, request) // a refusal may come before all is sent
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body) // cut short where the connection was reset
	var head strings.Builder
	if err := resp.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	return resp, head.String() + string(b)
}

// testPlantedSocket presents the value in the upgrade, and as a ticket.
func testPlantedSocket(t *testing.T, r *replica, p planted) {
	t.Helper()
	if strings.ContainsFunc(p.value, func(c rune) bool { return c < 0x20 || c == 0x7f }) || len(p.value) > 4096 {
		return // no client library sends it; the pages have had it
	}
	for _, authenticate := range []map[string]any{
		{"type": "authenticate"}, {"type": "authenticate", "ticket": strings.ToValidUTF8(p.value, "?")},
	} {
		s, resp := newPerson(t).dial(r.url, "/ws/documents/fixation", http.Header{"Cookie": {"tandem=" + p.value}})
		if s == nil {
			if resp.StatusCode >= 500 {
				t.Errorf("upgrade: %d", resp.StatusCode)
			}
			continue
		}
		s.want("hello")
		s.send(authenticate)
		if f := s.want("auth_result"); f.fields["ok"] != false || strings.Contains(f.raw, p.needle()) {
			t.Errorf("authenticate: %s", f.raw)
		}
		s.wantClose(4401, "")
	}
}

// monitor collects every command that a Redis gets.
type monitor struct {
	t    *testing.T
	rdb  *redis.Client
	conn net.Conn
	seen output
	done sync.WaitGroup
}

func startMonitor(t *testing.T, server *redistest.Server) *monitor {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{t: t, rdb: server.Client(t), conn: conn}
	if _, err := io.WriteString(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	m.done.Go(func() { _, _ = io.Copy(&m.seen, conn) }) // until it is closed
	t.Cleanup(func() { _ = conn.Close(); m.done.Wait() })
	m.reach("the monitor begins")
	return m
}

// reach waits until the monitor has shown a command sent now.
func (m *monitor) reach(mark string) {
	m.t.Helper()
	eventually(m.t, 10*time.Second, func() error {
		if err := m.rdb.Echo(m.t.Context(), mark).Err(); err != nil {
			return err
		}
		if !strings.Contains(m.seen.String(), mark) {
			return errors.New("the monitor shows nothing")
		}
		return nil
	})
}

// stop returns what was collected.
func (m *monitor) stop() string {
	m.t.Helper()
	m.reach("the monitor ends")
	_ = m.conn.Close()
	m.done.Wait()
	return m.seen.String()
}

// A session that is Tandem's own, but not the victim's: whoever planted it must not be the victim afterwards.
func TestPlantedSession(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a := startReplica(t, settings{redis: redis.URL(), more: "webapp: {registration: open}\n"})
	b := startReplica(t, settings{redis: redis.URL()})
	newPerson(t).register(a.url, "ada")
	mallory := newPerson(t)
	mallory.register(a.url, "mallory")

	t.Run("anonymous", func(t *testing.T) {
		attacker, victim := newPerson(t), newPerson(t)
		if r := attacker.sendJSON(http.MethodPatch, a.url+"/api/session", map[string]any{"set": map[string]any{"chat.name": "bait"}}); r.status != http.StatusOK {
			t.Fatalf("PATCH: %d", r.status)
		}
		plant(t, victim, a.url, attacker)
		handle := attacker.session(a.url).Handle
		attacker = attacker.frozen(a.url)
		victim.login(a.url, "ada")
		if s := victim.session(b.url); s.User == nil || s.Handle != handle || s.Values["chat.name"] != "bait" {
			t.Errorf("a login keeps what the visitor had: %+v", s)
		}
		worthless(t, attacker, a.url, b.url)
	})
	t.Run("of another user", func(t *testing.T) {
		victim := newPerson(t)
		mallory.sendJSON(http.MethodPatch, a.url+"/api/session", map[string]any{"set": map[string]any{"chat.name": "bait"}})
		sock := mallory.authenticated(b.url, "planted")
		plant(t, victim, a.url, mallory)
		handle := mallory.session(a.url).Handle
		attacker := mallory.frozen(a.url)
		victim.login(a.url, "ada")
		if s := victim.session(b.url); s.User == nil || s.User.Name != "ada" || s.Handle == handle || len(s.Values) > 1 {
			t.Errorf("the victim's session: %+v", s)
		}
		sock.wantClose(4401, "logout")
		worthless(t, attacker, a.url, b.url)
	})
}

// plant gives victim the cookies of attacker.
func plant(t *testing.T, victim *person, base string, attacker *person) {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	victim.http.Jar.SetCookies(u, attacker.cookies(base))
}

// worthless checks that nobody is logged in by the person's cookie, at no door, and that it makes nobody so.
func worthless(t *testing.T, p *person, bases ...string) {
	t.Helper()
	for _, base := range bases {
		if s := p.session(base); s.User != nil || s.Handle != "" {
			t.Errorf("GET /api/session: %+v", s)
		}
		for _, path := range []string{"/api/session/renew", "/api/tickets"} {
			if r := p.post(base+path, nil); r.status != http.StatusUnauthorized || sessionID.MatchString(strings.Join(r.header["Set-Cookie"], " ")) {
				t.Errorf("%s: %d", path, r.status)
			}
		}
		s, _ := p.dial(base, "/ws/documents/planted", nil)
		s.want("hello")
		s.send(map[string]any{"type": "authenticate"})
		if f := s.want("auth_result"); f.fields["ok"] != false {
			t.Errorf("a socket: %s", f.raw)
		}
		s.wantClose(4401, "")
	}
}
