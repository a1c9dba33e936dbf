package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// bondSite is a gateway to an echoing upstream that requires login, and
// follows its sessions.
func bondSite(t *testing.T, server *redistest.Server, watch sessionstore.WatchConfig) (*Gateway, *sessionstore.Factory) {
	t.Helper()
	f, err := sessionstore.New(server.Client(t), sessionstore.Config{TouchEvery: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	store, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := sessionstore.NewWatcher(f, watch)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	cfg := routes(
		Route{Path: "/stream/", Upstream: &Upstream{Targets: []string{endlessUpstream(t).URL}, Login: LoginRequired}},
		Route{Upstream: &Upstream{Targets: []string{echoSocket(t).URL}, Login: LoginRequired}},
	)
	cfg.Store, cfg.Cookie = store, "tandem"
	cfg.Bind = func(ctx context.Context, id string, l sessionstore.Listener) (Binding, *sessionstore.Snapshot, error) {
		return w.Bind(ctx, id, l)
	}
	return start(t, cfg), f
}

func dialAs(t *testing.T, g *Gateway, id string) (*websocket.Conn, *http.Response) {
	t.Helper()
	c, resp, err := websocket.DefaultDialer.Dial("ws://"+g.address()+"/x", http.Header{"Cookie": {"tandem=" + id}})
	if err != nil {
		return nil, resp
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	return c, resp
}

func loginAs(t *testing.T, f *sessionstore.Factory, user string) *sessionstore.Session {
	t.Helper()
	s, err := f.Login(t.Context(), nil, sessionstore.Login{UserID: user, UserName: user})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A socket to an upstream that requires login is closed with its session,
// with the code and the reason of every other socket.
func TestSocketsEndWithTheirSessions(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		g, f := bondSite(t, server, sessionstore.WatchConfig{VerifyEvery: 100 * time.Millisecond, MaxUnverified: 300 * time.Millisecond})
		closed := func(c *websocket.Conn, code int, text string) {
			t.Helper()
			if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, code) || !strings.HasSuffix(err.Error(), text) {
				t.Errorf("got %v, want %d %s", err, code, text)
			}
		}

		if _, resp := dialAs(t, g, "none"); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("nobody: %d", resp.StatusCode)
		}
		for _, reason := range []sessionstore.Reason{sessionstore.ReasonLogout, sessionstore.ReasonRevoked} {
			ada := loginAs(t, f, "ada")
			c, _ := dialAs(t, g, ada.ID())
			echo(t, c, "hello")
			if err := ada.Rotate(t.Context(), nil); err != nil { // another ID is no end
				t.Fatal(err)
			}
			echo(t, c, strings.Repeat("x", 70_000))
			if err := f.EndHandle(t.Context(), ada.Handle(), reason); err != nil {
				t.Fatal(err)
			}
			closed(c, 4401, string(reason))
		}

		bob := loginAs(t, f, "bob")
		c, _ := dialAs(t, g, bob.ID())
		echo(t, c, "hello")
		if _, err := f.Update(t.Context(), bob.ID(), func(s *sessionstore.Session) error { return s.Delete("user.id") }); err != nil {
			t.Fatal(err)
		}
		closed(c, 4401, "logout")

		eve := loginAs(t, f, "eve")
		if c, _ = dialAs(t, g, eve.ID()); c == nil {
			t.Fatal("no socket")
		}
		echo(t, c, "hello")
		server.Stop()
		closed(c, 4503, "session not verified")
		eventually(t, "all sockets gone", func() bool { return len(g.Sessions()) == 0 })
		if n := g.failures(reasonSessionEnded); n != 3 {
			t.Errorf("%v sockets counted", n)
		}
	})
}

// A client that neither reads nor leaves is cut.
func TestSocketOfADeafClientEnds(t *testing.T) {
	g, f := bondSite(t, redistest.Mini(t), sessionstore.WatchConfig{})
	ada := loginAs(t, f, "ada")
	c, _ := dialAs(t, g, ada.ID())
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	go func() { // until nothing more fits in any buffer
		for c.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20)) == nil {
		}
	}()
	eventually(t, "megabytes under way", func() bool { i := g.Sessions(); return len(i) == 1 && i[0].BytesIn > 4<<20 })
	if err := ada.Destroy(t.Context(), sessionstore.ReasonLogout); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket gone", func() bool { return len(g.Sessions()) == 0 })
}

// What a client sends is activity; pings and pongs are not.
func TestSocketTrafficIsActivity(t *testing.T) {
	server := redistest.Mini(t)
	g, f := bondSite(t, server, sessionstore.WatchConfig{VerifyEvery: time.Hour})
	ada := loginAs(t, f, "ada")
	c, _ := dialAs(t, g, ada.ID())
	rdb, key := server.Client(t), "session:"+ada.ID()
	ttl := func() time.Duration { return rdb.PTTL(t.Context(), key).Val() }
	shorten := func() { rdb.Expire(t.Context(), key, time.Minute) }

	shorten()
	pong := make(chan struct{}, 1)
	c.SetPongHandler(func(string) error { pong <- struct{}{}; return nil })
	if err := c.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _, _ = c.ReadMessage() }()
	<-pong
	if left := ttl(); left > time.Minute {
		t.Errorf("a ping is activity: %v left", left)
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session's life renewed", func() bool { return ttl() > 2*time.Minute })
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("hello"), uint8(1), uint8(3))
	f.Add(bytes.Repeat([]byte("x"), 70_000), uint8(9), uint8(255))
	f.Add([]byte{}, uint8(0), uint8(1))
	f.Fuzz(func(t *testing.T, payload []byte, opcode, step uint8) {
		opcode, step = opcode&0x0f, max(step, 1)
		head := []byte{0x80 | opcode, 0x80}
		switch n := len(payload); {
		case n < 126:
			head[1] |= byte(n)
		case n < 1<<16:
			head[1] |= 126
			head = binary.BigEndian.AppendUint16(head, uint16(n))
		default:
			head[1] |= 127
			head = binary.BigEndian.AppendUint64(head, uint64(n))
		}
		stream := append(append(head, 1, 2, 3, 4), payload...)
		stream = append(stream, closeFrame(4401, "logout")...)
		var fr frames
		data, ends := false, 0
		for len(stream) > 0 {
			n := min(int(step), len(stream))
			data = fr.follow(stream[:n]) || data
			stream = stream[n:]
			if fr.between() {
				ends++
			}
		}
		if !fr.between() || data != (opcode < 8) || ends == 0 {
			t.Errorf("between %v, data %v for opcode %d", fr.between(), data, opcode)
		}
	})
}
