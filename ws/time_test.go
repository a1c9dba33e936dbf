package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// pipes is a listener whose connections are in memory and have no buffers:
// in a bubble of synctest time passes only while everybody waits, and a
// client that does not read holds its writer up at once.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	server, client := net.Pipe()
	p.conns <- server
	return client, nil
}

// bound is a Binding to a session that does not change.
type bound struct{ snapshot *sessionstore.Snapshot }

func (b bound) Update(context.Context, func(*sessionstore.Session) error) (*sessionstore.Snapshot, error) {
	return b.snapshot, nil
}
func (b bound) Touch()                           {}
func (b bound) Snapshot() *sessionstore.Snapshot { return b.snapshot }
func (b bound) Close()                           {}

// bubble is one replica in a bubble of synctest.
type bubble struct {
	t       *testing.T
	hub     *ws.Hub
	pipes   *pipes
	network *wstest.Network
}

func inBubble(t *testing.T, change func(*ws.Config), test func(b *bubble)) {
	t.Helper()
	w := newWorld(t)
	s, err := w.factory.Load(t.Context(), w.login("7").id)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := s.Snapshot()
	cfg := w.config("replica1")
	cfg.SessionID = func(*http.Request) (string, bool) { return "id", true }
	cfg.Bind = func(context.Context, string, sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
		return bound{snapshot}, snapshot, nil
	}
	if change != nil {
		change(&cfg)
	}
	synctest.Test(t, func(t *testing.T) {
		network := wstest.NewNetwork(0)
		cfg.Backplane = network.Replica("replica1")
		hub, err := ws.NewHub(cfg)
		if err != nil {
			t.Fatal(err)
		}
		b := &bubble{t: t, hub: hub, network: network, pipes: &pipes{conns: make(chan net.Conn), done: make(chan struct{})}}
		server := &http.Server{Handler: hub.Documents()}
		go func() { _ = server.Serve(b.pipes) }()
		defer func() {
			if err := hub.Close(); err != nil {
				t.Error(err)
			}
			_ = server.Close()
		}()
		test(b)
	})
}

func (b *bubble) dial() *wstest.Client {
	b.t.Helper()
	return wstest.Dial(b.t, "ws://tandem.test/d", wstest.DialOptions{Dialer: &websocket.Dialer{NetDialContext: b.pipes.dial}})
}

func (b *bubble) join() *wstest.Client {
	b.t.Helper()
	c := b.dial()
	c.Authenticate()
	c.Join(nil)
	return c
}

// raw joins with a connection that reads only when the test does.
func (b *bubble) raw() *websocket.Conn {
	b.t.Helper()
	dialer := websocket.Dialer{NetDialContext: b.pipes.dial}
	c, _, err := dialer.DialContext(b.t.Context(), "ws://tandem.test/d", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	b.read(c, "hello")
	b.write(c, `{"type":"authenticate"}`)
	b.read(c, "auth_result")
	b.write(c, `{"type":"join_document"}`)
	b.read(c, "joined_document")
	return c
}

func (b *bubble) write(c *websocket.Conn, text string) {
	b.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		b.t.Fatal(err)
	}
}

// read returns the next frame of that type.
func (b *bubble) read(c *websocket.Conn, kind string) map[string]any {
	b.t.Helper()
	for {
		_, data, err := c.ReadMessage()
		if err != nil {
			b.t.Fatalf("waiting for %s: %v", kind, err)
		}
		var f map[string]any
		if err := json.Unmarshal(data, &f); err != nil {
			b.t.Fatal(err)
		}
		if f["type"] == kind {
			return f
		}
	}
}

func TestHeartbeatFindsDeadPeers(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		alive := b.join()
		b.raw() // reads nothing any more: no pong
		if n, _ := b.hub.Counts(); n != 2 {
			t.Fatalf("%d connections", n)
		}
		time.Sleep(35 * time.Second)
		if n, _ := b.hub.Counts(); n != 2 {
			t.Fatalf("%d connections: it may be back", n)
		}
		time.Sleep(15 * time.Second)
		if n, _ := b.hub.Counts(); n != 1 {
			t.Fatalf("%d connections after the dead peer's time", n)
		}
		time.Sleep(10 * time.Minute)
		alive.SendText(`{"type":"ping"}`)
		alive.Expect("pong")
	})
}

// Somebody else took the session over while it was being bound: nobody heard
// of that, and the connection must not speak for either.
func TestSessionTakenOverMeanwhile(t *testing.T) {
	w := newWorld(t)
	other, err := w.factory.Load(t.Context(), w.login("8").id)
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, func(cfg *ws.Config) {
		bind := cfg.Bind
		cfg.Bind = func(ctx context.Context, id string, l sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
			_, snapshot, err := bind(ctx, id, l)
			return bound{other.Snapshot()}, snapshot, err
		}
	}, func(b *bubble) {
		c := b.dial()
		c.SendText(`{"type":"authenticate"}`)
		expectClose(t, c, ws.CloseUnauthorized, "logout")
	})
}

func TestAuthTimeoutIsExact(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		c := b.dial()
		time.Sleep(10*time.Second - time.Millisecond)
		c.SendText(`{"type":"ping"}`)
		c.ExpectError("AUTH_REQUIRED")
		time.Sleep(2 * time.Millisecond)
		expectClose(t, c, ws.CloseAuthTimeout, "authentication timed out")
	})
}

// The session takes for ever to be found: it is the server that is slow.
func TestAuthTimeoutOfASlowServer(t *testing.T) {
	inBubble(t, func(cfg *ws.Config) {
		cfg.Documents.AuthTimeout = time.Second
		cfg.Bind = func(ctx context.Context, _ string, _ sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
			<-ctx.Done()
			return nil, nil, fmt.Errorf("%w: %w", sessionstore.ErrUnavailable, ctx.Err())
		}
	}, func(b *bubble) {
		c := b.dial()
		c.SendText(`{"type":"authenticate"}`)
		expectClose(t, c, ws.CloseRedisAwayLong, "session not verified")
	})
}

// Nobody could authenticate while Redis was away: they shall come back, which
// the code of a timeout forbids.
func TestAuthTimeoutWithoutRedis(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		c := b.dial()
		b.hub.SetAvailable(false)
		time.Sleep(10*time.Second + time.Millisecond)
		expectClose(t, c, ws.CloseRedisAwayLong, "session not verified")
	})
}

// A receiver that stops reading loses the oldest operations, learns how many,
// and catches up; the others do not notice.
func TestSlowReceiver(t *testing.T) {
	inBubble(t, func(cfg *ws.Config) { cfg.Documents.OperationsBehind = 16 }, func(b *bubble) {
		quick := b.join()
		slow := b.raw()
		b.read(slow, "presence") // its own join
		const count = 100
		for seq := uint64(1); seq <= count; seq++ {
			quick.Operate(fmt.Sprint(seq), seq)
			if op := quick.ExpectOperation(); op.Seq != seq {
				t.Fatalf("seq %d, not %d", op.Seq, seq)
			}
			synctest.Wait()
		}
		first := b.read(slow, "operation") // was on its way
		lagged := b.read(slow, "lagged")
		dropped := lagged["dropped"].(float64)
		if lagged["channel"] != "operations" || lagged["seq"].(float64) != count-16 || first["seq"].(float64)+dropped != count-16 {
			t.Errorf("%v after %v", lagged, first["seq"])
		}
		for seq := count - 16 + 1; seq <= count; seq++ {
			if op := b.read(slow, "operation"); int(op["seq"].(float64)) != seq {
				t.Fatalf("seq %v, not %d", op["seq"], seq)
			}
		}
		b.write(slow, fmt.Sprintf(`{"type":"sync_request","since":{"epoch":%q,"seq":%v}}`, first["epoch"], first["seq"]))
		if sync := b.read(slow, "sync_response"); sync["from"].(float64) != first["seq"].(float64)+1 || sync["to"].(float64) != count {
			t.Errorf("%v to %v", sync["from"], sync["to"])
		}
	})
}

func TestSlowReceiverOfPresence(t *testing.T) {
	inBubble(t, func(cfg *ws.Config) { cfg.Documents.PresenceBehind = 4 }, func(b *bubble) {
		slow := b.raw()
		quick := b.join()
		for i := range 20 {
			quick.Send(map[string]any{"type": "presence", "state": i})
			time.Sleep(60 * time.Millisecond)
		}
		lagged := b.read(slow, "lagged")
		if lagged["channel"] != "presence" || lagged["dropped"].(float64) < 10 {
			t.Errorf("%v", lagged)
		}
		b.write(slow, `{"type":"sync_request"}`)
		sync := b.read(slow, "sync_response")
		if present, _ := sync["presence"].([]any); len(present) != 2 {
			t.Errorf("everybody again: %v", sync)
		}
		b.write(slow, `{"type":"sync_request"}`)
		if sync := b.read(slow, "sync_response"); sync["presence"] != nil {
			t.Error("everybody is told twice")
		}
	})
}

// Many client libraries ping by themselves. One whose program pauses may go on
// where it was; its pings do not shorten the time that it has.
func TestPausedReceiverThatPings(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		paused := b.raw()
		quick := b.join()
		quick.Operate("a", 1)
		for i := range 4 {
			err := paused.WriteControl(websocket.PingMessage, fmt.Append(nil, i), time.Now().Add(time.Second))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Second)
		}
		var answered []string
		paused.SetPongHandler(func(data string) error { answered = append(answered, data); return nil })
		b.read(paused, "operation")
		b.write(paused, `{"type":"ping"}`)
		b.read(paused, "pong")
		if want := []string{"3"}; !slices.Equal(answered, want) {
			t.Errorf("pongs %q, not %q", answered, want)
		}
	})
}

// A receiver that never reads again is dropped when a write has hung for
// 45 s; a direct reply that waits for it does not wait longer.
func TestStuckReceiver(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.raw()
		quick := b.join()
		quick.Operate("a", 1)
		time.Sleep(46 * time.Second)
		if n, _ := b.hub.Counts(); n != 1 {
			t.Errorf("%d connections", n)
		}
		quick.ExpectPresence("the stuck one left", func(p wstest.Presence) bool { return len(p.Left) == 1 })
	})
}

func TestRateLimitKeptUp(t *testing.T) {
	inBubble(t, func(cfg *ws.Config) { cfg.Limits.FramesPerSecond = 10 }, func(b *bubble) {
		c := b.dial()
		c.Authenticate()
		began := time.Now()
		for time.Since(began) < 9*time.Second {
			c.SendText(`{"type":"ping"}`)
			time.Sleep(20 * time.Millisecond)
		}
		c.ExpectError("RATE_LIMITED")
		time.Sleep(5 * time.Second) // it calms down: forgotten
		c.Received()
		c.SendText(`{"type":"ping"}`)
		c.Expect("pong")
		began = time.Now()
		for time.Since(began) < 14*time.Second {
			c.SendText(`{"type":"ping"}`)
			time.Sleep(20 * time.Millisecond)
		}
		expectClose(t, c, ws.CloseTooMuch, "rate limit")
	})
}

// A client that sends and never reads is held back, not remembered.
func TestRepliesAreBounded(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		c := b.raw()
		sent := 0
		for ; sent < 1000; sent++ {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			if c.WriteMessage(websocket.TextMessage, []byte(`{"type":"session_get"}`)) != nil {
				break
			}
		}
		if sent < 32 || sent > 100 {
			t.Errorf("%d requests were taken from a client that does not read", sent)
		}
	})
}

// Replies are bounded in bytes too: 32 histories would be 32 MiB.
func TestLongRepliesAreBounded(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		other := b.join()
		for i := range 20 {
			other.Operate(fmt.Sprint(i), strings.Repeat("x", 60_000))
		}
		c := b.raw()
		sent := 0
		for ; sent < 100; sent++ {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			if c.WriteMessage(websocket.TextMessage, []byte(`{"type":"sync_request"}`)) != nil {
				break
			}
		}
		// One is being written, two wait, one waits for them, and requests.
		if sent > 32+5 {
			t.Errorf("%d histories were asked for by a client that does not read", sent)
		}
	})
}

func TestPresenceTick(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		c, other := b.join(), b.join()
		time.Sleep(time.Second)
		other.Received()
		for i := range 1000 { // one second of movement
			c.SendText(fmt.Sprintf(`{"type":"presence","state":%d}`, i))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		frames := other.Received()
		if len(frames) < 15 || len(frames) > 22 {
			t.Errorf("%d presence frames in a second", len(frames))
		}
		if last := frames[len(frames)-1]; !strings.Contains(string(last.Raw), `"state":999`) {
			t.Errorf("the newest state is missing: %s", last.Raw)
		}
	})
}

// Whoever joins is told of everybody who had joined before, though all of
// that happens within one tick: here, and on the other replicas by what the
// backplane has.
func TestJoinsWithinATick(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		elsewhere := b.network.Replica("replica2")
		began := time.Now()
		for n := 1; n <= 3; n++ {
			c := b.dial()
			c.Authenticate()
			if present := c.Join(nil).Presence; len(present) != n {
				t.Errorf("member %d is told of %d", n, len(present))
			}
			if members, err := elsewhere.Members(t.Context(), "d"); err != nil || len(members) != n {
				t.Errorf("%d members are announced, not %d: %v", len(members), n, err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestDrainIsSpread(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		const count = 50
		clients := make([]*wstest.Client, count)
		for i := range clients {
			clients[i] = b.join()
		}
		began := time.Now()
		go func() {
			if err := b.hub.Drain(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(6 * time.Second)
		halfway, _ := b.hub.Counts()
		for _, c := range clients {
			expectClose(t, c, ws.CloseRestart, "restart")
		}
		if took := time.Since(began); took < 5*time.Second || took > 12*time.Second {
			t.Errorf("took %v", took)
		}
		if halfway < 5 || halfway > count-5 {
			t.Errorf("%d of %d left in the middle", halfway, count)
		}
	})
}
