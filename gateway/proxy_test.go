package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func (g *Gateway) failures(why reason) float64 {
	return total(g.metrics.failures, "reason", string(why))
}

func TestWhatAnUpstreamSees(t *testing.T) {
	up := upstream(t, showHeader)
	g := start(t, routes(
		Route{Path: "/app/", Upstream: &Upstream{Targets: []string{up.URL}, StripPrefix: true}},
		Route{Upstream: &Upstream{Targets: []string{up.URL}}},
	))
	for _, c := range []struct{ path, want string }{
		{"/a%2Fb/c%20d?q=%zz;x&&y=1", "GET /a%2Fb/c%20d?q=%zz;x&&y=1"},
		{"//a//b", "GET //a//b"},
		{"/", "GET /"},
		{"/app/x%2Fy/?q", "GET /x%2Fy/?q"},
		{"/app", "GET /"},
		{"/app//elsewhere", "GET /elsewhere"},
		{"/%61pp/x%2Fy", "GET /x/y"},
		{"//app//x%2Fy", "GET /x/y"}, // the route was found with slashes merged
		{"/appendix", "GET /appendix"},
	} {
		got := raw(t, g.address(), "GET "+c.path+" HTTP/1.1\r\nHost: site.test:8080\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, c.want+"\n") || !strings.Contains(got, "Host: site.test:8080\n") {
			t.Errorf("%s: want %q in %s", c.path, c.want, got)
		}
		if !strings.Contains(got, "X-Forwarded-For: 127.0.0.1\r\n") || !strings.Contains(got, "X-Forwarded-Host: site.test:8080\r\n") || !strings.Contains(got, "X-Forwarded-Proto: http\r\n") {
			t.Errorf("%s: no X-Forwarded in %s", c.path, got)
		}
		if strings.Contains(got, "User-Agent") || strings.Contains(got, "Accept-Encoding") {
			t.Errorf("%s: the gateway added to %s", c.path, got)
		}
	}
}

func TestRequestID(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "the upstream's own")
		w.WriteHeader(http.StatusEarlyHints) // clears the header map on its way through
		w.Header().Set("X-Saw", strings.Join(r.Header["X-Request-Id"], "|"))
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	a := get(t, g.url(), "X-Request-Id", "the client's")
	ids := a.header["X-Request-Id"]
	if len(ids) != 1 || len(ids[0]) != 26 || a.header.Get("X-Saw") != ids[0] {
		t.Errorf("response has %q, upstream saw %q", ids, a.header.Get("X-Saw"))
	}
	if b := get(t, g.url()); b.header.Get("X-Request-Id") == ids[0] {
		t.Error("the same ID twice")
	}
}

// A dead, silent, dying or babbling upstream gives one clear answer.
// rawUpstream answers every connection with the same bytes and closes it.
func rawUpstream(t *testing.T, response string) (url string) {
	t.Helper()
	return upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = rw.WriteString(response)
		_ = rw.Flush()
	}).URL
}

// What net/http would add to a response or stumble over on its way through.
func TestResponsesPassAsTheyCame(t *testing.T) {
	g := start(t, toUpstream(Upstream{Targets: []string{rawUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html><script>1//   ")}}))
	if a := get(t, g.url()); a.status != 200 || a.header["Content-Type"] != nil {
		t.Errorf("a type was guessed: %v", a.header)
	}
	g = start(t, toUpstream(Upstream{Targets: []string{rawUpstream(t, "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n")}}))
	if a := get(t, g.url()); a.status != http.StatusBadGateway || g.failures(reasonUpstreamProtocol) != 1 {
		t.Errorf("a status below 100: %d %s", a.status, a.body)
	}
	g = start(t, toUpstream(Upstream{Targets: []string{rawUpstream(t, "HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("a", 2<<20)+"\r\nContent-Length: 0\r\n\r\n")}}))
	if a := get(t, g.url()); a.status != http.StatusBadGateway {
		t.Errorf("a header of 2 MiB: %d", a.status)
	}
	g = start(t, toUpstream(Upstream{Targets: []string{rawUpstream(t, "HTTP/1.1 200 OK\r\nTrailer: X-Request-Id\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Request-Id: forged\r\nX-T: 1\r\n\r\n")}}))
	if a := raw(t, g.address(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); strings.Contains(a, "forged") || !strings.Contains(a, "X-T: 1") {
		t.Errorf("trailers: %s", a)
	}
}

func TestUpstreamFailures(t *testing.T) {
	tell := func(answer string) *net.TCPListener {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.AcceptTCP()
				if err != nil {
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
				if answer == "" {
					_ = c.SetLinger(0)
				}
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
		return l
	}
	release := make(chan struct{})
	silent := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })

	for name, c := range map[string]struct {
		target string
		status int
		reason reason
	}{
		"dead":       {"http://" + deadAddress(t), 502, reasonConnectFailed},
		"silent":     {silent.URL, 504, reasonResponseTimeout},
		"reset":      {"http://" + tell("").Addr().String(), 502, reasonUpstreamClosed},
		"half":       {"http://" + tell("HTTP/1.1 200 OK\r\n").Addr().String(), 502, reasonUpstreamClosed},
		"no HTTP":    {"http://" + tell("220 mail ready\r\n").Addr().String(), 502, reasonUpstreamProtocol},
		"unasked":    {"http://" + tell("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").Addr().String(), 502, reasonUpstreamProtocol},
		"not TLS":    {strings.Replace(silent.URL, "http:", "https:", 1), 502, reasonUpstreamProtocol},
		"bad length": {"http://" + tell("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").Addr().String(), 502, reasonUpstreamProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, toUpstream(Upstream{Targets: []string{c.target}, Retries: 3, Timeouts: Timeouts{ResponseHeader: 100 * time.Millisecond}}))
			a := get(t, g.url(), "Accept", "text/html")
			if a.status != c.status || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || strings.Count(a.body, "<!doctype html>") != 1 {
				t.Errorf("page: %d %v %s", a.status, a.header, a.body)
			}
			a = get(t, g.url())
			if a.status != c.status || a.header.Get("Content-Type") != "application/problem+json" || strings.Count(a.body, `"status"`) != 1 {
				t.Errorf("program: %d %v %s", a.status, a.header, a.body)
			}
			if !strings.Contains(a.body, string(c.reason)) || !strings.Contains(a.body, a.header.Get("X-Request-Id")) {
				t.Errorf("want code %s and the request ID in %s", c.reason, a.body)
			}
			if n := g.failures(c.reason); n != 2 {
				t.Errorf("counted %v times as %s", n, c.reason)
			}
		})
	}
}

// After the first byte the only honest error is a connection that is cut.
func TestUpstreamDiesWithinTheBody(t *testing.T) {
	for name, how := range map[string]func(w http.ResponseWriter){
		"chunked": func(http.ResponseWriter) {},
		"sized":   func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100") },
	} {
		t.Run(name, func(t *testing.T) {
			up := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
				how(w)
				_, _ = io.WriteString(w, "begin")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
			g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
			res, err := http.Get(g.url())
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if string(b) != "begin" || err == nil || res.StatusCode != 200 {
				t.Errorf("%d %q %v", res.StatusCode, b, err)
			}
			eventually(t, "count", func() bool { return g.failures(reasonUpstreamAborted) == 1 })
		})
	}
}

func TestIdleTimeoutCutsAStalledBody(t *testing.T) {
	gone := make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}, Timeouts: Timeouts{Idle: 100 * time.Millisecond}}))
	res, err := http.Get(g.url())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "begin" || err == nil {
		t.Errorf("%q %v", b, err)
	}
	<-gone
}

// A client that goes away takes its request to the upstream with it, and is
// not held against the upstream.
func TestClientGoesAway(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(gone)
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, g.url(), nil)
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
	}()
	<-began
	cancel()
	<-gone
	eventually(t, "count", func() bool { return g.failures(reasonClientGone) == 1 })
}

func TestMalformedBodyIsTheClientsFault(t *testing.T) {
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	got := raw(t, g.address(), "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400") || !strings.Contains(got, "client_body") {
		t.Error(got)
	}
}

func TestRetries(t *testing.T) {
	var hits atomic.Int64
	good := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		_, _ = io.Copy(w, r.Body)
	})
	dropping := upstream(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	post := func(g *Gateway) answer {
		req := request(t, http.MethodPost, g.url())
		req.Body = io.NopCloser(strings.NewReader("body"))
		return do(t, req)
	}
	t.Run("nothing was sent: anything", func(t *testing.T) {
		g := start(t, toUpstream(Upstream{Targets: []string{"http://" + deadAddress(t), good.URL}, Balance: BalanceRoundRobin, Retries: 1}))
		for range 4 {
			if a := post(g); a.status != 200 || a.body != "body" {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		if n := testutil.ToFloat64(g.metrics.retries); n != 1 {
			t.Errorf("%v retries; the dead target should be passed over after the first", n)
		}
	})
	t.Run("something was sent: safe requests only", func(t *testing.T) {
		g := start(t, toUpstream(Upstream{Targets: []string{dropping.URL, good.URL}, Balance: BalanceRoundRobin, Retries: 1}))
		before := hits.Load()
		failed := 0
		for range 4 {
			if a := post(g); a.status == 502 {
				failed++
			}
			if a := get(t, g.url()); a.status != 200 {
				t.Errorf("GET: %d %s", a.status, a.body)
			}
		}
		// Round robin: POST and GET alternate with the targets, so that all of
		// one kind begin at the dropping one.
		if posts := hits.Load() - before - 4; posts != int64(4-failed) {
			t.Errorf("%d POSTs failed, but %d arrived", failed, posts)
		}
	})
	t.Run("none", func(t *testing.T) {
		g := start(t, toUpstream(Upstream{Targets: []string{"http://" + deadAddress(t), "http://" + deadAddress(t)}}))
		if a := get(t, g.url()); a.status != 502 || testutil.ToFloat64(g.metrics.retries) != 0 {
			t.Errorf("%d", a.status)
		}
	})
}
