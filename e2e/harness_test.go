// Package e2e drives the running binary from outside: pages with a cookie jar, sockets, a browser, Redis over a link
// that can be cut. Nothing here reaches into the packages under test.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var binaries struct{ dir, tandem, stockapp string }

// plainTandem is the binary without the race detector.
var plainTandem = sync.OnceValues(func() (string, error) {
	out := filepath.Join(binaries.dir, "tandem-plain")
	if b, err := exec.Command("go", "build", "-o", out, "../cmd/tandem").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building it: %w\n%s", err, b)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests here wait for processes more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("6")
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tandem-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if os.Getenv("TANDEM_E2E_URL") == "" { // else it runs elsewhere
			binaries.dir, binaries.tandem = dir, filepath.Join(dir, "tandem")
			binaries.stockapp = filepath.Join(dir, "stockapp")
			for out, pkg := range map[string]string{binaries.tandem: "../cmd/tandem", binaries.stockapp: "./stockapp"} {
				if b, err := exec.Command("go", "build", "-race", "-o", out, pkg).CombinedOutput(); err != nil {
					fmt.Fprintf(os.Stderr, "building %s: %v\n%s", pkg, err, b)
					return 1
				}
			}
		}
		return m.Run()
	}())
}

// process is a started program whose output is kept and searched for session IDs and data races at the end.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed once it has ended
	err  error         // of Wait; read after done
}

// output is a bytes.Buffer that may be read while the process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// sessionID is what an ID looks like.
var sessionID = regexp.MustCompile(`\b[A-Z2-7]{103}\b`)

// secret is what an ID looks like, or most of one. Only Set-Cookie and Redis may hold it: all that a test sees
// of anything else is searched.
var secret = regexp.MustCompile(`[A-Z2-7]{64}`)

func startProcess(t *testing.T, name string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, out: &output{}, done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s did not end within 20 s of SIGTERM", name)
			p.kill()
		}
		out := p.out.String()
		if strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
			t.Errorf("%s: a race or a panic", name)
		}
		if secret.MatchString(out) {
			t.Errorf("%s wrote a session ID into its log", name)
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, tail(out, 8000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(s) // it may end at this moment
	}
}

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// replica is one running tandem.
type replica struct {
	*process
	url   string // of the first listener
	admin string
	token string
}

// freeAddress is a loopback address that nothing listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// defaultRoutes is the first listener's routes when a test has nothing else to say.
const defaultRoutes = `
      - {path: /ws/documents/, use: documents}
      - {path: /, use: webapp}
`

// settings of a replica; the zero value but for redis is a whole replica.
type settings struct {
	redis  string // URL
	routes string // YAML list under listeners[0].routes
	more   string // further top-level YAML
	lists  string // further listeners, YAML list items
	tls    string // YAML flow map of the first listener
	notUp  bool   // do not wait for /readyz: Redis is away on purpose
	plain  bool   // without the race detector: its figures are told
}

const adminToken = "e2e-admin-token-0123456789"

func startReplica(t *testing.T, s settings) *replica {
	t.Helper()
	r := tryReplica(t, s)
	for range 3 { // a port that was free a moment ago may be somebody's by now
		if !r.lostItsPort() {
			break
		}
		r = tryReplica(t, s)
	}
	t.Cleanup(r.searchAdmin) // before the process is told to end
	path := "/readyz"
	if s.notUp {
		path = "/livez"
	}
	r.waitStatus(path, http.StatusOK, 20*time.Second)
	return r
}

// tryReplica starts a replica on ports that are free now.
func tryReplica(t *testing.T, s settings) *replica {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "admin.token")
	if err := os.WriteFile(token, []byte(adminToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.routes == "" {
		s.routes = defaultRoutes
	}
	address, admin := freeAddress(t), freeAddress(t)
	config := fmt.Sprintf("redis: %q\nlisteners:\n  - address: %s\n", s.redis, address)
	scheme := "http"
	if s.tls != "" {
		config += "    tls: " + s.tls + "\n"
		scheme = "https"
	}
	config += "    routes:\n" + strings.Trim(s.routes, "\n") + "\n" + s.lists +
		fmt.Sprintf("admin: {address: %s, token_file: %q}\nlog: {format: json, level: debug}\n", admin, token) + s.more
	file := filepath.Join(dir, "tandem.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := binaries.tandem
	if s.plain {
		var err error
		if binary, err = plainTandem(); err != nil {
			t.Fatal(err)
		}
	}
	return &replica{
		process: startProcess(t, "tandem "+address, nil, binary, "serve", "--config", file),
		url:     scheme + "://" + address, admin: "http://" + admin, token: adminToken,
	}
}

// lostItsPort waits until the replica answers or has ended, and reports whether it ended because somebody else was
// quicker to listen.
func (r *replica) lostItsPort() bool {
	r.t.Helper()
	lost := false
	eventually(r.t, 20*time.Second, func() error {
		select {
		case <-r.done:
			lost = strings.Contains(r.out.String(), "address already in use")
			return nil
		default:
		}
		resp, err := http.Get(r.admin + "/livez")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return lost
}

// searchAdmin looks for session IDs in what a replica that still runs shows to operators.
func (r *replica) searchAdmin() {
	select {
	case <-r.done:
		return // killed by the test
	default:
	}
	for _, path := range []string{"/metrics", "/readyz", "/admin/v1/connections", "/admin/v1/sessions", "/debug/pprof/cmdline"} {
		req, err := http.NewRequest(http.MethodGet, r.admin+path, nil)
		if err != nil {
			r.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+r.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return // it is draining, or on its way there
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if secret.Match(b) || err == nil && path == "/metrics" && len(b) == 0 {
			r.t.Errorf("%s shows a session ID, or nothing", path)
		}
	}
}

// waitStatus polls an admin path until it answers with the status.
func (r *replica) waitStatus(path string, status int, within time.Duration) {
	r.t.Helper()
	eventually(r.t, within, func() error {
		select {
		case <-r.done:
			r.t.Fatalf("%s ended: %v\n%s", r.name, r.err, tail(r.out.String(), 4000))
		default:
		}
		resp, err := http.Get(r.admin + path)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != status {
			return fmt.Errorf("%s answers %d %s, want %d", path, resp.StatusCode, b, status)
		}
		return nil
	})
}

// adminJSON calls /admin/v1 with the token and decodes into v (nil: ignore the body).
func (r *replica) adminJSON(method, path string, body, v any) int {
	r.t.Helper()
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, r.admin+"/admin/v1/"+path, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if secret.Match(b) {
		r.t.Errorf("%s shows a session ID", path)
	}
	if v != nil && len(b) > 0 {
		if err := json.Unmarshal(b, v); err != nil {
			r.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return resp.StatusCode
}

// eventually runs f until it returns nil; what it watches happens in another process, so it is polled.
func eventually(t *testing.T, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", within, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// person is a browser without scripts: a cookie jar that does not follow redirects. Of its methods only try may be
// called beside the test's goroutine.
type person struct {
	t     *testing.T
	http  *http.Client
	fixed []*http.Cookie // sent always, whatever answers say; nil: the jar's
}

func newPerson(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &person{t: t, http: &http.Client{
		Jar: jar, Timeout: 15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request.
func (p *person) do(req *http.Request) answer {
	p.t.Helper()
	a, err := p.try(req)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// try sends a request. All of the answer but its cookies is searched for session IDs.
func (p *person) try(req *http.Request) (answer, error) {
	for _, c := range p.fixed {
		req.AddCookie(c)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	shown := resp.Header.Clone()
	shown.Del("Set-Cookie")
	if secret.Match(b) || secret.MatchString(fmt.Sprint(shown)) {
		p.t.Errorf("%s %s shows a session ID", req.Method, req.URL.Path)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}, nil
}

func (p *person) request(method, rawURL string, body io.Reader) *http.Request {
	p.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, rawURL, body)
	if err != nil {
		p.t.Fatal(err)
	}
	return req
}

func (p *person) get(rawURL string) answer {
	p.t.Helper()
	return p.do(p.request(http.MethodGet, rawURL, nil))
}

func (p *person) page(rawURL string) answer {
	p.t.Helper()
	req := p.request(http.MethodGet, rawURL, nil)
	req.Header.Set("Accept", "text/html")
	return p.do(req)
}

func (p *person) post(rawURL string, form url.Values) answer {
	p.t.Helper()
	req := p.request(http.MethodPost, rawURL, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.do(req)
}

func (p *person) sendJSON(method, rawURL string, body any) answer {
	p.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req := p.request(method, rawURL, bytes.NewReader(b))
	req.Header.Set("Content-Type", "application/json")
	return p.do(req)
}

const password = "correct horse battery"

func (p *person) register(base, name string) {
	p.t.Helper()
	if a := p.post(base+"/register", url.Values{"username": {name}, "password": {password}}); a.status != http.StatusSeeOther {
		p.t.Fatalf("register %s: %d %s", name, a.status, tail(a.body, 500))
	}
}

func (p *person) login(base, name string) {
	p.t.Helper()
	if a := p.post(base+"/login", url.Values{"username": {name}, "password": {password}}); a.status != http.StatusSeeOther {
		p.t.Fatalf("login %s: %d %s", name, a.status, tail(a.body, 500))
	}
}

// cookies are what the jar would send to base: how a socket gets the session.
func (p *person) cookies(base string) []*http.Cookie {
	p.t.Helper()
	if p.fixed != nil {
		return p.fixed
	}
	u, err := url.Parse(base)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.http.Jar.Cookies(u)
}

// session is GET /api/session.
type session struct {
	User *struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"user"`
	Handle string         `json:"handle"`
	Values map[string]any `json:"values"`
}

func (p *person) session(base string) session {
	p.t.Helper()
	a := p.get(base + "/api/session")
	if a.status != http.StatusOK {
		p.t.Fatalf("GET /api/session: %d %s", a.status, a.body)
	}
	var s session
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// runTandem runs a command to its end. Its exit code is returned, and its output.
func runTandem(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(binaries.tandem, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if secret.Match(out) {
		t.Errorf("tandem %v shows a session ID", args)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
