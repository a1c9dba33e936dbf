package redisconn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestOutageAndRecovery(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		reg := prometheus.NewRegistry()
		c := open(t, Config{URL: s.URL(), Metrics: reg})
		rdb, states := c.Client(), watchState(c)
		if !c.Up() || rdb.Set(ctx, "k", "v", 0).Err() != nil {
			t.Fatal("not up right after Open")
		}
		sub := rdb.Subscribe(ctx, "news")
		defer sub.Close()
		news := sub.Channel()

		s.Kill()
		begin := time.Now()
		err := rdb.Get(ctx, "k").Err()
		if !IsUnavailable(err) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the first failure took %s", took)
		}
		states.want(t, false)
		if c.Up() {
			t.Error("up after OnChange(false)")
		}

		dials := metric(t, reg, "tandem_redis_dials_total", "failed")
		begin = time.Now()
		for range 1000 {
			if err := rdb.Get(ctx, "k").Err(); !IsUnavailable(err) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
		}
		if each := time.Since(begin) / 1000; each > time.Millisecond {
			t.Errorf("refusing a command took %s", each)
		}
		if n := metric(t, reg, "tandem_redis_fail_fast_total", ""); n < 1000 {
			t.Errorf("%v refusals counted", n)
		}
		if n := metric(t, reg, "tandem_redis_dials_total", "failed") - dials; n > 20 {
			t.Errorf("%v dials for refused commands", n)
		}
		pipe := rdb.Pipeline()
		get := pipe.Get(ctx, "k")
		if _, err := pipe.Exec(ctx); !IsUnavailable(err) || !IsUnavailable(get.Err()) {
			t.Errorf("pipeline: %v, %v", err, get.Err())
		}
		if err := c.Ping(ctx); !IsUnavailable(err) {
			t.Errorf("Ping: %v", err)
		}

		s.Restart()
		states.want(t, true)
		for range 50 {
			if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
				t.Fatalf("after OnChange(true): %v", err)
			}
		}
		if up, downs := metric(t, reg, "tandem_redis_up", ""), metric(t, reg, "tandem_redis_state_changes_total", "down"); up != 1 || downs != 1 {
			t.Errorf("metrics: up %v, changes to down %v", up, downs)
		}
		eventually(t, "the subscription is back", func() bool { return rdb.Publish(ctx, "news", "x").Val() == 1 })
		if msg := <-news; msg.Payload != "x" {
			t.Errorf("got %v", msg)
		}
	})
}

func TestOpenBeforeRedis(t *testing.T) {
	s := redistest.Start(t)
	s.Stop()
	c := open(t, Config{URL: s.URL()})
	states := watchState(c)
	if c.Up() {
		t.Fatal("up without Redis")
	}
	if err := c.Client().Ping(context.Background()).Err(); !IsUnavailable(err) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	s.Restart()
	states.want(t, true)
	if err := c.Client().Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
}

// Nobody uses Redis, and it goes silent: the state must tell all the same.
func TestIdleOutageIsNoticed(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	c := open(t, Config{URL: s.URLAt(link.Addr())})
	states := watchState(c)
	link.Blackhole(true)
	begin := time.Now()
	states.want(t, false)
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("noticed after %s", took)
	}
	link.Blackhole(false)
	states.want(t, true)
}

// A subscription whose flow was forgotten during an outage is closed at its end.
func TestBlackholeLeavesNothingDeaf(t *testing.T) {
	ctx := context.Background()
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	c := open(t, Config{URL: s.URLAt(link.Addr())})
	states := watchState(c)
	sub := c.Client().Subscribe(ctx, "news")
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	link.Blackhole(true)
	states.want(t, false)
	s.Client(t).Publish(ctx, "news", "vanishes, and its flow with it")
	link.Blackhole(false)
	states.want(t, true)
	// Left alone the subscription would wait on its dead flow for ever.
	for {
		m, err := sub.ReceiveTimeout(ctx, 10*time.Second)
		if err == nil {
			if _, again := m.(*redis.Subscription); again {
				return
			}
			t.Fatalf("received %v", m)
		}
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			t.Fatal("the subscription is deaf after the outage")
		}
	}
}

// A command that waits in vain is not the only one to find out.
func TestBlackholeUnderLoad(t *testing.T) {
	ctx := context.Background()
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	c := open(t, Config{URL: s.URLAt(link.Addr()), CommandTimeout: 300 * time.Millisecond})
	states := watchState(c)
	fill(t, c.Client(), 4)
	link.Blackhole(true)
	begin := time.Now()
	if err := c.Client().Get(ctx, "k").Err(); !IsUnavailable(err) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the command took %s", took)
	}
	states.want(t, false)
	link.Blackhole(false)
	states.want(t, true)
	if err := c.Client().Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
}

// A primary that became a replica answers PING and refuses writes: that is
// not up.
func TestReadOnlyIsDown(t *testing.T) {
	ctx := context.Background()
	s, primary := redistest.Start(t), redistest.Start(t)
	c := open(t, Config{URL: s.URL()})
	states := watchState(c)
	admin := s.Client(t)
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.ReplicaOf(ctx, host, port).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Client().Set(ctx, "k", "v", 0).Err(); !IsUnavailable(err) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	states.want(t, false)
	if err := admin.ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	states.want(t, true)
	if err := c.Client().Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// What the user of the URL may not do is the operator's to mend. Nothing is
// known of the data then, and other commands go on.
func TestMissingRightsAreUnavailable(t *testing.T) {
	s := redistest.Start(t)
	ctx := context.Background()
	reg := prometheus.NewRegistry()
	c := open(t, Config{URL: s.URL(), Metrics: reg})
	if err := s.Client(t).Do(ctx, "ACL", "SETUSER", "default", "-set").Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Client().Set(ctx, "k", "v", 0).Err(); !IsUnavailable(err) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a command that is not allowed: %v", err)
	}
	if err := c.Client().Get(ctx, "k").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("one that is: %v", err)
	}
	if n := metric(t, reg, "tandem_redis_errors_total", string(classAuth)); n != 1 {
		t.Errorf("%v errors of the class auth", n)
	}
}

// Redis is back on its port but still reads its data: connected is not up.
func TestLoadingIsDown(t *testing.T) {
	ctx := context.Background()
	s := redistest.Start(t, "--appendonly", "yes", "--aof-use-rdb-preamble", "no",
		"--key-load-delay", "50")
	pipe := s.Client(t).Pipeline()
	for range 20_000 { // some 0.1 ms each to load; Redis looks up every 1,024 commands
		pipe.Incr(ctx, "n")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	c := open(t, Config{URL: s.URL()})
	states := watchState(c)
	s.Stop()
	states.want(t, false)
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		s.Restart()
	}()
	eventually(t, "Redis says that it is loading", func() bool {
		err := c.Client().Get(ctx, "n").Err()
		return IsUnavailable(err) && strings.Contains(err.Error(), "LOADING") && IsUnavailable(c.Ping(ctx)) && !c.Up()
	})
	<-restarted
	states.want(t, true)
	if n, err := c.Client().Incr(ctx, "n").Result(); err != nil || n != 20_001 {
		t.Fatalf("after loading: %d, %v", n, err)
	}
}

func TestErrorsThatAreNotOutages(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		c := open(t, Config{URL: s.URL()})
		rdb := c.Client()
		if err := rdb.Get(ctx, "absent").Err(); err != redis.Nil {
			t.Errorf("absent: %v", err)
		}
		rdb.Set(ctx, "k", "text", 0)
		if err := rdb.Incr(ctx, "k").Err(); err == nil || IsUnavailable(err) {
			t.Errorf("INCR of text: %v", err)
		}
		if err := redis.NewScript("return 1").Run(ctx, rdb, nil).Err(); err != nil {
			t.Errorf("EVALSHA, NOSCRIPT, EVAL: %v", err)
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if err := rdb.Get(canceled, "k").Err(); !errors.Is(err, context.Canceled) || IsUnavailable(err) {
			t.Errorf("canceled: %v", err)
		}
		err := rdb.Watch(ctx, func(tx *redis.Tx) error {
			rdb.Set(ctx, "k", "other", 0)
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "k", "mine", 0).Err() })
			return err
		}, "k")
		if !errors.Is(err, redis.TxFailedErr) || IsUnavailable(err) {
			t.Errorf("lost transaction: %v", err)
		}
		if !c.Up() {
			t.Error("not up")
		}
	})
}

func TestDeadlineOfTheCaller(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	c := open(t, Config{URL: s.URLAt(link.Addr())})
	link.Delay(300 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := c.Client().Get(ctx, "k").Err(); !IsUnavailable(err) {
		t.Errorf("got %v, want ErrUnavailable: Redis did not answer in time", err)
	}
	if took := time.Since(begin); took > 200*time.Millisecond {
		t.Errorf("took %s, the deadline was 50ms", took)
	}
}

func TestEmbedded(t *testing.T) {
	ctx := context.Background()
	c := open(t, Config{URL: "embedded:", CheckEvery: 20 * time.Millisecond})
	if !c.Up() || !c.Embedded() {
		t.Fatal("not up, or not embedded")
	}
	sub := c.Client().Subscribe(ctx, "news")
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Client().Set(ctx, "k", "v", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key expires: its clock runs", func() bool { return c.Client().Get(ctx, "k").Err() == redis.Nil })
	if err := c.Client().Publish(ctx, "news", "x").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.ReceiveMessage(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestClose(t *testing.T) {
	s := redistest.Start(t)
	c := open(t, Config{URL: s.URL()})
	fill(t, c.Client(), 4)
	s.Kill() // closing must not wait for dead connections
	begin := time.Now()
	_ = c.Close()
	_ = c.Close()
	if took := time.Since(begin); took > time.Second {
		t.Errorf("took %s", took)
	}
	if err := c.Client().Get(context.Background(), "k").Err(); !IsUnavailable(err) {
		t.Errorf("after Close: %v", err)
	}
}

// Many users, a Redis that comes and goes: nothing but ErrUnavailable, ever.
func TestConcurrentUseThroughOutages(t *testing.T) {
	s := redistest.Start(t, "--appendonly", "yes")
	c := open(t, Config{URL: s.URL()})
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := c.Client().Incr(ctx, "n").Err()
				if err != nil && !IsUnavailable(err) && ctx.Err() == nil {
					t.Errorf("got %v", err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
		wg.Go(func() {
			remove := c.OnChange(func(bool) { _ = c.Up() })
			<-ctx.Done()
			remove()
		})
	}
	states := watchState(c)
	for range 3 {
		s.Kill()
		states.want(t, false)
		s.Restart()
		states.want(t, true)
	}
	stop()
	wg.Wait()
}

// A slow callback sees a flapping Redis as down, up; never out of order, never
// an unbounded queue.
func TestChangesForSlowCallbacks(t *testing.T) {
	m := newMonitor(nil, slog.New(slog.DiscardHandler), mustMetrics(t))
	var got []bool
	remove := m.onChange(func(up bool) { got = append(got, up) })
	m.onChange(func(bool) {})
	for range 4 {
		m.push(false)
		m.push(true)
	}
	m.push(false)
	deliver := func() {
		for {
			up, callbacks := m.next()
			if callbacks == nil {
				return
			}
			for _, cb := range callbacks {
				cb.fn(up)
			}
		}
	}
	deliver()
	m.push(true)
	deliver()
	if want := []bool{false, true}; !reflect.DeepEqual(got, want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
	remove()
	remove()
	m.push(false)
	deliver()
	if len(got) != 2 {
		t.Error("called after remove")
	}
}

// Redis falls silent. Whoever asks right then is answered soon, not after all
// the time-outs that a command can meet on its way.
func TestSilenceIsAnsweredSoon(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	c := open(t, Config{URL: s.URLAt(link.Addr())})
	if err := c.Client().Get(t.Context(), "k").Err(); !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	link.Blackhole(true)
	begin := time.Now()
	err := c.Client().Get(t.Context(), "k").Err()
	if took := time.Since(begin); !IsUnavailable(err) || took > 3*time.Second {
		t.Errorf("%v after %s", err, took)
	}
}
