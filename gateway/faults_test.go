package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A target that takes the head of a request and then nothing more must not
// hold an upload for ever.
func TestTargetStopsTakingTheRequest(t *testing.T) {
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
			defer c.Close()
			_, _ = bufio.NewReaderSize(c, 16).ReadString('\n')
		}
	}()
	g := start(t, toUpstream(Upstream{Targets: []string{"http://" + l.Addr().String()}, Timeouts: Timeouts{Send: 100 * time.Millisecond}}))
	req := request(t, http.MethodPost, g.url())
	req.Body = io.NopCloser(io.LimitReader(endless{}, 64<<20))
	req.ContentLength = 64 << 20
	if a := do(t, req); a.status != 504 || !strings.Contains(a.body, "send_timeout") || g.failures(reasonSendTimeout) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A body that is shorter than its upstream said is no whole body to the
// client either; of a longer one the client gets what was announced, and the
// rest is nobody's answer.
func TestUpstreamLiesAboutItsLength(t *testing.T) {
	var long atomic.Bool
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		if long.Load() {
			_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
		} else {
			_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
		}
		_ = rw.Flush()
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	res, err := http.Get(g.url())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil || string(b) != "hello" {
		t.Errorf("short: %q %v", b, err)
	}
	eventually(t, "count", func() bool { return g.failures(reasonUpstreamAborted) == 1 })
	long.Store(true)
	for range 5 {
		if a := get(t, g.url()); a.status != 200 || a.body != "hello" {
			t.Errorf("long: %d %q", a.status, a.body)
		}
	}
}

// A target that takes requests and never answers is passed over after a few,
// and found again when it does.
func TestStumblingTargetIsPassedOver(t *testing.T) {
	p := poolOf(t, BalanceRoundRobin, 2)
	bad, now := p.targets[0], time.Now()
	for range mayStumble - 1 {
		bad.failed(reasonUpstreamClosed, now)
	}
	if !bad.available(now.UnixNano()) {
		t.Error("ejected too soon")
	}
	bad.answered()
	for range mayStumble {
		bad.failed(reasonResponseTimeout, now)
	}
	if bad.available(now.UnixNano()) {
		t.Error("still used")
	}
	bad.failed(reasonClientGone, now)

	// After its pause one request finds out for all.
	bad.ejected.Store(now.Add(-time.Second).UnixNano())
	probes := 0
	for range 10 {
		if p.pick(exchangeOf(""), nil) == bad {
			probes++
		}
	}
	if probes != 1 {
		t.Errorf("%d probes at a time", probes)
	}
	bad.answered()
	if !bad.available(time.Now().UnixNano()) {
		t.Error("an answer does not bring it back")
	}
}

// mortal is an upstream that can be killed: its connections are reset within
// whatever they carry, and nobody listens any more.
type mortal struct {
	server *http.Server
	url    string
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
}

func newMortal(t *testing.T, h http.HandlerFunc) *mortal {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{url: "http://" + l.Addr().String(), conns: map[net.Conn]struct{}{}}
	m.server = &http.Server{Handler: h, ConnState: func(c net.Conn, s http.ConnState) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if s == http.StateNew {
			m.conns[c] = struct{}{}
		}
	}}
	go func() { _ = m.server.Serve(l) }()
	t.Cleanup(func() { _ = m.server.Close() })
	return m
}

func (m *mortal) kill() {
	m.mu.Lock()
	for c := range m.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	m.mu.Unlock()
	_ = m.server.Close()
}

// One of three targets dies under load: no safe request notices.
func TestOneOfThreeDiesUnderLoad(t *testing.T) {
	for _, balance := range []string{BalanceLeastRequests, BalanceRoundRobin, BalanceSessionHash} {
		t.Run(balance, func(t *testing.T) {
			t.Parallel()
			var served [3]atomic.Int64
			var targets []string
			var victim *mortal
			for i := range served {
				victim = newMortal(t, func(w http.ResponseWriter, _ *http.Request) {
					served[i].Add(1)
					_, _ = fmt.Fprint(w, "ok")
				})
				targets = append(targets, victim.url)
			}
			g := start(t, toUpstream(Upstream{Targets: targets, Balance: balance, Retries: 1}))
			tr := &http.Transport{MaxIdleConnsPerHost: 16}
			defer tr.CloseIdleConnections()
			stop := make(chan struct{})
			var clients sync.WaitGroup
			var done atomic.Int64
			for range 8 {
				clients.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						res, err := tr.RoundTrip(request(t, http.MethodGet, g.url()))
						if err != nil {
							t.Error(err)
							return
						}
						b, err := io.ReadAll(res.Body)
						_ = res.Body.Close()
						if err != nil || res.StatusCode != 200 || string(b) != "ok" {
							t.Errorf("%d %q %v", res.StatusCode, b, err)
							return
						}
						done.Add(1)
					}
				})
			}
			enough := func(n int64) func() bool { return func() bool { return t.Failed() || done.Load() >= n } }
			eventually(t, "load", enough(200))
			victim.kill()
			eventually(t, "load after the death", enough(done.Load()+500))
			close(stop)
			clients.Wait()
			if balance != BalanceSessionHash && testutil.ToFloat64(g.metrics.retries) == 0 {
				t.Error("nobody met the dead target: this test shows nothing")
			}
		})
	}
}
