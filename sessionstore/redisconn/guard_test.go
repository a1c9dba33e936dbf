package redisconn

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A Redis that closes idle clients is not noticed: every connection that it
// closed is replaced before the command, and no retry hides it.
func TestServerClosesIdleConnections(t *testing.T) {
	transports(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		reg := prometheus.NewRegistry()
		c := open(t, Config{URL: s.URL(), CheckEvery: 500 * time.Millisecond, Metrics: reg})
		rdb := c.Client()
		fill(t, rdb, 8)

		admin := s.Client(t)
		if err := admin.ConfigSet(ctx, "timeout", "1").Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "redis closes the idle clients", func() bool {
			list := admin.ClientList(ctx).Val()
			return strings.Count(list, "name=tandem ") == 0
		})
		for range 10 {
			if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
				t.Fatalf("a command after the idle time: %v", err)
			}
		}
		pipe := rdb.TxPipeline()
		pipe.Set(ctx, "a", 1, 0)
		get := pipe.Get(ctx, "a")
		if _, err := pipe.Exec(ctx); err != nil || get.Val() != "1" {
			t.Fatalf("a transaction after the idle time: %v, %q", err, get.Val())
		}
		// Over TLS the farewell hides the end of the connection: a ping finds it.
		n := metric(t, reg, "tandem_redis_idle_checks_total", checkClosed) +
			metric(t, reg, "tandem_redis_idle_checks_total", checkFailed)
		if n == 0 {
			t.Error("no connection was found closed")
		}
		for _, cls := range classes {
			if n := metric(t, reg, "tandem_redis_errors_total", string(cls)); n != 0 {
				t.Errorf("%v errors of class %s", n, cls)
			}
		}
		if !c.Up() {
			t.Error("not up")
		}
	})
}

// A middlebox that silently forgot all idle flows costs the next command one
// ping's time-out, and the ones after it nothing.
func TestMiddleboxForgetsIdleFlows(t *testing.T) {
	transports(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		link := redistest.NewLink(t, s.Addr())
		reg := prometheus.NewRegistry()
		c := open(t, Config{URL: s.URLAt(link.Addr()), CheckEvery: 50 * time.Millisecond, CommandTimeout: time.Second, Metrics: reg})
		rdb := c.Client()
		fill(t, rdb, 8)
		link.DropIdle()
		time.Sleep(100 * time.Millisecond) // the idle time is what is tested

		begin := time.Now()
		if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
			t.Fatalf("the next command: %v", err)
		}
		if took := time.Since(begin); took > 900*time.Millisecond {
			t.Errorf("the next command took %s, want one ping's time-out of 500ms", took)
		}
		begin = time.Now()
		done := make(chan error)
		for range 16 {
			go func() { done <- rdb.Get(ctx, "k").Err() }()
		}
		for range 16 {
			if err := <-done; err != nil {
				t.Errorf("a later command: %v", err)
			}
		}
		if took := time.Since(begin); took > 400*time.Millisecond {
			t.Errorf("the commands after it took %s", took)
		}
		if n := metric(t, reg, "tandem_redis_idle_checks_total", checkFailed); n == 0 {
			t.Error("no ping failed")
		}
		if n := metric(t, reg, "tandem_redis_idle_checks_total", checkPresumed); n == 0 {
			t.Error("no connection was dropped unasked")
		}
		if !c.Up() {
			t.Error("not up: lost flows were taken for a lost Redis")
		}
	})
}

// Flows that were lost while they were young enough not to be checked: the
// first time-out makes the others suspect, so that the retry finds a good one.
func TestMiddleboxForgetsYoungFlows(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	c := open(t, Config{URL: s.URLAt(link.Addr()), CheckEvery: time.Hour, CommandTimeout: 400 * time.Millisecond})
	fill(t, c.Client(), 8)
	link.DropIdle()
	if err := c.Client().Set(context.Background(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if !c.Up() {
		t.Error("not up")
	}
}

func TestUsedConnectionsAreNotPinged(t *testing.T) {
	transports(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		c := open(t, Config{URL: s.URL(), CheckEvery: 200 * time.Millisecond})
		rdb, admin := c.Client(), s.Client(t)
		if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		before := calls(t, admin, "ping")
		for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if err := rdb.Get(ctx, "k").Err(); err != nil {
				t.Fatal(err)
			}
		}
		if n := calls(t, admin, "ping") - before; n != 0 {
			t.Errorf("%d PINGs on a connection in use", n)
		}
		time.Sleep(300 * time.Millisecond) // idle for longer than CheckEvery
		for range 5 {
			if err := rdb.Get(ctx, "k").Err(); err != nil {
				t.Fatal(err)
			}
		}
		if n := calls(t, admin, "ping") - before; n != 1 {
			t.Errorf("%d PINGs after the idle time, want 1", n)
		}
	})
}

// Subscriptions have connections of their own that are silent for long and
// must not be taken for dead; nor may their silence cast doubt on others.
func TestSubscriptionThroughGuard(t *testing.T) {
	transports(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		c := open(t, Config{URL: s.URL(), CheckEvery: 100 * time.Millisecond})
		sub := c.Client().Subscribe(ctx, "news")
		defer sub.Close()
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.ReceiveTimeout(ctx, 300*time.Millisecond); err == nil {
			t.Fatal("a message out of nowhere")
		}
		if n := c.guard.doubt.Load(); n != 0 {
			t.Error("a silent subscription cast doubt")
		}
		if err := c.Client().Publish(ctx, "news", "hello").Err(); err != nil {
			t.Fatal(err)
		}
		msg, err := sub.ReceiveTimeout(ctx, 5*time.Second)
		if got, ok := msg.(*redis.Message); err != nil || !ok || got.Payload != "hello" {
			t.Fatalf("got %v, %v", msg, err)
		}
	})
}

// A pipelined reply that arrives after its command was given up must never be
// read as the next command's.
func TestCheckRefusesStaleReplies(t *testing.T) {
	g := newGuard(time.Nanosecond, time.Second, func() {}, mustMetrics(t))
	for name, reply := range map[string]string{
		"stale reply first": "$5\r\nstale\r\n+PONG\r\n",
		"not a pong":        "+OK\r\n",
		"two replies":       "+PONG\r\n+PONG\r\n",
		"two errors":        "-ERR a\r\n-ERR b\r\n",
		"endless":           strings.Repeat("x", 4096),
		"closed":            "",
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := fakeServer(t, g, reply)
			if err := g.check(c); err == nil {
				t.Error("the connection passed")
			}
		})
	}
	for _, reply := range []string{"+PONG\r\n", "-LOADING Redis is loading the dataset in memory\r\n"} {
		c, asked := fakeServer(t, g, reply)
		if err := g.check(c); err != nil {
			t.Errorf("%q: %v", reply, err)
		}
		if got := <-asked; got != string(pingCommand) {
			t.Errorf("asked %q", got)
		}
	}
}

func TestCheckNever(t *testing.T) {
	g := newGuard(-1, time.Second, func() {}, mustMetrics(t))
	g.doubt.Store(1 << 62)
	c, _ := fakeServer(t, g, "")
	if err := g.check(c); err != nil {
		t.Error(err)
	}
}

func mustMetrics(t *testing.T) *metrics {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fakeServer answers one request with reply, or hangs up if that is empty.
func fakeServer(t *testing.T, g *guard, reply string) (*conn, <-chan string) {
	client, server := net.Pipe()
	asked := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, len(pingCommand))
		if _, err := io.ReadFull(server, buf); err == nil {
			asked <- string(buf)
			_, _ = io.WriteString(server, reply)
		}
		if reply != "" {
			_, _ = io.Copy(io.Discard, server) // until the client hangs up
		}
		_ = server.Close()
	}()
	t.Cleanup(func() { _ = client.Close(); <-done })
	return g.wrap(client, "").(*conn), asked
}
