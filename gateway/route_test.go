package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// named is a handler that says which it is.
func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name+" "+r.URL.Path)
	})
}

func TestRouting(t *testing.T) {
	cfg := routes(
		Route{Host: "api.example.test", Path: "/v1", Use: "exact"},
		Route{Host: "*.example.test", Use: "wildcard"},
		Route{Path: "/left/", Use: "pairs"},
		Route{Path: "/left/not-reached", Use: "exact"},
		Route{Path: "/docs", Use: "docs"},
		Route{Host: "only.test", Path: "/", Use: "webapp"},
	)
	cfg.Handlers = map[string]http.Handler{}
	for _, name := range []string{"exact", "wildcard", "pairs", "docs", "webapp"} {
		cfg.Handlers[name] = named(name)
	}
	g := start(t, cfg)
	for _, c := range []struct{ host, path, want string }{
		{"api.example.test", "/v1/x", "exact /v1/x"},
		{"API.Example.Test.:8080", "/v1", "exact /v1"},
		{"api.example.test", "/v2", "wildcard /v2"},
		{"api.example.test", "/v12", "wildcard /v12"},
		{"deep.api.example.test", "/", "404"},
		{"example.test", "/", "404"},
		{".example.test", "/", "404"},
		{"x", "/left/1", "pairs /left/1"},
		{"x", "/left", "pairs /left"},
		{"x", "/left/not-reached", "pairs /left/not-reached"},
		{"x", "//left//1", "pairs //left//1"},
		{"x", "/leftover", "404"},
		{"x", "/docs/", "docs /docs/"},
		{"[::1]:80", "/docs", "docs /docs"},
		{"x", "/LEFT/1", "404"},
		{"x", "/l%65ft/1", "pairs /left/1"},
		{"only.test", "/", "webapp /"},
		{"only.test", "http://only.test", "webapp "},
	} {
		got := raw(t, g.address(), "GET "+c.path+" HTTP/1.1\r\nHost: "+c.host+"\r\nConnection: close\r\n\r\n")
		if c.want == "404" {
			if !strings.HasPrefix(got, "HTTP/1.1 404") || !strings.Contains(got, `"code":"no_route"`) {
				t.Errorf("%s%s: want a 404 problem, got %s", c.host, c.path, got)
			}
		} else if !strings.HasSuffix(got, "\r\n\r\n"+c.want) {
			t.Errorf("%s%s: want %q, got %s", c.host, c.path, c.want, got)
		}
	}
}

// A path that a server further inside could read as leading elsewhere than
// the route that was checked is refused before any route.
func TestPathsThatLeadElsewhere(t *testing.T) {
	cfg := routes(Route{Path: "/", Use: "webapp"})
	cfg.Handlers = map[string]http.Handler{"webapp": named("reached")}
	g := start(t, cfg)
	for _, path := range []string{
		"/public/../private", "/..", "/.", "/./x", "/a/..", "/%2e%2e/x", "/a/%2E%2e%2fprivate", "/a%2f..%2fprivate",
		"/a/..%5cprivate", `/a\..\private`, "/a/..;/private", "/a/..;x=y/private", "/a/.;/b", "/a%00b", "/%00",
	} {
		got := raw(t, g.address(), "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%s: want 400, got %s", path, got)
		}
	}
	for _, path := range []string{"/...", "/.well-known/x", "/a.b/c..d", "/a;b", "/a%2fb", "/%252e%252e/x", "/..a", "//"} {
		got := raw(t, g.address(), "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("%s: want 200, got %s", path, got)
		}
	}
	for _, line := range []string{"TRACE / HTTP/1.1", "CONNECT x:443 HTTP/1.1"} {
		got := raw(t, g.address(), line+"\r\nHost: x\r\nConnection: close\r\n\r\n")
		if strings.Contains(got, "reached") || strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%s: got %s", line, got)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"", "/", "//", "/a//b/", "/a/../b", `/a\..\b`, "/..;x", "/.a", "x", "/a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		clean, ok := cleanPath(p)
		if !ok {
			return
		}
		if again, ok := cleanPath(clean); !ok || again != clean {
			t.Errorf("%q became %q, which becomes %q, %t", p, clean, again, ok)
		}
		if !strings.HasPrefix(clean, "/") || strings.Contains(clean, "//") || strings.Contains(clean+"/", "/../") {
			t.Errorf("%q became %q", p, clean)
		}
	})
}

func TestEveryFaultIsNamed(t *testing.T) {
	minus := -1
	_, err := New(Config{Listeners: []Listener{
		{Address: "nonsense", TCP: &TCP{Target: "x"}},
		{Address: "127.0.0.1:0", Routes: []Route{
			{Path: "a", Use: "unknown", Host: "a:1"},
			{Path: "/../x", Upstream: &Upstream{Targets: []string{"ftp://x", "http://h/path"}, Login: "maybe", Balance: "best", Retries: minus, Timeouts: Timeouts{Idle: -1}}},
			{Files: &Files{Root: "/does/not/exist"}, Use: "webapp"},
		}},
		{Address: "127.0.0.1:9", TLS: &TLSFiles{Cert: "no.pem", Key: "no.pem"}},
		{Address: "127.0.0.1:9", Upstream: &Upstream{Login: LoginRequired}},
	}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`listeners[0].address: "nonsense"`, `listeners[0].tcp.target: "x"`,
		`listeners[1].routes[0].path:`, `listeners[1].routes[0].use: "unknown" is unknown`, `listeners[1].routes[0].host: "a:1"`,
		`listeners[1].routes[1].path:`, `targets[0]: "ftp://x"`, `targets[1]: "http://h/path"`, `login: "maybe" is unknown; allowed: none, required`,
		`balance: "best"`, `retries: -1`, `timeouts.idle: -1ns`, `listeners[1].routes[2]: has 2 of use`, `root: stat /does/not/exist`,
		`listeners[2].tls:`, `listeners[2]: has 0 of routes`, `listeners[3].address: "127.0.0.1:9" is taken`, `listeners[3].upstream.targets: at least one`,
		`login: required or session_write, but there is no session store`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "at least one") {
		t.Errorf("no listeners: %v", err)
	}
}
