package gateway

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
)

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLSSpeaksHTTP2AndReloadsCertificates(t *testing.T) {
	up := upstream(t, showHeader)
	cert, key := certificate(t)
	listeners := []Listener{{Address: "127.0.0.1:0", TLS: &TLSFiles{Cert: cert, Key: key}, Upstream: &Upstream{Targets: []string{up.URL}}}}
	g := start(t, Config{Listeners: listeners})
	serial := func() string {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(request(t, http.MethodGet, "https://"+g.address()+"/x", "X_Tandem_User", "forged"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.ProtoMajor != 2 || !strings.Contains(string(b), "X-Forwarded-Proto: https\r\n") || strings.Contains(string(b), "forged") {
			t.Errorf("%s %v %s", res.Proto, err, b)
		}
		return res.TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	newCert, newKey := certificate(t)
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Reload(listeners); err != nil {
		t.Fatal(err)
	}
	if serial() == first {
		t.Error("the old certificate is still used")
	}
	// A socket asks for HTTP/1.1 by itself.
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if _, res, err := d.Dial("wss://"+g.address()+"/", nil); err != websocket.ErrBadHandshake || res.StatusCode != 200 {
		t.Errorf("an upstream without sockets: %v", err)
	}
}

// Everything that wraps the ResponseWriter must let a socket through.
func TestHijackThroughAllWrappers(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(http.Hijacker); !ok {
			t.Error("no http.Hijacker")
		}
		if _, ok := w.(http.Flusher); !ok {
			t.Error("no http.Flusher")
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Errorf("Unwrap: %v", err)
		}
		up := websocket.Upgrader{}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			return
		}
		defer c.Close()
		kind, b, err := c.ReadMessage()
		if err == nil {
			_ = c.WriteMessage(kind, b)
		}
	})
	cfg := routes(Route{Path: "/ws/", Use: "documents"})
	cfg.Handlers = map[string]http.Handler{"documents": handler}
	g := start(t, cfg)
	c := dialSocket(t, "ws://"+g.address()+"/ws/x")
	if infos := g.Sessions(); len(infos) != 1 || infos[0].State != stateUpgraded || infos[0].Route != "/ws/" {
		t.Errorf("%+v", infos)
	}
	echo(t, c, "through")
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("not closed")
	}
	eventually(t, "session off the list", func() bool { return len(g.Sessions()) == 0 })
}

func TestPanicIsAnswered(t *testing.T) {
	cfg := routes(Route{Use: "webapp"})
	cfg.Handlers = map[string]http.Handler{"webapp": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			_, _ = io.WriteString(w, "begin")
			_ = http.NewResponseController(w).Flush()
		}
		panic("secret")
	})}
	g := start(t, cfg)
	if a := get(t, g.url()+"/"); a.status != 500 || strings.Contains(a.body, "secret") || !strings.Contains(a.body, a.header.Get("X-Request-Id")) {
		t.Errorf("%d %s", a.status, a.body)
	}
	res, err := http.Get(g.url() + "/late")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "begin" || err == nil {
		t.Errorf("%q %v", b, err)
	}
	eventually(t, "count", func() bool { return g.failures(reasonPanic) == 2 })
}

// Requests that are under way when routes change finish on the routes that
// they began on; not one fails.
func TestReloadUnderLoad(t *testing.T) {
	const size = 16 << 20
	release := make(chan struct{})
	slow := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		body, _ := noise(size)
		_, _ = io.CopyN(w, body, size/2)
		<-release
		_, _ = io.Copy(w, body)
	})
	site := func(n int) []Listener {
		up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, "%d", n) })
		return []Listener{{Address: "127.0.0.1:0", Routes: []Route{
			{Path: "/slow", Upstream: &Upstream{Targets: []string{slow.URL}, Health: &Health{Interval: time.Millisecond}}},
			{Path: "/", Upstream: &Upstream{Targets: []string{up.URL}}},
		}}}
	}
	sites := [][]Listener{site(0), site(1)}
	g := start(t, Config{Listeners: sites[0]})

	download, err := http.Get(g.url() + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer download.Body.Close()
	got := sha256.New()
	if _, err := io.CopyN(got, download.Body, size/4); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var served [2]atomic.Int64
	for range 4 {
		wg.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for ctx.Err() == nil {
				res, err := tr.RoundTrip(request(t, http.MethodGet, g.url()+"/"))
				if err != nil {
					t.Errorf("%v", err)
					return
				}
				b, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != 200 || len(b) != 1 {
					t.Errorf("%d %q %v", res.StatusCode, b, err)
					return
				}
				served[b[0]-'0'].Add(1)
			}
		})
	}
	for i := range 100 {
		if err := g.Reload(sites[i%2]); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			before := served[i%2].Load()
			eventually(t, "the new routes", func() bool { return served[i%2].Load() > before || t.Failed() })
		}
	}
	cancel()
	wg.Wait()
	close(release)
	if _, err := io.Copy(got, download.Body); err != nil {
		t.Errorf("the download: %v", err)
	}
	body, want := noise(size)
	_, _ = io.Copy(io.Discard, body)
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Error("the download is damaged")
	}
}

func TestReloadRefusesWhatItCannotDo(t *testing.T) {
	up := upstream(t, showHeader)
	good := Upstream{Targets: []string{up.URL}}
	cfg := toUpstream(good)
	g := start(t, cfg)
	cert, key := certificate(t)
	for name, listeners := range map[string][]Listener{
		"none":    nil,
		"limits":  {{Address: "127.0.0.1:0", Upstream: &good, Limits: Limits{Header: 1 << 20}}},
		"TLS":     {{Address: "127.0.0.1:0", Upstream: &good, TLS: &TLSFiles{Cert: cert, Key: key}}},
		"TCP":     {{Address: "127.0.0.1:0", TCP: &TCP{Target: "127.0.0.1:1"}}},
		"invalid": {{Address: "127.0.0.1:0", Upstream: &Upstream{}}},
		"no root": {{Address: "127.0.0.1:0", Files: &Files{Root: "/does/not/exist"}}},
	} {
		if err := g.Reload(listeners); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if a := get(t, g.url()); a.status != 200 {
		t.Errorf("the old routes: %d", a.status)
	}
}

// Shutdown lets a request finish, parts from proxied sockets, and refuses
// what comes later.
func TestShutdown(t *testing.T) {
	release := make(chan struct{})
	began := make(chan struct{})
	slow := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	sockets := echoSocket(t)
	g := start(t, routes(
		Route{Path: "/slow", Upstream: &Upstream{Targets: []string{slow.URL}}},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{sockets.URL}}},
	))
	c := dialSocket(t, "ws://"+g.address()+"/")
	echo(t, c, "x")
	answered := make(chan answer, 1)
	go func() { answered <- get(t, g.url()+"/slow") }()
	<-began
	down := make(chan error, 1)
	go func() { down <- g.Shutdown(t.Context()) }()
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the socket is still open")
	}
	eventually(t, "no new connections", func() bool {
		c, err := net.Dial("tcp", g.address())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case err := <-down:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(release)
	if a := <-answered; a.status != 200 || a.body != "done" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if err := g.Reload(g.cfg.Listeners); err == nil {
		t.Error("Reload after Shutdown")
	}
}

// Nobody waits for a connection that was opened in advance: net/http does, for five seconds.
func TestShutdownWithUnusedConnections(t *testing.T) {
	up := upstream(t, showHeader)
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	unused := dial(t, g.address())
	get(t, g.url()+"/") // so that the one before has been accepted
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	if n, err := unused.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes", n)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	g, err := New(toUpstream(Upstream{Targets: []string{up.URL}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "request under way", func() bool { return g.state() == stateActive })
	cancel()
	if err := <-served; err == nil {
		t.Error("no error")
	}
	_, _ = bufio.NewReader(c).ReadByte()
	if err := g.Serve(t.Context()); err == nil {
		t.Error("Serve after the end")
	}
}

func TestListenIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := deadAddress(t)
	root := t.TempDir()
	g, err := New(Config{Listeners: []Listener{
		{Address: free, Files: &Files{Root: root}}, {Address: taken.Addr().String(), Files: &Files{Root: root}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("Listen: %v", err)
	}
	again, err := net.Listen("tcp", free)
	if err != nil {
		t.Fatalf("the free address is still bound: %v", err)
	}
	_ = again.Close()
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	cfg := routes(Route{Files: &Files{Root: t.TempDir()}})
	cfg.Metrics = prometheus.NewRegistry()
	if _, err := New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil {
		t.Error("two gateways in one registry")
	}
}

// Draining, the gateway serves who comes, and keeps nobody.
func TestDrain(t *testing.T) {
	up := upstream(t, showHeader)
	sockets := echoSocket(t)
	cfg := routes(
		Route{Path: "/page", Upstream: &Upstream{Targets: []string{up.URL}}},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{sockets.URL}}},
	)
	cfg.Listeners = append(cfg.Listeners, Listener{Address: "127.0.0.1:0", TCP: &TCP{Target: up.Listener.Addr().String()}})
	cfg.Drain.Spread = time.Hour
	g := start(t, cfg)
	c := dialSocket(t, "ws://"+g.address()+"/")
	echo(t, c, "x")
	drained := make(chan struct{})
	go func() { defer close(drained); g.Drain(t.Context()) }()
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the socket is still open")
	}
	<-drained // there was one socket, and so nothing to spread
	if got := raw(t, g.address(), "GET /page HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("a page: %s", got)
	}
	if _, res, err := websocket.DefaultDialer.Dial("ws://"+g.address()+"/", nil); err == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a new socket: %v, %v", res, err)
	}
	if c, err := net.Dial("tcp", g.Addresses()[1].String()); err == nil {
		_ = c.Close()
		t.Error("a raw TCP connection is accepted")
	}
}
