package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

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
	eventually(t, "one upgrade counted", func() bool { return total(g.metrics.upgrades, "kind", kindUpstream) == 1 })
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
