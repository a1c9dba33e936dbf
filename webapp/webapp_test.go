package webapp_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/webapp"
	"github.com/seed-6230208e/tandem/webapp/accounts"
)

// The client library's redial loop sleeps for a second before it sees that its
// pool is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const password = "correct horse"

// site is the web app as one replica serves it.
type site struct {
	url      string
	factory  *sessionstore.Factory
	accounts *accounts.Accounts
}

func newSite(t testing.TB, s *redistest.Server, registration string) *site {
	t.Helper()
	conn, err := redisconn.Open(redisconn.Config{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	factory, err := sessionstore.New(conn.Client(), sessionstore.Config{Serializer: sessionstore.JSON()})
	if err != nil {
		t.Fatal(err)
	}
	store, err := sessionstore.NewStore(factory, sessionstore.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	users, err := accounts.New(conn.Client(), accounts.Config{Hash: accounts.Params{Memory: 8, Time: 1, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := webapp.New(webapp.Config{
		Store: store, Factory: factory, Accounts: users, Registration: registration, Available: conn.Up,
		Readable: patterns(t, "user.name", "chat.*"), Writable: patterns(t, "chat.*"),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &site{url: server.URL, factory: factory, accounts: users}
}

func patterns(t testing.TB, p ...string) sessionstore.Patterns {
	t.Helper()
	compiled, err := sessionstore.ParsePatterns(p)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func (s *site) add(t testing.TB, name string) accounts.User {
	t.Helper()
	u, err := s.accounts.Add(t.Context(), name, password)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// browser is a client with a cookie jar that follows no redirect.
type browser struct {
	t    testing.TB
	site *site
	http *http.Client
}

func (s *site) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t: t, site: s, http: &http.Client{
		Jar: jar, Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request with header pairs.
func (b *browser) do(method, path string, body string, header ...string) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(b.t.Context()), method, b.site.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, string(text)}
	b.checkAnswer(method+" "+path, a)
	return a
}

var sessionID = regexp.MustCompile(`[A-Z2-7]{103}`)

// checkAnswer holds every answer of every test to what they all promise.
func (b *browser) checkAnswer(what string, a answer) {
	b.t.Helper()
	csp := a.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		b.t.Errorf("%s: policy %q", what, csp)
	}
	if a.header.Get("Cache-Control") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		b.t.Errorf("%s: headers %v", what, a.header)
	}
	if sessionID.MatchString(a.body) || sessionID.MatchString(a.header.Get("Location")) {
		b.t.Errorf("%s: shows a session ID", what)
	}
}

func (b *browser) get(path string) answer {
	b.t.Helper()
	return b.do(http.MethodGet, path, "", "Accept", "text/html")
}

func (b *browser) post(path string, form url.Values, header ...string) answer {
	b.t.Helper()
	header = append([]string{"Accept", "text/html", "Content-Type", "application/x-www-form-urlencoded"}, header...)
	return b.do(http.MethodPost, path, form.Encode(), header...)
}

func (b *browser) patch(body string) answer {
	b.t.Helper()
	return b.do(http.MethodPatch, "/api/session", body, "Content-Type", "application/json; charset=utf-8")
}

func (b *browser) login(name string) {
	b.t.Helper()
	a := b.post("/login", url.Values{"username": {name}, "password": {password}})
	if a.status != http.StatusSeeOther {
		b.t.Fatalf("login of %s: %d %s", name, a.status, a.body)
	}
}

// view is what GET /api/session says.
type view struct {
	User          *struct{ ID, Name string }
	Handle        *string
	Values        map[string]any
	ExpiresAt     *time.Time `json:"expires_at"`
	IdleExpiresAt *time.Time `json:"idle_expires_at"`
}

func (b *browser) session() view {
	b.t.Helper()
	return decode[view](b.t, b.do(http.MethodGet, "/api/session", ""), http.StatusOK)
}

func decode[T any](t testing.TB, a answer, status int) T {
	t.Helper()
	var v T
	if a.status != status || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		t.Fatalf("%d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return v
}

// problemCode is the code of a problem document.
func problemCode(t *testing.T, a answer) string {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%d %s %s", a.status, got, a.body)
	}
	var p struct {
		Status int
		Code   string
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Status != a.status {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return p.Code
}

func (b *browser) cookie() string {
	u, _ := url.Parse(b.site.url)
	for _, c := range b.http.Jar.Cookies(u) {
		return c.Value
	}
	return ""
}

func TestPagesAreServed(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "first-user")
	b := s.browser(t)
	for path, want := range map[string]int{
		"/": 200, "/login": 200, "/register": 200, "/account": 303, "/documents/a": 303, "/pairs/a": 200,
		"/documents?id=a": 303, "/documents": 303, "/documents?id=a+b": 400, "/nothing": 404, "/documents/a%2fb": 400,
		"/documents/..%2f": 400, "/documents/" + strings.Repeat("x", 129): 400, "/documents/%E2%82%AC": 400, "/static/nothing.js": 404, "/logout": 405,
		"/static/": 404, "/favicon.ico": 200, "/static/app.css": 200,
	} {
		if a := b.get(path); a.status != want {
			t.Errorf("GET %s: %d, want %d", path, a.status, want)
		}
	}
	if a := b.get("/documents/a?x=y"); a.header.Get("Location") != "/login?next=%2Fdocuments%2Fa" {
		t.Errorf("a document leads to %s", a.header.Get("Location"))
	}
	if a := b.do("DELETE", "/account", ""); a.header.Get("Allow") != "GET, HEAD" || problemCode(t, a) != "method_not_allowed" {
		t.Errorf("DELETE: %d, Allow %q", a.status, a.header.Get("Allow"))
	}
	if a := b.do("GET", "/api/nothing", ""); problemCode(t, a) != "not_found" {
		t.Errorf("unknown API: %d", a.status)
	}
}

// Nothing inline: the policy would keep the browser from running it.
func TestNothingInline(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "open")
	s.add(t, "ada")
	b := s.browser(t)
	inline := regexp.MustCompile(`(?i)<style|\sstyle\s*=|<script(?:\s+(?:type|src)="[^"]*")*\s*>[^<]|\son[a-z]+\s*=|javascript:`)
	check := func() {
		for _, path := range []string{"/", "/login", "/register", "/account", "/documents/a", "/pairs/a", "/nothing"} {
			if a := b.get(path); inline.MatchString(a.body) {
				t.Errorf("%s has %q", path, inline.FindString(a.body))
			}
		}
	}
	check()
	b.login("ada")
	check()
}

func TestAssets(t *testing.T) {
	b := newSite(t, redistest.Mini(t), "open").browser(t)
	page := b.get("/pairs/x").body
	urls := regexp.MustCompile(`/static/[^"]+`).FindAllString(page, -1)
	slices.Sort(urls)
	urls = slices.Compact(urls)
	if len(urls) < 3 {
		t.Fatalf("the page uses %q", urls)
	}
	for _, u := range urls {
		a := b.get(u)
		if a.status != 200 || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %s", u, a.status, a.header.Get("Cache-Control"))
		}
		path, _, _ := strings.Cut(u, "?")
		a = b.get(path)
		if a.status != 200 || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %s", path, a.status, a.header.Get("Cache-Control"))
		}
		if a := b.do("GET", path, "", "If-None-Match", a.header.Get("ETag")); a.status != http.StatusNotModified {
			t.Errorf("%s again: %d", path, a.status)
		}
	}
	if got := b.get("/static/tandem.js").header.Get("Content-Type"); got != "text/javascript; charset=utf-8" {
		t.Errorf("a module is %s", got)
	}
}

func TestConfig(t *testing.T) {
	if _, err := webapp.New(webapp.Config{}); err == nil {
		t.Error("an empty Config is taken")
	}
}

// Redis away: what needs no session is served, the rest says so.
func TestStoreAway(t *testing.T) {
	redis := redistest.Start(t)
	s := newSite(t, redis, "first-user")
	s.add(t, "ada")
	b := s.browser(t)
	b.login("ada")
	redis.Stop()
	for path, want := range map[string]int{"/": 200, "/login": 200, "/static/app.css": 200, "/account": 503, "/documents/a": 503, "/register": 503, "/api/session": 503} {
		a := b.get(path)
		if a.status != want || (want == 503) != (a.header.Get("Retry-After") != "") {
			t.Errorf("GET %s: %d, Retry-After %q", path, a.status, a.header.Get("Retry-After"))
		}
		if strings.Contains(a.body, "dial tcp") || strings.Contains(a.body, "redis") {
			t.Errorf("GET %s tells the inside: %s", path, a.body)
		}
		if len(a.header["Set-Cookie"]) > 0 {
			t.Errorf("GET %s sets a cookie", path)
		}
	}
	if a := b.get("/"); !strings.Contains(a.body, "session store is away") {
		t.Error("home does not say that the store is away")
	}
	for _, path := range []string{"/login", "/logout", "/account/chat-name", "/account/sessions/revoke-others", "/api/tickets", "/api/session/renew"} {
		a := b.post(path, url.Values{"username": {"ada"}, "password": {password}, "name": {"x"}})
		if a.status != 503 || a.header.Get("Retry-After") == "" || len(a.header["Set-Cookie"]) > 0 {
			t.Errorf("POST %s: %d, %v", path, a.status, a.header)
		}
	}
	// Without a cookie there is nothing to ask the store for; but nobody can log in either.
	anonymous := s.browser(t)
	for deadline := time.Now().Add(20 * time.Second); anonymous.get("/account").status != 503; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("somebody without a session is sent to log in")
		}
	}
	for path, want := range map[string]int{"/": 200, "/login": 200, "/account": 503, "/documents/a": 503, "/api/session": 503} {
		if a := anonymous.get(path); a.status != want || (want == 503) != (a.header.Get("Retry-After") != "") {
			t.Errorf("GET %s without a session: %d, Retry-After %q", path, a.status, a.header.Get("Retry-After"))
		}
	}
	for _, path := range []string{"/api/tickets", "/api/session/renew"} {
		if a := anonymous.post(path, nil); a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("POST %s without a session: %d", path, a.status)
		}
	}
	if a := b.patch(`{"set":{"chat.name":"x"}}`); a.status != 503 || problemCode(t, a) != "unavailable" {
		t.Errorf("PATCH: %d", a.status)
	}
	redis.Restart()
	for deadline := time.Now().Add(20 * time.Second); b.get("/login").status != 200 || b.do("GET", "/api/session", "").status != 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come back")
		}
	}
}

func keys[M ~map[K]V, K comparable, V any](m M) []K { return slices.Collect(maps.Keys(m)) }
