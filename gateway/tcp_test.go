package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// tcpSite is a gateway in front of a raw server that handles each connection
// with serve.
func tcpSite(t *testing.T, serve func(*net.TCPConn)) *Gateway {
	t.Helper()
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
			serve(c.(*net.TCPConn))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", TCP: &TCP{Target: l.Addr().String()}}}})
}

func (g *Gateway) state() string {
	if infos := g.Sessions(); len(infos) == 1 {
		return infos[0].State
	}
	return ""
}

func TestHalfCloseByTheClient(t *testing.T) {
	g := tcpSite(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // until the client is done
		_, _ = c.Write(append(b, " and back"...))
	})
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "there")
	eventually(t, "open", func() bool { return g.state() == stateOpen })
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "there and back" {
		t.Errorf("%q %v", b, err)
	}
	eventually(t, "session ends when no direction can flow", func() bool { return g.state() == "" })
}

func TestHalfCloseByTheTarget(t *testing.T) {
	got := make(chan string, 1)
	g := tcpSite(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "banner")
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	c := dial(t, g.address())
	if b, err := io.ReadAll(c); err != nil || string(b) != "banner" {
		t.Fatalf("%q %v", b, err)
	}
	eventually(t, "half-closed", func() bool { return g.state() == stateHalfClosed })
	_, _ = io.WriteString(c, "still flows")
	_ = c.CloseWrite()
	if b := <-got; b != "still flows" {
		t.Errorf("%q", b)
	}
	eventually(t, "end", func() bool { return g.state() == "" })
}

func TestResetEndsBothDirections(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		ended := make(chan struct{})
		g := tcpSite(t, func(c *net.TCPConn) {
			_, _ = io.Copy(io.Discard, c)
			close(ended)
		})
		c := dial(t, g.address())
		_, _ = io.WriteString(c, "x")
		eventually(t, "open", func() bool { return g.state() == stateOpen })
		_ = c.SetLinger(0)
		_ = c.Close()
		<-ended
		eventually(t, "end", func() bool { return g.state() == "" })
	})
	t.Run("target", func(t *testing.T) {
		g := tcpSite(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
		})
		c := dial(t, g.address())
		_, _ = io.WriteString(c, "x")
		_, _ = io.ReadAll(c)
		eventually(t, "end", func() bool { return g.state() == "" })
	})
}

func TestTCPTargetIsDead(t *testing.T) {
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", TCP: &TCP{Target: deadAddress(t)}}}})
	c := dial(t, g.address())
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("%q %v", b, err)
	}
	eventually(t, "count", func() bool {
		return g.failures(reasonConnectFailed) == 1
	})
}

// A receiver that reads nothing stops the sender: what is in between is
// bounded by the sockets' buffers and one copy buffer.
func TestSlowReceiverStopsTheSender(t *testing.T) {
	release := make(chan struct{})
	var hashed []byte
	done := make(chan struct{})
	g := tcpSite(t, func(c *net.TCPConn) {
		defer close(done)
		<-release
		h := sha256.New()
		_, _ = io.Copy(h, c)
		hashed = h.Sum(nil)
	})
	const size = 64 << 20
	c := dial(t, g.address())
	body, sent := noise(size)
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, struct{ io.Reader }{body})
		_ = c.CloseWrite()
		written <- err
	}()
	var stalledAt int64
	eventually(t, "stall", func() bool {
		infos := g.Sessions()
		if len(infos) != 1 {
			return false
		}
		before := stalledAt
		stalledAt = infos[0].BytesIn
		time.Sleep(50 * time.Millisecond)
		return stalledAt > 0 && stalledAt == before
	})
	if stalledAt > size/2 {
		t.Errorf("%d bytes were taken from a client whose target reads nothing", stalledAt)
	}
	close(release)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	<-done
	if !bytes.Equal(hashed, sent.Sum(nil)) {
		t.Error("bytes were changed")
	}
	eventually(t, "end", func() bool { return g.state() == "" })
}

func TestTCPOverTLS(t *testing.T) {
	cert, key := certificate(t)
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
		_, _ = io.Copy(c, c)
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", TLS: &TLSFiles{Cert: cert, Key: key}, TCP: &TCP{Target: l.Addr().String()}}}})
	c := tls.Client(dial(t, g.address()), &tls.Config{InsecureSkipVerify: true})
	_, _ = io.WriteString(c, "secret")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "secret" {
		t.Errorf("%q %v", b, err)
	}
}

// At the end of its time a drain cuts what has not ended by itself.
func TestShutdownCutsTCP(t *testing.T) {
	g := tcpSite(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "x")
	eventually(t, "open", func() bool { return g.state() == stateOpen })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Shutdown(ctx); err == nil {
		t.Error("Shutdown did not say that it cut a connection")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}
