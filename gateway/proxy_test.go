package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func (g *Gateway) failures(why reason) float64 {
	return testutil.ToFloat64(g.metrics.failures.WithLabelValues(string(why)))
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

// Whatever follows a body that is malformed or was not wanted is never read as
// a request, also when the response was on its way by then.
func TestNoRequestIsSmuggledInABody(t *testing.T) {
	var smuggled atomic.Bool
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		switch r.URL.Path {
		case "/smuggled":
			smuggled.Store(true)
		case "/refuse":
			w.WriteHeader(http.StatusForbidden)
		case "/early":
			_, _ = io.WriteString(w, "early")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(io.Discard, r.Body)
		default:
			_, _ = io.Copy(io.Discard, r.Body)
		}
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	const next = "GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for _, c := range []struct{ head, body string }{
		{"Transfer-Encoding: chunked", "zz\r\n"},
		{"Transfer-Encoding: chunked", "3\r\nabc\r\nzz\r\n"},
		{"Transfer-Encoding: chunked", "3\r\nabcde\r\n"},
		{"Transfer-Encoding: chunked", "0\r\nmalformed trailer\r\n"},
		{"Content-Length: 1000000", ""},
	} {
		for _, path := range []string{"/late", "/early", "/refuse"} {
			for _, answeredFirst := range []bool{false, true} {
				if answeredFirst && path == "/late" {
					continue // it never is
				}
				conn := dial(t, g.address())
				_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+c.head+"\r\n\r\n")
				if answeredFirst {
					if line := readLine(t, bufio.NewReaderSize(conn, 16)); !strings.HasPrefix(line, "HTTP/1.1 ") {
						t.Fatal(line)
					}
				}
				_, _ = io.WriteString(conn, c.body+next)
				if c.body == "" {
					_ = conn.CloseWrite()
				}
				_, _ = io.ReadAll(conn)
				if smuggled.Swap(false) {
					t.Errorf("%s, %s %q, answered first %t: reached the upstream as two requests", path, c.head, c.body, answeredFirst)
				}
			}
		}
	}
}

// A body that was not wanted costs the client no connection if it is small.
func TestUnwantedSmallBody(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	c := dial(t, g.address())
	r := bufio.NewReader(c)
	for range 20 {
		_, _ = io.WriteString(c, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusForbidden {
			t.Fatalf("%d %v", res.StatusCode, err)
		}
	}
}

func TestServerSentEventsArriveOneByOne(t *testing.T) {
	next := make(chan string)
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for event := range next {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", event)
			_ = http.NewResponseController(w).Flush()
		}
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	res, err := http.Get(g.url())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for _, event := range []string{"one", "two"} {
		next <- event
		if got := readLine(t, r); got != "data: "+event {
			t.Errorf("got %q", got)
		}
		readLine(t, r)
	}
	close(next)
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("end: %v", err)
	}
}

// noise is a reader of n pseudo-random bytes that hashes what was read.
func noise(n int64) (io.Reader, hash.Hash) {
	h := sha256.New()
	return io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), n), h), h
}

func TestLargeBodiesBothWays(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		// Both ways at once: back-pressure must not turn into a deadlock.
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	for _, size := range []int64{0, 1, 1 << 20, 64 << 20} {
		body, sent := noise(size)
		res, err := http.Post(g.url(), "application/octet-stream", io.NopCloser(body))
		if err != nil {
			t.Fatal(err)
		}
		got := sha256.New()
		n, err := io.Copy(got, res.Body)
		_ = res.Body.Close()
		if err != nil || n != size || !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
			t.Errorf("%d bytes: got %d, %v", size, n, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "byte counts", func() bool {
		in := testutil.ToFloat64(g.metrics.bytes.WithLabelValues("in"))
		out := testutil.ToFloat64(g.metrics.bytes.WithLabelValues("out"))
		return in > 65<<20 && in < 67<<20 && out > 65<<20 && out < 67<<20
	})
}

func TestExpectContinueAndTrailers(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		w.Header().Set("Trailer", "X-End")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-End", "yes")
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\nTE: trailers\r\n\r\n")
	r := bufio.NewReader(c)
	if line := readLine(t, r); line != "HTTP/1.1 100 Continue" {
		t.Fatal(line)
	}
	for readLine(t, r) != "" {
	}
	_, _ = io.WriteString(c, "body")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || string(b) != "body" || res.Trailer.Get("X-End") != "yes" {
		t.Errorf("%q %v %v", b, err, res.Trailer)
	}
	// Refused without reading: the client need not send its body.
	c = dial(t, g.address())
	_, _ = io.WriteString(c, "POST /refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
	if line := readLine(t, bufio.NewReader(c)); line != "HTTP/1.1 413 Request Entity Too Large" {
		t.Error(line)
	}
}

func echoSocket(t testing.TB) *httptest.Server {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, b, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, b) != nil {
				return
			}
		}
	})
}

func dialSocket(t testing.TB, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	return c
}

func echo(t testing.TB, c *websocket.Conn, message string) {
	t.Helper()
	if err := c.WriteMessage(websocket.BinaryMessage, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.ReadMessage(); err != nil || string(b) != message {
		t.Fatalf("%d bytes back, %v", len(b), err)
	}
}

func TestSocketsPassThrough(t *testing.T) {
	up := echoSocket(t)
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	c := dialSocket(t, "ws://"+g.address()+"/x")
	echo(t, c, "hello")
	echo(t, c, strings.Repeat("x", 1<<20))
	infos := g.Sessions()
	if len(infos) != 1 || infos[0].State != stateUpgraded || infos[0].BytesIn < 1<<20 || infos[0].BytesOut < 1<<20 || infos[0].Route != "/" {
		t.Errorf("%+v", infos)
	}
	if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 1000) {
		t.Errorf("close: %v", err)
	}
	_ = c.Close()
	eventually(t, "session off the list", func() bool { return len(g.Sessions()) == 0 })
	if n := testutil.ToFloat64(g.metrics.upgrades.WithLabelValues(kindUpstream)); n != 1 {
		t.Errorf("%v upgrades", n)
	}
}

// Bytes that the client sends right behind its upgrade request, before it can
// know the answer, reach the upstream too.
func TestSocketBytesSentAheadAreKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, r)
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	g := start(t, toUpstream(Upstream{Targets: []string{"http://" + l.Addr().String()}}))
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nahead")
	r := bufio.NewReader(c)
	for readLine(t, r) != "" {
	}
	_, _ = io.WriteString(c, " and after")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(r); err != nil || string(b) != "ahead and after" {
		t.Errorf("%q %v", b, err)
	}
}

// Only WebSockets are tunnels: "h2c" would carry requests past every check.
func TestOtherUpgradesAreNotPassedOn(t *testing.T) {
	up := upstream(t, showHeader)
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	got := raw(t, g.address(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "h2c") || strings.Contains(strings.ToLower(got), "http2-settings") {
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
