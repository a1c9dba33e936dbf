package gateway

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A reload adds and removes listeners; what is under way at a removed one
// ends in its own time.
func TestReloadAddsAndRemovesListeners(t *testing.T) {
	release := make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_, _ = io.WriteString(w, "begin ")
			_ = http.NewResponseController(w).Flush()
			<-release
		}
		_, _ = io.WriteString(w, "end")
	})
	first, second, third := deadAddress(t), deadAddress(t), deadAddress(t)
	at := func(addresses ...string) []Listener {
		var list []Listener
		for _, a := range addresses {
			list = append(list, Listener{Address: a, Upstream: &Upstream{Targets: []string{up.URL}}})
		}
		return list
	}
	g := start(t, Config{Listeners: at(first, second)})
	res, err := http.Get("http://" + second + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()

	if err := g.Reload(at(third, first)); err != nil {
		t.Fatal(err)
	}
	if got := []string{g.Addresses()[0].String(), g.Addresses()[1].String()}; len(g.Addresses()) != 2 || got[0] != third || got[1] != first {
		t.Errorf("addresses are %v", g.Addresses())
	}
	for _, a := range []string{first, third} {
		if a := get(t, "http://"+a); a.body != "end" {
			t.Errorf("%s: %d %s", a.body, a.status, a.body)
		}
	}
	eventually(t, "nobody listens at the removed address", func() bool {
		c, err := net.Dial("tcp", second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(release)
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "begin end" {
		t.Errorf("under way at the removed listener: %q %v", b, err)
	}

	// An address that is taken leaves everything as it is.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := g.Reload(at(second, taken.Addr().String())); err == nil || !strings.Contains(err.Error(), "listeners[1].address") {
		t.Errorf("a taken address: %v", err)
	}
	if c, err := net.Dial("tcp", second); err == nil {
		_ = c.Close()
		t.Error("a listener of a refused reload is open")
	}
	if a := get(t, "http://"+first); a.status != 200 {
		t.Error("the old listeners do not serve")
	}
}

// A certificate that is replaced on disk is shown without a reload; while the
// pair does not fit, the old one is.
func TestCertificateIsReadWhenItChanges(t *testing.T) {
	cert, key := certificate(t)
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", TLS: &TLSFiles{Cert: cert, Key: key}, Files: &Files{Root: t.TempDir()}}}})
	serial := func() string {
		c, err := tls.Dial("tcp", g.address(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	expire := func() { g.current()[0].certificate.Load().checked.Store(0) } // the second until the next look
	first := serial()
	newCert, newKey := certificate(t)
	if err := os.Rename(newCert, cert); err != nil {
		t.Fatal(err)
	}
	expire()
	if serial() != first {
		t.Error("half of a new pair was shown")
	}
	if err := os.Rename(newKey, key); err != nil {
		t.Fatal(err)
	}
	expire()
	second := serial()
	if second == first {
		t.Error("the old certificate is still shown")
	}
	if err := os.WriteFile(cert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	expire()
	if serial() != second {
		t.Error("a bad pair took the old one's place")
	}
	if err := g.Reload(g.cfg.Listeners); err == nil || serial() != second {
		t.Errorf("a reload with a bad pair: %v", err)
	}
	if _, err := tls.Dial("tcp", g.address(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func TestRedirectToTLS(t *testing.T) {
	cert, key := certificate(t)
	g := start(t, Config{Listeners: []Listener{
		{Address: "127.0.0.1:0", Redirect: "https"},
		{Address: "127.0.0.1:0", TLS: &TLSFiles{Cert: cert, Key: key}, Files: &Files{Root: t.TempDir()}},
		{Address: "127.0.0.1:0", Redirect: "https:443"},
	}})
	_, port, _ := net.SplitHostPort(g.Addresses()[1].String())
	for _, c := range []struct {
		listener          int
		method, host, uri string
		want              string
	}{
		{0, "GET", "example.test", "/a%20b/?q=1&r", "https://example.test:" + port + "/a%20b/?q=1&r"},
		{0, "POST", "example.test:80", "/", "https://example.test:" + port + "/"},
		{0, "GET", "[::1]:8080", "/", "https://[::1]:" + port + "/"},
		{0, "GET", "[::1]", "/", "https://[::1]:" + port + "/"},
		{2, "GET", "example.test:8080", "//other.test/x", "https://example.test//other.test/x"},
	} {
		got := raw(t, g.Addresses()[c.listener].String(), c.method+" "+c.uri+" HTTP/1.1\r\nHost: "+c.host+"\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
		if err != nil || res.StatusCode != http.StatusPermanentRedirect || res.Header.Get("Location") != c.want {
			t.Errorf("%s %s %s: %v %+v, want %s", c.method, c.host, c.uri, err, res, c.want)
		}
	}
	if got := raw(t, g.address(), "GET / HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 404") {
		t.Errorf("no host: %s", got)
	}
	for _, bad := range []Listener{{Redirect: "http"}, {Redirect: "https:0"}, {Redirect: "https:x"}, {Redirect: "https", Files: &Files{Root: "/"}}} {
		bad.Address = ":0"
		if len(Validate([]Listener{bad}, nil)) != 1 {
			t.Errorf("%+v is no fault", bad)
		}
	}
}

func TestMethodsOfARoute(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method) })
	g := start(t, routes(
		Route{Path: "/", Methods: []string{"GET"}, Files: &Files{Root: write(t, map[string]string{"a": "file"})}},
		Route{Path: "/", Methods: []string{"POST", "PUT"}, Upstream: &Upstream{Targets: []string{up.URL}}},
	))
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 200, "PUT": 200, "DELETE": 404} {
		if a := do(t, request(t, method, g.url()+"/a")); a.status != want {
			t.Errorf("%s: %d, want %d", method, a.status, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	got := Describe([]Listener{
		{Address: ":80", Redirect: "https"},
		{Address: ":443", TLS: &TLSFiles{}, Routes: []Route{
			{Host: "API.test", Path: "/v1", Methods: []string{"GET"}, Upstream: &Upstream{Targets: []string{"http://a"}}},
			{Use: "webapp"},
		}},
		{Address: ":81", Files: &Files{Root: "/srv"}},
		{Address: ":82", TCP: &TCP{Targets: []string{"a:1", "b:1"}}},
	})
	var lines []string
	for _, r := range got {
		lines = append(lines, strings.Join([]string{r.Listener, r.Host, r.Path, strings.Join(r.Methods, "+"), r.Kind, strings.Join(r.To, "+"), r.Login}, "|"))
	}
	want := ":80||/||redirect|https|\n:443|api.test|/v1|GET|upstream|http://a|none\n:443||/||webapp||\n:81||/||files|/srv|\n:82||||tcp|a:1+b:1|"
	if strings.Join(lines, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}
}

// Several raw targets: the one that is dead costs no connection.
func TestTCPTargets(t *testing.T) {
	greet := func(name string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name)
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
		return l.Addr().String()
	}
	dead := deadAddress(t)
	cfg := Config{Listeners: []Listener{{Address: "127.0.0.1:0", TCP: &TCP{
		Targets: []string{dead, greet("a"), greet("b")}, Health: &Health{Interval: 5 * time.Millisecond},
	}}}}
	g := start(t, cfg)
	seen := map[string]int{}
	for range 20 {
		b, err := io.ReadAll(dial(t, g.address()))
		if err != nil {
			t.Fatal(err)
		}
		seen[string(b)]++
	}
	if seen["a"]+seen["b"] != 20 || seen["a"] == 0 || seen["b"] == 0 {
		t.Errorf("answered by %v", seen)
	}
	route := g.current()[0].table.tcp
	eventually(t, "the check finds the dead one", func() bool { return route.targets[0].sick.Load() })
	for _, bad := range []TCP{{}, {Target: "a:1", Targets: []string{"b:1"}}, {Targets: []string{"x"}}, {Target: "a:1", Idle: -1}} {
		if len(Validate([]Listener{{Address: ":0", TCP: &bad}}, nil)) != 1 {
			t.Errorf("%+v is no fault", bad)
		}
	}
}

// A session without a byte for longer than allowed ends on both sides; one
// that flows in one direction only does not.
func TestTCPIdle(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	g := tcpSite(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	listeners := g.cfg.Listeners
	tcp := *listeners[0].TCP
	tcp.Idle = 2 * time.Second
	if err := g.Reload([]Listener{{Address: listeners[0].Address, TCP: &tcp}}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, g.address())
	for range 25 { // for longer than the limit, in one direction; the limit is what is under test
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if b, _ := io.ReadAll(c); string(b) != "hello" {
		t.Errorf("%q", b)
	}
	<-ended
	if n := g.failures(reasonIdle); n != 1 {
		t.Errorf("counted %v", n)
	}
}
