package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// publicRoutes adds a route that needs no session.
func publicRoutes(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	writeFile(t, root+"/hello.txt", "static, always")
	return fmt.Sprintf("      - {path: /assets/, files: {root: %s}}\n", root) + defaultRoutes
}

// A Redis that closes idle clients must not be noticed by anybody.
func TestRedisClosesIdleClients(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...string) *redistest.Server{"tcp": redistest.Start, "tls": redistest.TLS} {
		t.Run(name, func(t *testing.T) {
			redis := start(t)
			r := startReplica(t, settings{redis: redis.URL(), more: "redis_check_every: 500ms\n"})
			ada := newPerson(t)
			ada.register(r.url, "ada")
			s := ada.open(r.url, "idle")

			admin := redis.Client(t)
			if err := admin.ConfigSet(t.Context(), "timeout", "1").Err(); err != nil {
				t.Fatal(err)
			}
			closedIdle := func() int {
				info, err := admin.Info(t.Context(), "clients").Result()
				if err != nil {
					t.Fatal(err)
				}
				return infoInt(t, info, "connected_clients")
			}
			before := closedIdle()
			eventually(t, 20*time.Second, func() error {
				if now := closedIdle(); now >= before {
					return fmt.Errorf("%d clients connected, %d before: none was closed yet", now, before)
				}
				return nil
			})

			if a := ada.page(r.url + "/account"); a.status != http.StatusOK {
				t.Errorf("the next page: %d %s", a.status, tail(a.body, 300))
			}
			s.send(map[string]any{"type": "session_set", "id": "1", "set": map[string]any{"chat.name": "still here"}})
			s.want("session")
			s.operation("after-idle", "hello")
			if got := ada.session(r.url).Values["chat.name"]; got != "still here" {
				t.Errorf("chat.name is %v", got)
			}
		})
	}
}

// A middlebox that silently forgot the flows: nothing is answered, nothing refused.
func TestMiddleboxDropsIdleFlows(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...string) *redistest.Server{"tcp": redistest.Start, "tls": redistest.TLS} {
		t.Run(name, func(t *testing.T) {
			redis := start(t)
			link := redistest.NewLink(t, redis.Addr())
			u := strings.Replace(redis.URL(), redis.Addr(), link.Addr(), 1)
			r := startReplica(t, settings{redis: u, more: "redis_check_every: 500ms\n"})
			ada := newPerson(t)
			ada.register(r.url, "ada")
			s := ada.open(r.url, "flows")

			link.DropIdle()
			wait(t, 700*time.Millisecond) // longer than redis_check_every: that is the case under test
			if a := ada.page(r.url + "/account"); a.status != http.StatusOK {
				t.Errorf("the next page: %d %s", a.status, tail(a.body, 300))
			}
			s.operation("after-drop", "hello")
			s.want("operation") // the subscription heals too
		})
	}
}

// Redis gone: public routes serve on, session routes answer 503, sockets stay open and say so. Back: all goes on.
func TestRedisGoneAndBack(t *testing.T) {
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always", "--dir", t.TempDir())
	r := startReplica(t, settings{redis: redis.URL(), routes: publicRoutes(t)})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	s := ada.open(r.url, "outage")
	s.operation("before", 1)
	s.want("operation")
	handle := ada.session(r.url).Handle

	redis.Kill()
	r.waitStatus("/readyz", http.StatusServiceUnavailable, 10*time.Second)
	if f := s.want("status"); f.fields["redis"] != "down" {
		t.Errorf("status: %s", f.raw)
	}
	r.waitStatus("/livez", http.StatusOK, time.Second)
	if a := ada.get(r.url + "/assets/hello.txt"); a.status != http.StatusOK || a.body != "static, always" {
		t.Errorf("a static file: %d %q", a.status, a.body)
	}
	if a := newPerson(t).page(r.url + "/login"); a.status != http.StatusOK {
		t.Errorf("the login form: %d", a.status)
	}
	for _, path := range []string{"/api/session", "/account", "/documents/outage"} {
		a := ada.get(r.url + path)
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q", path, a.status, a.header.Get("Retry-After"))
		}
	}
	if a := ada.page(r.url + "/account"); a.status != http.StatusServiceUnavailable || strings.Contains(a.body, "dial tcp") {
		t.Errorf("page: %d %s", a.status, tail(a.body, 300))
	}
	s.send(map[string]any{"type": "operation", "id": "refused", "payload": 2})
	if f := s.wantError("UNAVAILABLE"); f.fields["re"] != "refused" || f.number("retry_after_ms") <= 0 {
		t.Errorf("refused operation: %s", f.raw)
	}
	if _, resp := ada.dial(r.url, "/ws/documents/outage", nil); resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Error("a new socket was accepted without Redis")
	}

	redis.Restart()
	r.waitStatus("/readyz", http.StatusOK, 20*time.Second)
	s.wantThat("status", func(f frame) bool { return f.fields["redis"] == "up" })
	if f := s.operation("refused", 2); f.fields["duplicate"] != false {
		t.Errorf("sent again after the outage: %s", f.raw)
	}
	s.wantThat("operation", func(f frame) bool { return f.fields["id"] == "refused" })
	if got := ada.session(r.url); got.User == nil || got.Handle != handle {
		t.Errorf("the session after the outage: %+v", got)
	}
	s.send(map[string]any{"type": "ping"})
	s.want("pong")
}

// A replica started before its Redis serves what needs none and gets ready by itself.
func TestStartedBeforeRedis(t *testing.T) {
	redis := redistest.Start(t)
	redis.Stop()
	r := startReplica(t, settings{redis: redis.URL(), routes: publicRoutes(t), notUp: true})
	if a := newPerson(t).get(r.url + "/assets/hello.txt"); a.status != http.StatusOK {
		t.Errorf("a static file: %d", a.status)
	}
	ada := newPerson(t)
	for _, path := range []string{"/api/session", "/account", "/documents/x"} { // without a cookie
		if a := ada.get(r.url + path); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s without Redis: %d, Retry-After %q", path, a.status, a.header.Get("Retry-After"))
		}
	}
	if a := ada.sendJSON(http.MethodPatch, r.url+"/api/session", map[string]any{"set": map[string]any{"chat.name": "x"}}); a.status != http.StatusServiceUnavailable {
		t.Errorf("PATCH without Redis: %d", a.status)
	}
	r.waitStatus("/readyz", http.StatusServiceUnavailable, 5*time.Second)
	redis.Restart()
	r.waitStatus("/readyz", http.StatusOK, 20*time.Second)
	ada.register(r.url, "ada")
	ada.open(r.url, "late").operation("1", "works")
}

// A logout while a replica was cut off from Redis reaches its sockets once it is back.
func TestLogoutDuringCut(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	link := redistest.NewLink(t, redis.Addr())
	a := startReplica(t, settings{redis: redis.URL()})
	b := startReplica(t, settings{redis: strings.Replace(redis.URL(), redis.Addr(), link.Addr(), 1), more: "session: {verify_every: 2s}\n"})
	ada := newPerson(t)
	ada.register(a.url, "ada")
	s := ada.open(b.url, "cut")
	link.Cut()
	s.wantThat("status", func(f frame) bool { return f.fields["redis"] == "down" })
	if r := ada.post(a.url+"/logout", nil); r.status != http.StatusSeeOther {
		t.Fatalf("logout: %d", r.status)
	}
	link.Heal()
	s.wantClose(4401, "logout")
}

// A replica that is killed leaves no ghosts, and nothing that was acknowledged is lost.
func TestKilledReplica(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startReplica(t, settings{redis: redis.URL()}), startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(a.url, "ada")
	onA := ada.open(a.url, "ghosts")
	onB := ada.open(b.url, "ghosts")
	onA.want("presence") // the join is announced with the next tick, and is what must vanish
	var acked []string
	for i := range 20 {
		id := "op" + strconv.Itoa(i)
		onA.operation(id, i)
		acked = append(acked, id)
	}
	killed := time.Now()
	a.kill()
	onB.wantThat("presence", func(f frame) bool {
		left, _ := f.fields["left"].([]any)
		return len(left) == 1
	})
	if took := time.Since(killed); took > 15*time.Second {
		t.Errorf("the ghost stayed for %v", took)
	}
	again := ada.authenticated(b.url, "ghosts")
	again.send(map[string]any{"type": "join_document"})
	joined := again.want("joined_document")
	operations, _ := joined.fields["operations"].([]any)
	if len(operations) != len(acked) {
		t.Errorf("%d operations in the log, %d acknowledged", len(operations), len(acked))
	}
	if present, _ := joined.fields["presence"].([]any); len(present) != 2 {
		t.Errorf("presence: %v", present)
	}
}

// SIGTERM: not ready, sockets told to come back and closed with 1012, exit 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL(), more: "drain: {timeout: 5s, spread: 1s}\n"})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	s := ada.open(r.url, "drain")
	r.signal(syscall.SIGTERM)
	if f := s.want("reconnect"); f.number("after_ms") < 0 {
		t.Errorf("reconnect: %s", f.raw)
	}
	late := newPerson(t)
	if again, resp := late.dial(r.url, "/ws/documents/drain", nil); again != nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new socket while draining: %v", resp)
	}
	if a := ada.page(r.url + "/account"); a.status != http.StatusOK { // balancers need their time to notice
		t.Errorf("a page while draining: %d", a.status)
	}
	s.wantClose(1012, "")
	<-r.done
	if r.err != nil {
		t.Errorf("exit after SIGTERM: %v", r.err)
	}
}

// No configuration, no Redis: everything runs, and says where.
func TestWithoutConfiguration(t *testing.T) {
	address, admin := freeAddress(t), freeAddress(t)
	p := startProcess(t, "tandem embedded", nil, binaries.tandem, "serve", "--listen", address, "--admin", admin)
	r := &replica{process: p, url: "http://" + address, admin: "http://" + admin}
	r.waitStatus("/readyz", http.StatusOK, 20*time.Second)
	if out := p.out.String(); !strings.Contains(out, "http://"+address) || !strings.Contains(strings.ToLower(out), "embedded") {
		t.Errorf("the start names neither the URL nor the embedded Redis:\n%s", out)
	}
	ada := newPerson(t)
	ada.register(r.url, "ada")
	s := ada.open(r.url, "notes")
	s.operation("1", "hello")
	s.want("operation")
	crowd := make([]*socket, 64) // whose loads go in pipelines that are longer than what the server reads at a time
	var joins []func() error
	for i := range crowd {
		crowd[i], _ = ada.dial(r.url, "/ws/documents/notes", nil)
		joins = append(joins, func() error {
			for _, kind := range []string{"authenticate", "join_document"} {
				f, err := crowd[i].try(kind, map[string]any{"type": kind}, func(frame) {})
				if err != nil || f.kind() == "error" {
					return fmt.Errorf("socket %d, %s: %s %w", i, kind, f.raw, err)
				}
			}
			return nil
		})
	}
	together(t, joins...)
	ada.post(r.url+"/logout", nil)
	for _, s := range append(crowd, s) {
		s.wantClose(4401, "logout")
	}
}

func infoInt(t *testing.T, info, key string) int {
	t.Helper()
	for line := range strings.SplitSeq(info, "\r\n") {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.Atoi(v)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("INFO has no %s", key)
	return 0
}

// wait lets wall-clock time pass where time itself is what is tested in another process.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
