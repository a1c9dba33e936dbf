package redisconn

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestMain(m *testing.M) {
	// After many failed dials go-redis has a goroutine that finds out when it may
	// dial again, and finds out within a second that the client was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// open opens cfg for a test.
func open(t testing.TB, cfg Config) *Conn {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// eventually polls until check is nil: what it waits for happens in another process.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// metric reads one sample of a registry; label is its only label's value, or "".
func metric(t testing.TB, reg prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if len(m.GetLabel()) == 0 && label == "" || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s{%s}", name, label)
	return 0
}

// calls returns how often the server ran a command.
func calls(t testing.TB, rdb redis.UniversalClient, command string) int {
	t.Helper()
	info, err := rdb.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(info, "cmdstat_"+command+":calls=")
	if !ok {
		return 0
	}
	var n int
	if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// fill makes n pooled connections, all idle when it returns.
func fill(t testing.TB, rdb redis.UniversalClient, n int) {
	t.Helper()
	done := make(chan error, n)
	for range n {
		go func() { done <- rdb.BLPop(context.Background(), 200*time.Millisecond, "nothing").Err() }()
	}
	for range n {
		if err := <-done; err != redis.Nil {
			t.Fatal(err)
		}
	}
	if stats := rdb.PoolStats(); int(stats.IdleConns) < n {
		t.Fatalf("%d idle connections, want %d", stats.IdleConns, n)
	}
}

// transports are a real Redis over plain TCP and over TLS.
func transports(t *testing.T, fn func(t *testing.T, s *redistest.Server)) {
	t.Run("tcp", func(t *testing.T) { fn(t, redistest.Start(t)) })
	t.Run("tls", func(t *testing.T) { fn(t, redistest.TLS(t)) })
}

// stateLog records OnChange calls.
type stateLog chan bool

func watchState(c *Conn) stateLog {
	l := make(stateLog, 100)
	c.OnChange(func(up bool) { l <- up })
	return l
}

func (l stateLog) want(t testing.TB, want bool) {
	t.Helper()
	select {
	case got := <-l:
		if got != want {
			t.Fatalf("OnChange(%t), want %t", got, want)
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("no OnChange(%t) within 15s", want)
	}
}
