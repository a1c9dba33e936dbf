package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	l := newLimiter(Rate{Requests: 10, Burst: 5}.withDefaults())
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	now := time.Now()
	for i := range 5 {
		if _, ok := l.allow(a, now); !ok {
			t.Fatalf("request %d of a burst of 5 was refused", i)
		}
	}
	if wait, ok := l.allow(a, now); ok || wait != 100*time.Millisecond {
		t.Errorf("the sixth: %v %t", wait, ok)
	}
	if _, ok := l.allow(b, now); !ok {
		t.Error("one client's burst was held against another")
	}
	now = now.Add(100 * time.Millisecond)
	if _, ok := l.allow(a, now); !ok {
		t.Error("refused although it waited as told")
	}
	if _, ok := l.allow(a, now); ok {
		t.Error("refusals must not count, but waiting gives one request, not two")
	}
	now = now.Add(time.Hour)
	for range 5 {
		if _, ok := l.allow(a, now); !ok {
			t.Error("no full burst after a long time")
		}
	}
	if _, ok := l.allow(a, now); ok {
		t.Error("more than a full burst after a long time")
	}
}

// However many clients come, the memory stays what it is.
func TestRateForgetsClients(t *testing.T) {
	l := newLimiter(Rate{Requests: 1, Per: time.Hour}.withDefaults())
	now := time.Now()
	var a [4]byte
	for i := range 3 * clientsKept {
		a[0], a[1], a[2] = byte(i), byte(i>>8), byte(i>>16)
		l.allow(netip.AddrFrom4(a), now.Add(time.Duration(i)*time.Millisecond))
		if len(l.until) > clientsKept {
			t.Fatal(len(l.until))
		}
	}
}

func TestClientAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := clientAddress(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if clientAddress(netip.Addr{}).IsValid() {
		t.Error("no address became one")
	}
}

func TestRateOfARoute(t *testing.T) {
	root := write(t, map[string]string{"a": "a"})
	g := start(t, routes(
		Route{Path: "/slow/", Files: &Files{Root: root}, Rate: &Rate{Requests: 2, Per: time.Hour}},
		Route{Path: "/", Files: &Files{Root: root}},
	))
	for i, want := range []int{200, 200, 429, 429} {
		a := get(t, g.url()+"/slow/a")
		if a.status != want {
			t.Errorf("request %d: %d, want %d", i, a.status, want)
		}
		if want == 429 && (a.header.Get("Retry-After") != "1800" || !strings.Contains(a.body, "rate_limited")) {
			t.Errorf("Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
		}
	}
	if a := get(t, g.url()+"/a"); a.status != 200 {
		t.Errorf("another route: %d", a.status)
	}
	if g.failures(reasonRateLimited) != 2 {
		t.Error("not counted")
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	cfg := Config{Listeners: []Listener{{Address: "127.0.0.1:0", Files: &Files{Root: write(t, map[string]string{"a": "a"})}, Limits: Limits{ConnectionsPerAddress: 2}}}}
	g := start(t, cfg)
	ask := func(c io.ReadWriter) error {
		_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && res.StatusCode != 200 {
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		return err
	}
	first, second := dial(t, g.address()), dial(t, g.address())
	for _, c := range []io.ReadWriter{first, second} {
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(dial(t, g.address())); err == nil {
		t.Error("a third connection was served")
	}
	if n := g.failures(reasonConnections); n != 1 {
		t.Errorf("counted %v", n)
	}
	_ = first.Close()
	eventually(t, "a place is free again", func() bool { return ask(dial(t, g.address())) == nil })
}

func TestBodyLimit(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil {
			_, _ = fmt.Fprint(w, n)
		}
	})
	read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	})
	cfg := routes(
		Route{Path: "/small/", Upstream: &Upstream{Targets: []string{up.URL}}, MaxBody: 10},
		Route{Path: "/own/", Use: "own"},
		Route{Path: "/any/", Upstream: &Upstream{Targets: []string{up.URL}}, MaxBody: -1},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{up.URL}}},
	)
	cfg.Listeners[0].Limits = Limits{Body: 100}
	cfg.Handlers = map[string]http.Handler{"own": read}
	g := start(t, cfg)
	for _, c := range []struct {
		path   string
		size   int
		status int
		body   string
	}{
		{"/small/", 10, 200, "10"}, {"/small/", 11, 413, "body_too_large"},
		{"/", 100, 200, "100"}, {"/", 101, 413, "body_too_large"},
		{"/any/", 1 << 20, 200, "1048576"},
		{"/own/", 100, 200, "100"},
	} {
		for _, chunked := range []bool{false, true} {
			req := request(t, http.MethodPost, g.url()+c.path)
			req.Body, req.ContentLength = io.NopCloser(io.LimitReader(endless{}, int64(c.size))), int64(c.size)
			if chunked {
				req.ContentLength = -1
			}
			if a := do(t, req); a.status != c.status || !strings.Contains(a.body, c.body) {
				t.Errorf("%s %d, chunked %t: %d %s", c.path, c.size, chunked, a.status, a.body)
			}
		}
	}
	req := request(t, http.MethodPost, g.url()+"/own/")
	req.Body, req.ContentLength = io.NopCloser(io.LimitReader(endless{}, 1000)), -1
	if a := do(t, req); a.body != "100 http: request body too large" {
		t.Errorf("a handler of ours: %d %s", a.status, a.body)
	}
}

// A body that trickles in is no way to hold a connection, however regular the
// trickle; one that comes after a pause of the upstream's is fine.
func TestSlowBody(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			_, _ = io.WriteString(w, "whole")
		}
	})
	cfg := toUpstream(Upstream{Targets: []string{up.URL}})
	cfg.Listeners[0].Limits = Limits{BodyTimeout: 100 * time.Millisecond}
	g := start(t, cfg)
	for name, trickle := range map[string]time.Duration{"nothing": time.Hour, "a byte at a time": 5 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, g.address())
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
			stop := make(chan struct{})
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				tick := time.NewTicker(trickle)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						if _, err := c.Write([]byte("x")); err != nil {
							return
						}
					case <-stop:
						return
					}
				}
			}()
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			close(stop)
			<-stopped
			if err != nil || res.StatusCode != http.StatusRequestTimeout || !res.Close {
				t.Errorf("%+v %v", res, err)
			}
		})
	}
	if n := g.failures(reasonBodyTimeout); n != 2 {
		t.Errorf("counted %v", n)
	}
	// The connection's deadline ends with the body.
	c := dial(t, g.address())
	r := bufio.NewReader(c)
	for range 2 {
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Fatalf("%+v %v", res, err)
		} else if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond) // longer than the timeout: what is tested is that nothing happens
	}
}

// What is left of the body of a request that was answered without it does not
// hold the connection.
func TestNoBodyIsWaitedForAfterTheAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", Routes: []Route{{Path: "/files/", Files: &Files{Root: dir}}}}}})
	for path, want := range map[string]string{"/none": "404", "/files/x": "405", "/files/../x": "400"} {
		c := dial(t, g.address())
		if _, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c) // to the connection's end
		if err != nil || firstStatus(string(answer)) != want {
			t.Errorf("%s: %v, %q", path, err, answer)
		}
	}
}
