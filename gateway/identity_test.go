package gateway

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// everySpelling of a header name that CGI and its heirs would fold together.
var forgeries = []string{
	"X-Tandem-User", "x-tandem-user", "X-TANDEM-USER", "X_Tandem_User", "x_tandem_user", "X-Tandem_User", "X_TANDEM-USER",
	"X.Tandem.User", "X~Tandem~User", "x-tandem_session", "X-Tandem-User-Name", "X-Tandem-Identity", "X-Tandem-Anything", "X_TANDEM_",
	"X-Tandem", "X-Request_Id", "x_request_id", "X_Forwarded_For", "x.forwarded.host", "X_FORWARDED-PROTO",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded",
	"X-Tandem-Assertion", "x_tandem_assertion", "X-Tandem-Session-Set", "X-Forwarded-Port", "X_Forwarded_Prefix", "X-Real-IP", "x_real_ip", "X.Forwarded",
}

func TestForgedHeadersNeverArrive(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		showHeader(w, r)
		_ = r.Trailer.Write(w)
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	var all strings.Builder
	for _, name := range forgeries {
		got := raw(t, g.address(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+name+": forged\r\n"+name+": forged again\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "forged") {
			t.Errorf("%s: %s", name, got)
		}
		all.WriteString(name + ": forged\r\n")
	}
	got := raw(t, g.address(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Tandemonium: kept\r\nX-Mine_is.odd: kept too\r\n"+all.String()+"\r\n")
	if strings.Contains(got, "forged") || !strings.Contains(got, "kept\r\n") || !strings.Contains(got, "kept too\r\n") {
		t.Errorf("all together: %s", got)
	}
	got = raw(t, g.address(), "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Tandem-User, X_Tandem_Session\r\n\r\n1\r\na\r\n0\r\n"+
		"X-Tandem-User: forged\r\nX_Tandem_Session: forged\r\n\r\n")
	if strings.Contains(got, "forged") {
		t.Errorf("as a trailer: %s", got)
	}
}

// HTTP/2 carries names in lower case only, and a cookie in crumbs.
func TestForgedHeadersNeverArriveOverHTTP2(t *testing.T) {
	up := upstream(t, showHeader)
	cert, key := certificate(t)
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", TLS: &TLSFiles{Cert: cert, Key: key}, Upstream: &Upstream{Targets: []string{up.URL}}}}})
	for _, name := range forgeries {
		a := get(t, "https://"+g.address()+"/", name, "forged", name, "forged again", "X-Tandemonium", "kept")
		if a.status != 200 || strings.Contains(a.body, "forged") || !strings.Contains(a.body, "X-Tandemonium: kept") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func FuzzRemoveForged(f *testing.F) {
	for _, name := range forgeries {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return // no server takes it
		}
		h := http.Header{name: {"v"}}
		removeForged(h)
		php := strings.NewReplacer("-", "_", ".", "_").Replace(strings.ToUpper(name))
		if len(h) != 0 && (strings.HasPrefix(php, "X_TANDEM_") || php == "X_REQUEST_ID") {
			t.Errorf("%q is left", name)
		}
	})
}

func TestRemoveCookie(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"tandem=ID", ""},
		{"a=1; tandem=ID", "a=1"},
		{"tandem=ID; a=1", "a=1"},
		{"a=1; tandem=ID; b=2", "a=1; b=2"},
		{"tandem=ID; tandem=ID2;tandem=ID3", ""},
		{" tandem =ID ;a=1", "a=1"},
		{"\ttandem=\"ID\"; a=1", "a=1"},
		{"tandem", ""},
		{"tandem=ID;", ""},
		{"a=1;b=\"x y\";;  c=ü,;tandem=ID", "a=1;b=\"x y\";;  c=ü,"},
		{"Tandem=1; tandemx=2; xtandem=3; a=tandem", "Tandem=1; tandemx=2; xtandem=3; a=tandem"},
		{"a=1;  b=2 ;", "a=1;  b=2 ;"},
		{"", ""},
	} {
		h := http.Header{"Cookie": {c.line}}
		removeCookie(h, "tandem")
		if got := h.Get("Cookie"); got != c.want {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
	h := http.Header{"Cookie": {"tandem=ID", "a=1", "b=2; tandem=ID"}}
	removeCookie(h, "tandem")
	if got := strings.Join(h["Cookie"], "|"); got != "a=1|b=2" {
		t.Errorf("several lines: %q", got)
	}
}

// loginSite is a gateway over a real session store: /free/ and /private/ of
// an upstream, /shared/ of one that reads the cookie itself, and the web app.
type loginSite struct {
	g       *Gateway
	redis   *redistest.Server
	factory *sessionstore.Factory
	away    *atomic.Bool // what Config.Available denies
}

func newLoginSite(t *testing.T, s *redistest.Server) loginSite {
	t.Helper()
	up := upstream(t, showHeader)
	f, err := sessionstore.New(s.Client(t), sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := sessionstore.NewStore(f, sessionstore.StoreConfig{Cookie: "tandem"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := routes(
		Route{Path: "/free/", Upstream: &Upstream{Targets: []string{up.URL}}},
		Route{Path: "/private/", Upstream: &Upstream{Targets: []string{up.URL}, Login: LoginRequired}},
		Route{Path: "/shared/", Upstream: &Upstream{Targets: []string{up.URL}, ForwardCookie: true}},
		Route{Path: "/", Use: "webapp", Host: "127.0.0.1"},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{up.URL}, Login: LoginRequired}},
	)
	cfg.Handlers = map[string]http.Handler{"webapp": named("webapp")}
	cfg.Store, cfg.Cookie = store, "tandem"
	away := &atomic.Bool{}
	cfg.Available = func() bool { return !away.Load() }
	return loginSite{start(t, cfg), s, f, away}
}

func (s loginSite) login(t *testing.T, user, name string) *sessionstore.Session {
	t.Helper()
	session, err := s.factory.Login(t.Context(), nil, sessionstore.Login{UserID: user, UserName: name})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func (s loginSite) get(t *testing.T, path, cookie string, header ...string) answer {
	t.Helper()
	if cookie != "" {
		header = append(header, "Cookie", cookie)
	}
	return get(t, s.g.url()+path, header...)
}

func TestIdentity(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newLoginSite(t, server)
		ada := s.login(t, "7", "Zoë 100%")
		cookie := "a=1; tandem=" + ada.ID() + "; b=\"2\""

		t.Run("who", func(t *testing.T) {
			for _, path := range []string{"/free/x", "/private/x", "/shared/x"} {
				a := s.get(t, path, cookie, "Connection", "X-Tandem-User, X-Tandem-Session, X-Request-Id")
				for _, want := range []string{"X-Tandem-User: 7\r\n", "X-Tandem-User-Name: Zo%C3%AB 100%25\r\n", "X-Tandem-Session: " + ada.Handle() + "\r\n", "X-Request-Id: "} {
					if a.status != 200 || !strings.Contains(a.body, want) {
						t.Errorf("%s: %d, no %q in %s", path, a.status, want, a.body)
					}
				}
				wantCookie := `Cookie: a=1; b="2"` + "\r\n"
				if path == "/shared/x" {
					wantCookie = "Cookie: " + cookie + "\r\n"
				}
				if !strings.Contains(a.body, wantCookie) {
					t.Errorf("%s: want %q in %s", path, wantCookie, a.body)
				}
			}
		})
		t.Run("nobody", func(t *testing.T) {
			for _, c := range []string{"", "tandem=" + sessionstore.NewID(), "tandem=malformed", "tandem=" + strings.Repeat("A", 5000)} {
				a := s.get(t, "/free/x", c)
				if a.status != 200 || strings.Contains(a.body, "X-Tandem") || strings.Contains(a.body, "Cookie") || a.header.Get("Set-Cookie") != "" {
					t.Errorf("%.30s: %d %s", c, a.status, a.body)
				}
				if a := s.get(t, "/private/x?y=1&z", c, "Accept", "text/html"); a.status != 303 || a.header.Get("Location") != "/login?next="+url.QueryEscape("/private/x?y=1&z") {
					t.Errorf("browser: %d %s", a.status, a.header.Get("Location"))
				}
				if a := s.get(t, "/private/x", c); a.status != 401 || !strings.Contains(a.body, `"code":"login_required"`) {
					t.Errorf("program: %d %s", a.status, a.body)
				}
				post := request(t, http.MethodPost, s.g.url()+"/private/x", "Accept", "text/html")
				if a := do(t, post); a.status != 401 {
					t.Errorf("a form is not replayed after a login: %d", a.status)
				}
				// Where the upstream has the login page's path, a redirect
				// from there would go round in circles.
				if a := s.get(t, "/x", c, "Accept", "text/html", "Host", "other.test"); a.status != 303 || a.header.Get("Location") != "/login?next=%2Fx" {
					t.Errorf("another host: %d %s", a.status, a.header.Get("Location"))
				}
				if a := s.get(t, "/login?next=%2Fx", c, "Accept", "text/html", "Host", "other.test"); a.status != 401 {
					t.Errorf("no login page: %d %s", a.status, a.header.Get("Location"))
				}
			}
		})
		t.Run("next stays here", func(t *testing.T) {
			got := raw(t, s.g.address(), "GET //private/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
			if !strings.Contains(got, "Location: /login?next=%2Fprivate%2Fx\r\n") {
				t.Error(got)
			}
		})
		t.Run("anonymous", func(t *testing.T) {
			anonymous := s.factory.New()
			if err := anonymous.Set("chat.name", "x"); err != nil {
				t.Fatal(err)
			}
			if err := anonymous.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := "tandem=" + anonymous.ID()
			if a := s.get(t, "/free/x", c); strings.Contains(a.body, "X-Tandem-User") || !strings.Contains(a.body, "X-Tandem-Session: "+anonymous.Handle()) {
				t.Error(a.body)
			}
			if a := s.get(t, "/private/x", c); a.status != 401 {
				t.Errorf("%d", a.status)
			}
		})
		t.Run("logged out", func(t *testing.T) {
			gone := s.login(t, "8", "eve")
			if err := s.factory.End(t.Context(), gone.ID(), sessionstore.ReasonLogout); err != nil {
				t.Fatal(err)
			}
			if a := s.get(t, "/private/x", "tandem="+gone.ID()); a.status != 401 {
				t.Errorf("%d", a.status)
			}
		})
		t.Run("undecodable", func(t *testing.T) {
			broken := s.login(t, "9", "bob")
			if err := server.Client(t).Set(t.Context(), "session:"+broken.ID(), "not json", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if a := s.get(t, "/private/x", "tandem="+broken.ID()); a.status != 500 || strings.Contains(a.body, broken.ID()) {
				t.Errorf("%d %s", a.status, a.body)
			}
			if a := s.get(t, "/free/x", "tandem="+broken.ID()); a.status != 200 || !strings.Contains(a.body, "X-Tandem-Identity: unavailable") {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
		t.Run("Redis away", func(t *testing.T) {
			server.Stop()
			s.away.Store(true)
			a := s.get(t, "/free/x", cookie)
			if a.status != 200 || !strings.Contains(a.body, "X-Tandem-Identity: unavailable\r\n") || strings.Contains(a.body, "X-Tandem-User") {
				t.Errorf("free: %d %s", a.status, a.body)
			}
			if a := s.get(t, "/free/x", ""); a.status != 200 || strings.Contains(a.body, "X-Tandem") {
				t.Errorf("free, no cookie: %d %s", a.status, a.body)
			}
			for _, accept := range []string{"text/html", "*/*"} {
				for _, c := range []string{cookie, ""} { // nobody could log in now
					if a := s.get(t, "/private/x", c, "Accept", accept); a.status != 503 || a.header.Get("Retry-After") == "" {
						t.Errorf("private: %d %v", a.status, a.header)
					}
				}
			}
			if a := s.get(t, "/", cookie); a.body != "webapp /" {
				t.Errorf("web app: %d %s", a.status, a.body)
			}
		})
	})
}

// The cookie follows a session that moved to another ID, but an upstream that
// sets it itself has the last word.
func TestRenewedCookie(t *testing.T) {
	s := newLoginSite(t, redistest.Mini(t))
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.Header().Set("Set-Cookie", "early=1")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.Header().Del("Set-Cookie")
		}
		if r.URL.Path == "/shared/login" {
			http.SetCookie(w, &http.Cookie{Name: "tandem", Value: "the-apps-own"})
		}
		http.SetCookie(w, &http.Cookie{Name: "other", Value: "1"})
	})
	if err := s.g.Reload(toUpstream(Upstream{Targets: []string{up.URL}}).Listeners); err != nil {
		t.Fatal(err)
	}
	session := s.login(t, "7", "ada")
	old := session.ID()
	if err := session.Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	a := s.get(t, "/x", "tandem="+old)
	if set := strings.Join(a.header["Set-Cookie"], "|"); !strings.HasPrefix(set, "tandem="+session.ID()+";") || !strings.HasSuffix(set, "|other=1") {
		t.Errorf("%q", set)
	}
	// Interim responses neither take it along nor away.
	early := raw(t, s.g.address(), "GET /early HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: tandem="+old+"\r\n\r\n")
	first, rest, _ := strings.Cut(early, "\r\n\r\n")
	if strings.Contains(first, "tandem=") || !strings.Contains(first, "early=1") || strings.Count(rest, "Set-Cookie: tandem="+session.ID()) != 1 {
		t.Errorf("%s", early)
	}
	a = s.get(t, "/shared/login", "tandem="+old)
	if set := strings.Join(a.header["Set-Cookie"], "|"); set != "tandem=the-apps-own|other=1" {
		t.Errorf("%q", set)
	}
}

// A page costs one read of the session, public ones none.
func TestOneReadARequest(t *testing.T) {
	server := redistest.Start(t)
	s := newLoginSite(t, server)
	cookie := "tandem=" + s.login(t, "7", "ada").ID()
	rdb := server.Client(t)
	reads := func() int { // of the server's sockets: round trips, this one too
		stats, err := rdb.Info(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(stats, "total_reads_processed:")
		n, err := strconv.Atoi(strings.TrimSpace(after[:strings.IndexByte(after, '\n')]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.get(t, "/private/x", cookie) // connections, scripts
	const requests = 10
	for path, most := range map[string]int{"/private/x": requests, "/free/x": requests, "/": 0} {
		before := reads()
		for range requests {
			s.get(t, path, cookie)
		}
		if n := reads() - before - 1; n > most {
			t.Errorf("%s: %d round trips for %d requests", path, n, requests)
		}
	}
}
