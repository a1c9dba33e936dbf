//go:build slow

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// startExpress runs e2e/apps/express with its packages from npm.
func startExpress(t *testing.T) (address string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("apps/express")); err != nil {
		t.Fatal(err)
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	address = freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	startProcess(t, "express", []string{"PORT=" + port}, "node", dir+"/app.js")
	return address
}

func startPHP(t *testing.T) (address string) {
	t.Helper()
	address = freeAddress(t)
	startProcess(t, "php", nil, "php", "-S", address, "apps/app.php")
	return address
}

// Applications in other languages log users in and out by a response header, and everything else follows: pages and
// sockets of Tandem, on another replica too, and sockets to a third application.
func TestApplicationsInOtherLanguages(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{"express": startExpress, "php": startPHP} {
		t.Run(name, func(t *testing.T) {
			redis := redistest.Start(t)
			app, live := start(t), upstream(t)
			eventually(t, 30*time.Second, func() error {
				resp, err := http.Get("http://" + app + "/app/me")
				if err != nil {
					return err
				}
				return resp.Body.Close()
			})
			s := settings{
				redis: redis.URL(),
				routes: fmt.Sprintf("      - {path: /app/, upstream: {targets: ['http://%s'], session_write: true}}\n"+
					"      - {path: /live/, upstream: {targets: [%q], login: required}}\n", app, live.URL) + defaultRoutes,
			}
			testOtherApp(t, startReplica(t, s), startReplica(t, s))
		})
	}
}

// appUser is what the application was told.
type appUser struct {
	User    *string
	Name    string
	Session string
	Headers string
}

func testOtherApp(t *testing.T, here, there *replica) {
	visitor := newPerson(t)
	me := func() (u appUser) {
		t.Helper()
		if a := visitor.get(here.url + "/app/me"); json.Unmarshal([]byte(a.body), &u) != nil {
			t.Fatalf("me: %d %s", a.status, a.body)
		}
		return u
	}
	post := func(path string, form url.Values, want int) {
		t.Helper()
		a := visitor.post(here.url+"/app/"+path, form)
		if a.status != want || strings.Contains(fmt.Sprint(a.header), "Session-Set") {
			t.Fatalf("%s: %d %v %s", path, a.status, a.header, a.body)
		}
	}
	post("cart", url.Values{"item": {"book"}}, http.StatusOK)
	anonymous := me()
	if anonymous.User != nil || anonymous.Session == "" {
		t.Errorf("a visitor with a cart: %+v", anonymous)
	}
	post("login", url.Values{"name": {"Zoë"}}, http.StatusSeeOther)
	u := me()
	if u.User == nil || *u.User != "app-Zo%C3%AB" || u.Name != "Zoë" || u.Session != anonymous.Session {
		t.Errorf("logged in: %+v, was %+v", u, anonymous)
	}
	if s := visitor.session(there.url); s.User == nil || s.User.ID != "app-Zoë" || s.User.Name != "Zoë" || s.Handle != u.Session {
		t.Errorf("on the other replica: %+v", s)
	}

	socket := visitor.open(there.url, "shared")
	header := http.Header{}
	for _, c := range visitor.cookies(here.url) {
		header.Add("Cookie", c.String())
	}
	proxied, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(here.url, "http")+"/live/x", header)
	if err != nil {
		t.Fatal(err)
	}
	defer proxied.Close()
	post("name", url.Values{"name": {"Zoë von und zu"}}, http.StatusOK)
	if f := socket.want("session_changed"); f.fields["set"].(map[string]any)["chat.name"] != "Zoë von und zu" {
		t.Errorf("the socket hears %s", f.raw)
	}

	post("login", url.Values{"name": {"Zoë"}}, http.StatusSeeOther) // again: a new ID, the same session and sockets
	socket.operation("1", "still here")
	testForgedToApp(t, here, visitor, u)

	post("logout", nil, http.StatusSeeOther)
	socket.wantClose(4401, "logout")
	_ = proxied.SetReadDeadline(time.Now().Add(20 * time.Second))
	var closed *websocket.CloseError
	if _, _, err := proxied.ReadMessage(); !errors.As(err, &closed) || closed.Code != 4401 || closed.Text != "logout" {
		t.Errorf("the socket to the upstream: %v", err)
	}
	if s := visitor.session(there.url); s.User != nil || me().User != nil {
		t.Errorf("after the logout: %+v", s)
	}
}

// testForgedToApp sends identity headers in every spelling that a server behind could take for the real ones.
func testForgedToApp(t *testing.T, r *replica, p *person, real appUser) {
	t.Helper()
	cookie := ""
	for _, c := range p.cookies(r.url) {
		cookie += "Cookie: " + c.String() + "\r\n"
	}
	address := strings.TrimPrefix(r.url, "http://")
	for _, name := range []string{"X-Tandem-User", "x-tandem-user", "X-TANDEM-USER", "X_Tandem_User", "x_tandem_user", "X-Tandem_User", "X.Tandem.User", "X~Tandem~User", "X-Tandem-Session", "X_TANDEM_SESSION", "X-Tandem-User-Name", "X-Tandem-Assertion", "X-Tandem-Anything"} {
		for _, line := range []string{name + ": forged", name + ":forged", name + ":\tforged \t", name + ": a\r\n" + name + ": forged", name + ":\r\n forged", name + " : forged", "Connection: close, " + name + "\r\n" + name + ": forged"} {
			for _, who := range []string{"", cookie} {
				got := rawRequest(t, address, "GET /app/me HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n"+who+line+"\r\n\r\n")
				if strings.HasPrefix(got, "HTTP/1.1 400") {
					continue // no header at all
				}
				if !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "forged") {
					t.Errorf("%q: %s", line, got)
				}
				if known := strings.Contains(got, real.Session); known != (who != "") {
					t.Errorf("%q, cookie %v: the application knows the session: %v", line, who != "", known)
				}
			}
		}
	}
}
