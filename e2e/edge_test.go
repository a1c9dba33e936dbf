package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// upstream shows the headers it got, and echoes on a socket.
func upstream(t *testing.T) *httptest.Server {
	t.Helper()
	up := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if websocket.IsWebSocketUpgrade(r) {
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				kind, b, err := c.ReadMessage()
				if err != nil {
					return
				}
				if err := c.WriteMessage(kind, b); err != nil {
					return
				}
			}
		}
		fmt.Fprintf(w, "%s %s\n", r.Method, r.URL.Path)
		_ = r.Header.Write(w)
	}))
	t.Cleanup(s.Close)
	return s
}

// One file: a listener that routes files, an upstream, documents and the web app, and two more listeners, one
// all-upstream, one all-files.
func TestOneConfiguration(t *testing.T) {
	redis := redistest.Start(t)
	up := upstream(t)
	root := t.TempDir()
	writeFile(t, root+"/hello.txt", "hello file")
	outside := filepath.Join(t.TempDir(), "secret.txt")
	writeFile(t, outside, "secret")
	if err := os.Symlink(outside, root+"/link.txt"); err != nil {
		t.Fatal(err)
	}
	allUp, allFiles := freeAddress(t), freeAddress(t)
	r := startReplica(t, settings{
		redis: redis.URL(),
		routes: fmt.Sprintf("      - {path: /assets/, files: {root: %s}}\n      - {path: /private/, upstream: {targets: [%q], login: required}}\n      - {path: /open/, upstream: {targets: [%q]}}\n      - {host: api.example.test, path: /, upstream: {targets: [%q]}}\n",
			root, up.URL, up.URL, up.URL) + defaultRoutes,
		lists: fmt.Sprintf("  - {address: %s, upstream: {targets: [%q]}}\n  - {address: %s, files: {root: %s}}\n", allUp, up.URL, allFiles, root),
	})
	ada, nobody := newPerson(t), newPerson(t)
	ada.register(r.url, "ada")

	t.Run("files", func(t *testing.T) {
		for _, u := range []string{r.url + "/assets/hello.txt", "http://" + allFiles + "/hello.txt"} {
			if a := nobody.get(u); a.status != http.StatusOK || a.body != "hello file" || a.header.Get("ETag") == "" {
				t.Errorf("%s: %d %q ETag %q", u, a.status, a.body, a.header.Get("ETag"))
			}
		}
		for _, path := range []string{"/link.txt", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/..%5csecret.txt", "/hello.txt%00", "//../secret.txt"} {
			if got := rawGet(t, allFiles, path); strings.Contains(got, "secret\n") || strings.HasPrefix(got, "HTTP/1.1 200") || strings.HasPrefix(got, "HTTP/1.1 5") {
				t.Errorf("%s: %s", path, got)
			}
		}
	})
	t.Run("all upstream", func(t *testing.T) {
		if a := nobody.get("http://" + allUp + "/anything"); a.status != http.StatusOK || !strings.Contains(a.body, "GET /anything") {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	t.Run("host", func(t *testing.T) {
		req := nobody.request(http.MethodGet, r.url+"/login", nil)
		req.Host = "api.example.test"
		if a := nobody.do(req); !strings.Contains(a.body, "GET /login") {
			t.Errorf("%d %s", a.status, tail(a.body, 200))
		}
	})
	t.Run("login required", func(t *testing.T) {
		a := nobody.page(r.url + "/private/x?y=1")
		location, err := url.Parse(a.header.Get("Location"))
		if err != nil || a.status != http.StatusSeeOther && a.status != http.StatusFound || location.Path != "/login" || location.Query().Get("next") != "/private/x?y=1" {
			t.Errorf("a browser: %d %s", a.status, a.header.Get("Location"))
		}
		if a := nobody.get(r.url + "/private/x"); a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("a program: %d %s", a.status, a.header.Get("Content-Type"))
		}
		if a := ada.get(r.url + "/private/x"); a.status != http.StatusOK || !strings.Contains(a.body, "X-Tandem-User-Name: ada") {
			t.Errorf("logged in: %d %s", a.status, a.body)
		}
	})
	t.Run("identity cannot be forged", func(t *testing.T) {
		for _, p := range []*person{ada, nobody} {
			req := p.request(http.MethodGet, r.url+"/open/x", nil)
			for _, name := range []string{"X-Tandem-User", "x-tandem-user-name", "X_Tandem_User", "X-TANDEM-SESSION", "X_TANDEM-Session", "X-Tandem_User"} {
				req.Header[name] = []string{"forged"}
			}
			a := p.do(req)
			if strings.Contains(a.body, "forged") || a.status != http.StatusOK {
				t.Errorf("%d %s", a.status, a.body)
			}
			if strings.Contains(a.body, "tandem=") {
				t.Errorf("the session cookie reached the upstream: %s", a.body)
			}
			if !strings.Contains(a.body, "X-Request-Id: ") {
				t.Errorf("no request ID: %s", a.body)
			}
		}
		handle := ada.session(r.url).Handle
		if a := ada.get(r.url + "/open/x"); !strings.Contains(a.body, "X-Tandem-Session: "+handle) {
			t.Errorf("no handle: %s", a.body)
		}
	})
	t.Run("two framings", func(t *testing.T) {
		for _, address := range []string{allUp, allFiles} {
			got := rawRequest(t, address, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "framing") || strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("%s: %s", address, got)
			}
		}
	})
	t.Run("half a body", func(t *testing.T) { // rawRequest returns once the connection has ended
		got := rawRequest(t, allFiles, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
		if !strings.HasPrefix(got, "HTTP/1.1 405 ") || strings.Count(got, "HTTP/1.1 ") != 1 {
			t.Error(got)
		}
	})
	t.Run("sockets pass through", func(t *testing.T) {
		c, _, err := websocket.DefaultDialer.Dial("ws://"+allUp+"/echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.WriteMessage(websocket.TextMessage, []byte("through")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.ReadMessage(); err != nil || string(b) != "through" {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("admin", func(t *testing.T) { testAdmin(t, r, ada) })
}

func testAdmin(t *testing.T, r *replica, ada *person) {
	s := ada.open(r.url, "admin-doc")
	id := ada.session(r.url).User.ID
	var list struct {
		Items []map[string]any `json:"items"`
	}
	if code := r.adminJSON(http.MethodGet, "connections", nil, &list); code != http.StatusOK || len(list.Items) == 0 {
		t.Errorf("connections: %d %v", code, list)
	}
	if code := r.adminJSON(http.MethodGet, "sessions?user=ada", nil, &list); code != http.StatusOK || len(list.Items) != 1 || list.Items[0]["sockets"] != 1.0 {
		t.Errorf("sessions by name: %d %v", code, list)
	}
	if code := r.adminJSON(http.MethodGet, "sessions?user="+id, nil, &list); code != http.StatusOK || len(list.Items) != 1 {
		t.Errorf("sessions by ID: %d %v", code, list)
	}
	var ack map[string]any
	op := map[string]any{"id": "backend-1", "payload": map[string]any{"from": "backend"}}
	if code := r.adminJSON(http.MethodPost, "documents/admin-doc/operations", op, &ack); code != http.StatusOK || ack["seq"] != 1.0 || ack["duplicate"] != false {
		t.Errorf("publish: %d %v", code, ack)
	}
	s.wantThat("operation", func(f frame) bool { return f.fields["id"] == "backend-1" })
	if code := r.adminJSON(http.MethodPost, "documents/admin-doc/operations", op, &ack); code != http.StatusOK || ack["duplicate"] != true {
		t.Errorf("publish again: %d %v", code, ack)
	}
	var doc map[string]any
	if code := r.adminJSON(http.MethodGet, "documents/admin-doc", nil, &doc); code != http.StatusOK || doc["seq"] != 1.0 {
		t.Errorf("document: %d %v", code, doc)
	}
	if resp, err := http.Get(r.admin + "/admin/v1/connections"); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %v %v", resp, err)
	}
	resp, err := http.Get(r.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(metrics), "tandem_redis_up 1") || sessionID.Match(metrics) {
		t.Errorf("metrics: %v\n%s", err, tail(string(metrics), 1000))
	}
	if code := r.adminJSON(http.MethodDelete, "sessions/aaaaaaaaaaaaaaaaaaaaaaaaaa", nil, nil); code != http.StatusNotFound {
		t.Errorf("unknown handle: %d", code)
	}
	if code := r.adminJSON(http.MethodDelete, "sessions/"+ada.session(r.url).Handle, nil, nil); code/100 != 2 {
		t.Errorf("revoke: %d", code)
	}
	s.wantClose(4401, "revoked")
}

// rawGet sends a request line that no client library would.
func rawGet(t *testing.T, address, path string) string {
	t.Helper()
	return rawRequest(t, address, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path))
}

// rawRequest sends bytes that no client library would and returns the whole answer.
func rawRequest(t *testing.T, address, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An upstream that talks after its answer is reported by net/http through the process's own logger: machines can read
// that too (the harness looks at every line).
func TestLogStaysJSON(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbanner")
			}
			defer c.Close()
		}
	}()
	routes := fmt.Sprintf("      - {path: /chatty, upstream: {targets: [\"http://%s\"]}}\n", l.Addr()) + defaultRoutes
	r := startReplica(t, settings{redis: redistest.Start(t).URL(), routes: routes})
	p := newPerson(t)
	eventually(t, 10*time.Second, func() error {
		if a := p.get(r.url + "/chatty"); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		if !strings.Contains(r.out.String(), "Unsolicited response") {
			return errors.New("net/http has not noticed yet")
		}
		return nil
	})
}
