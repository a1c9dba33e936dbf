package redistest

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// clusterMasters is how many masters share the slots.
const (
	clusterMasters = 3
	clusterSlots   = 16384
)

// Cluster is a Redis Cluster of three masters. Its methods are for the test's
// goroutine.
type Cluster struct {
	// Nodes are the masters and then the replicas, as they were at the start:
	// replica n follows master n modulo three.
	Nodes []*Server

	t testing.TB
}

// StartCluster runs a Redis Cluster of three masters, each with that many
// replicas, and returns when every node knows every other and all slots are
// served. A node that does not answer for two seconds is replaced by its
// replica. args go to every node.
func StartCluster(t testing.TB, replicas int, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for range clusterMasters * (1 + replicas) {
		c.Nodes = append(c.Nodes, startNode(t, args))
	}
	c.shareSlots()
	first := c.Nodes[0].Client(t)
	for _, node := range c.Nodes[1:] {
		host, port, bus := node.clusterAddr()
		c.must(first.Do(t.Context(), "CLUSTER", "MEET", host, port, bus).Err())
	}
	all := fmt.Sprintf("cluster_known_nodes:%d\r\n", len(c.Nodes))
	c.await("every node knows the others", func(rdb *redis.Client) bool {
		info, err := rdb.ClusterInfo(t.Context()).Result()
		return err == nil && strings.Contains(info, all)
	})
	for i, node := range c.Nodes[clusterMasters:] {
		master := c.Nodes[i%clusterMasters]
		c.must(node.Client(t).ClusterReplicate(t.Context(), c.ID(master)).Err())
	}
	c.Await()
	return c
}

// startNode runs a node with a bus port of its own.
func startNode(t testing.TB, args []string) *Server {
	t.Helper()
	s := &Server{t: t}
	dir := t.TempDir()
	s.launch(func(port string) []string {
		s.bus = freePort(t)
		node := append(defaults(dir, "--port", port),
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(s.bus), "--cluster-node-timeout", "2000")
		return append(append(node, replicating...), args...)
	})
	return s
}

func (s *Server) clusterAddr() (host string, port, bus int) { return "127.0.0.1", s.port, s.bus }

// shareSlots gives each master its part and an epoch of its own, so that none
// argues with another about who is newer.
func (c *Cluster) shareSlots() {
	c.t.Helper()
	for i, node := range c.Nodes[:clusterMasters] {
		rdb := node.Client(c.t)
		c.must(rdb.ClusterAddSlotsRange(c.t.Context(), i*clusterSlots/clusterMasters, (i+1)*clusterSlots/clusterMasters-1).Err())
		c.must(rdb.Do(c.t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
	}
}

// URL returns the redis+cluster URL of all nodes.
func (c *Cluster) URL() string { return "redis+cluster://" + strings.Join(c.addrs(), ",") }

func (c *Cluster) addrs() []string {
	var addrs []string
	for _, node := range c.Nodes {
		addrs = append(addrs, node.Addr())
	}
	return addrs
}

// Client returns a client of the whole cluster; the test's cleanup closes it.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	rdb := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: c.addrs(), ContextTimeoutEnabled: true,
		ClusterStateReloadInterval: time.Second, // dead nodes are replaced
	})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// ID returns the node's name in the cluster.
func (c *Cluster) ID(s *Server) string {
	c.t.Helper()
	id, err := s.Client(c.t).ClusterMyID(c.t.Context()).Result()
	c.must(err)
	return id
}

// Slot returns the slot of key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	slot, err := c.running().Client(c.t).ClusterKeySlot(c.t.Context(), key).Result()
	c.must(err)
	return int(slot)
}

// Master returns the node that serves slot now.
func (c *Cluster) Master(slot int) *Server {
	c.t.Helper()
	shards, err := c.running().Client(c.t).ClusterShards(c.t.Context()).Result()
	c.must(err)
	for _, shard := range shards {
		serves := slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool { return int(r.Start) <= slot && slot <= int(r.End) })
		for _, node := range shard.Nodes {
			if serves && node.Role == "master" && node.Health == "online" {
				return c.node(int(node.Port))
			}
		}
	}
	c.t.Fatalf("nobody serves slot %d", slot)
	return nil
}

func (c *Cluster) node(port int) *Server {
	c.t.Helper()
	i := slices.IndexFunc(c.Nodes, func(s *Server) bool { return s.port == port })
	if i < 0 {
		c.t.Fatalf("no node has port %d", port)
	}
	return c.Nodes[i]
}

// Reshard moves that many slots, with their keys, from one master to another
// while the cluster serves, as an operator does it.
func (c *Cluster) Reshard(from, to *Server, slots int) {
	c.t.Helper()
	await(c.t, "the nodes agree", func() bool { // else redis-cli refuses
		return exec.CommandContext(c.t.Context(), "redis-cli", "--cluster", "check", from.Addr()).Run() == nil
	})
	out, err := exec.CommandContext(c.t.Context(), "redis-cli", "--cluster", "reshard", from.Addr(),
		"--cluster-from", c.ID(from), "--cluster-to", c.ID(to),
		"--cluster-slots", strconv.Itoa(slots), "--cluster-yes").CombinedOutput()
	if err != nil {
		c.t.Fatalf("reshard: %v\n%s", err, out)
	}
}

// Migration is a slot on its way from one master to another. Begun and not
// finished, its keys are on neither side for sure: those that are still there
// the old master serves, about all others it sends the client on.
type Migration struct {
	c        *Cluster
	slot     int
	from, to *Server
}

// Migrate begins to move slot to another master and leaves it at that.
func (c *Cluster) Migrate(slot int, to *Server) *Migration {
	c.t.Helper()
	m := &Migration{c: c, slot: slot, from: c.Master(slot), to: to}
	m.setSlot(to, "IMPORTING", m.from)
	m.setSlot(m.from, "MIGRATING", to)
	return m
}

// Finish moves the slot's keys and tells every running node.
func (m *Migration) Finish() {
	m.c.t.Helper()
	ctx, rdb := m.c.t.Context(), m.from.Client(m.c.t)
	host, port, _ := m.to.clusterAddr()
	for {
		keys, err := rdb.ClusterGetKeysInSlot(ctx, m.slot, 100).Result()
		m.c.must(err)
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", host, port, "", 0, 5000, "KEYS"}
		for _, key := range keys {
			args = append(args, key)
		}
		m.c.must(rdb.Do(ctx, args...).Err())
	}
	m.setSlot(m.to, "NODE", m.to)
	m.setSlot(m.from, "NODE", m.to)
}

func (m *Migration) setSlot(on *Server, state string, node *Server) {
	m.c.t.Helper()
	m.c.must(on.Client(m.c.t).Do(m.c.t.Context(), "CLUSTER", "SETSLOT", m.slot, state, m.c.ID(node)).Err())
}

// Await returns when every running node says that all slots are served, every
// replica among them follows its master, and has all that was written before
// the call.
func (c *Cluster) Await() {
	c.t.Helper()
	c.await("all slots are served, replicas follow", func(rdb *redis.Client) bool {
		info, err := rdb.ClusterInfo(c.t.Context()).Result()
		if err != nil || !strings.Contains(info, "cluster_state:ok") {
			return false
		}
		state := replication(c.t, rdb)
		return state["role"] == "master" || state["master_link_status"] == "up"
	})
	awaitReplicas(c.t, c.Nodes)
}

// running is any node that runs.
func (c *Cluster) running() *Server {
	c.t.Helper()
	for _, node := range c.Nodes {
		if node.proc != nil {
			return node
		}
	}
	c.t.Fatal("no node of the cluster runs")
	return nil
}

// await polls every running node until each fits.
func (c *Cluster) await(what string, fits func(*redis.Client) bool) {
	c.t.Helper()
	for _, node := range c.Nodes {
		if node.proc != nil {
			rdb := node.Client(c.t)
			await(c.t, node.Addr()+": "+what, func() bool { return fits(rdb) })
		}
	}
}

func (c *Cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// await polls until what it waits for, in another process, is so.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
