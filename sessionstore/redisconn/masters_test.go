package redisconn

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// One master of three dies, or falls silent: the one that owns the probe's
// slot, so that it once took all of Redis down with it. What is on the others
// goes on, its own commands fail at once, and when it is back everything does.
func TestClusterWithoutOneMaster(t *testing.T) {
	t.Run("dead", func(t *testing.T) {
		withoutOneMaster(t, (*redistest.Server).Kill, (*redistest.Server).Restart)
	})
	t.Run("silent", func(t *testing.T) {
		withoutOneMaster(t, func(s *redistest.Server) {
			if err := s.Client(t).Do(t.Context(), "CLIENT", "PAUSE", time.Hour.Milliseconds(), "ALL").Err(); err != nil {
				t.Fatal(err)
			}
		}, func(s *redistest.Server) {
			s.Kill() // the pause ends with it
			s.Restart()
		})
	})
}

func withoutOneMaster(t *testing.T, fail, repair func(*redistest.Server)) {
	t.Parallel()
	ctx := t.Context()
	cluster := redistest.StartCluster(t, 0, "--cluster-require-full-coverage", "no")
	reg := prometheus.NewRegistry()
	c := open(t, Config{URL: cluster.URL(), Metrics: reg})
	rdb, states := c.Client(), watchState(c)
	if !c.Up() {
		states.want(t, true)
	}
	away := cluster.Master(cluster.Slot(probeKey))
	var there, elsewhere string // keys, and channels
	for i := 0; there == "" || elsewhere == ""; i++ {
		if key := fmt.Sprint("k", i); cluster.Master(cluster.Slot(key)) == away {
			there = key
		} else {
			elsewhere = key
		}
	}
	set := func(key string) error { return rdb.Set(ctx, key, "v", 0).Err() }
	fail(away)
	eventually(t, "it is missed", func() bool {
		if err := set(there); !IsUnavailable(err) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		return metric(t, reg, "tandem_redis_masters_away", "") == 1
	})

	for range 20 {
		if err := set(elsewhere); err != nil {
			t.Fatalf("a living master, %s being away: %v", away.Addr(), err)
		}
	}
	dials := metric(t, reg, "tandem_redis_dials_total", "failed")
	refused := metric(t, reg, "tandem_redis_fail_fast_total", "")
	for range 500 {
		if err := set(there); !IsUnavailable(err) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
	}
	if n := metric(t, reg, "tandem_redis_fail_fast_total", "") - refused; n < 500 {
		t.Errorf("%v commands of 500 were refused at once", n)
	}
	if n := metric(t, reg, "tandem_redis_dials_total", "failed") - dials; n > 100 {
		t.Errorf("%v dials for refused commands", n)
	}
	pipe := rdb.Pipeline()
	good, bad := pipe.Set(ctx, elsewhere, "v", 0), pipe.Set(ctx, there, "v", 0)
	if _, err := pipe.Exec(ctx); !IsUnavailable(err) || good.Err() != nil || !IsUnavailable(bad.Err()) {
		t.Errorf("a pipeline: %v; %v, %v", err, good.Err(), bad.Err())
	}

	// News are bound to no slot.
	for _, channel := range []string{there, elsewhere} {
		hearsItself(t, rdb, channel)
	}
	if !c.Up() || len(states) > 0 {
		t.Error("down, because of one master")
	}
	eventually(t, "a ping that does not begin with the silent one", func() bool { return c.Ping(ctx) == nil })

	repair(away)
	states.want(t, true) // so that what hung on it is read again
	eventually(t, "its commands run", func() bool { return set(there) == nil })
	for range 20 {
		if err := errors.Join(set(there), set(elsewhere)); err != nil {
			t.Fatal(err)
		}
	}
	hearsItself(t, rdb, there)
}

func hearsItself(t *testing.T, rdb redis.UniversalClient, channel string) {
	t.Helper()
	within, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	sub := rdb.Subscribe(within, channel)
	defer sub.Close()
	if _, err := sub.ReceiveTimeout(within, 15*time.Second); err != nil {
		t.Fatalf("subscribe to %s: %v", channel, err)
	}
	if err := rdb.Publish(within, channel, "x").Err(); err != nil {
		t.Fatalf("publish on %s: %v", channel, err)
	}
	if m, err := sub.ReceiveTimeout(within, 15*time.Second); err != nil {
		t.Fatalf("%s: %v, %v", channel, m, err)
	}
}
