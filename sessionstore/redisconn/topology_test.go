//go:build slow

package redisconn

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// Three primaries: commands find their nodes, idle ones are checked, and one
// that dies is ErrUnavailable for its keys.
func TestCluster(t *testing.T) {
	ctx := context.Background()
	cluster := redistest.StartCluster(t, 0)
	nodes := cluster.Nodes
	c := open(t, Config{URL: "redis+cluster://" + nodes[0].Addr() + "," + nodes[1].Addr(), CheckEvery: 500 * time.Millisecond})
	states := watchState(c)
	if !c.Up() {
		states.want(t, true)
	}
	rdb := c.Client()
	set := func() error {
		for i := range 100 {
			if err := rdb.Set(ctx, fmt.Sprint("k", i), i, 0).Err(); err != nil {
				return err
			}
		}
		return nil
	}
	eventually(t, "the cluster takes writes", func() bool { return set() == nil })
	for _, node := range nodes {
		if err := node.Client(t).ConfigSet(ctx, "timeout", "1").Err(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2500 * time.Millisecond) // all are idle, some are closed: what is tested
	if err := set(); err != nil {
		t.Fatalf("after the idle time: %v", err)
	}
	var masters atomic.Int32
	err := rdb.(*redis.ClusterClient).ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		masters.Add(1)
		return node.Ping(ctx).Err()
	})
	if err != nil || masters.Load() != 3 {
		t.Fatalf("%d masters, %v", masters.Load(), err)
	}

	nodes[0].Kill()
	err = rdb.(*redis.ClusterClient).ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		return node.Ping(ctx).Err()
	})
	if !IsUnavailable(err) {
		t.Errorf("a dead node asked directly: %v", err)
	}
	states.want(t, false) // the whole cluster is down without all its slots
	if err := set(); !IsUnavailable(err) {
		t.Errorf("a cluster without a node: %v", err)
	}
}

// A node that died is replaced by its replica; who serves its slots is learnt
// within seconds, not at the next look, which go-redis takes once a minute.
func TestClusterFailover(t *testing.T) {
	ctx := context.Background()
	cluster := redistest.StartCluster(t, 1)
	c := open(t, Config{URL: cluster.URL()})
	rdb := c.Client()
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	cluster.Await()
	dead := cluster.Master(cluster.Slot("k"))
	dead.Kill()
	began := time.Now()
	eventually(t, "the replica's answer", func() bool {
		got, err := rdb.Get(ctx, "k").Result()
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		return got == "v"
	})
	t.Logf("the replica answered after %v", time.Since(began))
	eventually(t, "it is up", c.Up)
}

// Sentinel promotes the replica; commands go there without anybody's help.
func TestSentinelFailover(t *testing.T) {
	ctx := context.Background()
	sentinels := redistest.StartSentinels(t)
	primary, _ := sentinels.Master()
	c := open(t, Config{URL: sentinels.URL(), CheckEvery: 500 * time.Millisecond})
	if !c.Up() {
		t.Fatal("not up")
	}
	rdb := c.Client()
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	sentinels.Await()

	primary.Kill()
	eventually(t, "a write after the failover", func() bool {
		err := rdb.Set(ctx, "k2", "v", 0).Err()
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		return err == nil
	})
	if got := rdb.Get(ctx, "k").Val(); got != "v" {
		t.Errorf("got %q after the failover", got)
	}
	eventually(t, "it is up", c.Up)
}
