//go:build slow

package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
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
	var nodes []*redistest.Server
	var addrs []string
	for range 3 {
		node := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-port", freePort(t))
		nodes, addrs = append(nodes, node), append(addrs, node.Addr())
	}
	args := append([]string{"--cluster", "create", "--cluster-yes"}, addrs...)
	if out, err := exec.Command("redis-cli", args...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli --cluster create: %v\n%s", err, out)
	}
	c := open(t, Config{URL: "redis+cluster://" + strings.Join(addrs[:2], ","), CheckEvery: 500 * time.Millisecond})
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

// Sentinel promotes the replica; commands go there without anybody's help.
func TestSentinelFailover(t *testing.T) {
	ctx := context.Background()
	primary := redistest.Start(t)
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	sentinel := startSentinel(t, host, port)

	c := open(t, Config{URL: "redis+sentinel://" + sentinel + "/mymaster/0", CheckEvery: 500 * time.Millisecond})
	if !c.Up() {
		t.Fatal("not up")
	}
	rdb := c.Client()
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	copied := replica.Client(t)
	eventually(t, "the replica has it", func() bool { return copied.Get(ctx, "k").Val() == "v" })
	known := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
	defer known.Close()
	eventually(t, "the sentinel knows the replica", func() bool {
		replicas, err := known.Replicas(ctx, "mymaster").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})

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

// startSentinel runs one Sentinel that watches host:port as mymaster alone.
func startSentinel(t *testing.T, host, port string) (addr string) {
	t.Helper()
	s := redistest.Sentinel(t,
		"sentinel monitor mymaster "+host+" "+port+" 1",
		"sentinel down-after-milliseconds mymaster 500",
		"sentinel failover-timeout mymaster 2000")
	return s.Addr()
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
