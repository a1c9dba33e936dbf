package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Sentinel runs one Redis Sentinel with these lines of configuration
// ("sentinel monitor mymaster 127.0.0.1 6379 1"). It cannot be restarted with
// its state.
func Sentinel(t testing.TB, lines ...string) *Server {
	t.Helper()
	s := &Server{t: t}
	dir := t.TempDir()
	s.launch(func(port string) []string {
		// Sentinel takes its configuration from a file only, and writes to it.
		file := filepath.Join(dir, "sentinel-"+port+".conf")
		text := strings.Join(append([]string{"bind 127.0.0.1", "port " + port, "dir " + dir}, lines...), "\n") + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatalf("write %s: %v", file, err)
		}
		return []string{file, "--sentinel"}
	})
	return s
}

// masterName is the name of the master that Sentinels watch.
const masterName = "mymaster"

// Sentinels are three Sentinels that watch one master and its replica. Its
// methods are for the test's goroutine.
type Sentinels struct {
	t         testing.TB
	servers   []*Server // the master and the replica, as they were at the start
	sentinels []*Server
}

// StartSentinels runs a master, its replica and three Sentinels, and returns
// when each knows the others. A master that does not answer for a second is
// replaced when two of them agree. args go to both servers.
func StartSentinels(t testing.TB, args ...string) *Sentinels {
	t.Helper()
	args = append(replicating[:len(replicating):len(replicating)], args...)
	master := Start(t, args...)
	replica := Start(t, append([]string{"--replicaof", fmt.Sprint("127.0.0.1 ", master.port)}, args...)...)
	s := &Sentinels{t: t, servers: []*Server{master, replica}}
	for range 3 {
		s.sentinels = append(s.sentinels, Sentinel(t,
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", masterName, master.port),
			fmt.Sprintf("sentinel down-after-milliseconds %s 1000", masterName),
			fmt.Sprintf("sentinel failover-timeout %s 3000", masterName)))
	}
	s.Await()
	return s
}

// URL returns the redis+sentinel URL of the master.
func (s *Sentinels) URL() string {
	var addrs []string
	for _, sentinel := range s.sentinels {
		addrs = append(addrs, sentinel.Addr())
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/" + masterName + "/0"
}

// Master returns the server that the Sentinels say is the master now, and
// the other.
func (s *Sentinels) Master() (master, other *Server) {
	s.t.Helper()
	addr, err := s.ask(s.sentinels[0]).GetMasterAddrByName(s.t.Context(), masterName).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.Join(addr, ":") == s.servers[0].Addr() {
		return s.servers[0], s.servers[1]
	}
	return s.servers[1], s.servers[0]
}

// Failover has the replica take over from a master that is well. It returns
// when the Sentinels have agreed to, which is before it happens.
func (s *Sentinels) Failover() {
	s.t.Helper()
	if err := s.ask(s.sentinels[0]).Failover(s.t.Context(), masterName).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// Await returns when every Sentinel knows the master, its replica and enough
// Sentinels to agree on a failover, and the replica has all that was written
// before the call.
func (s *Sentinels) Await() {
	s.t.Helper()
	ctx := s.t.Context()
	for _, sentinel := range s.sentinels {
		rdb := s.ask(sentinel)
		await(s.t, "a Sentinel knows all", func() bool {
			if rdb.CkQuorum(ctx, masterName).Err() != nil {
				return false
			}
			others, err := rdb.Sentinels(ctx, masterName).Result()
			if err != nil || len(others) != len(s.sentinels)-1 {
				return false
			}
			replicas, err := rdb.Replicas(ctx, masterName).Result()
			return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok" && replicas[0]["flags"] == "slave"
		})
	}
	master, other := s.Master()
	first, second := master.Client(s.t), other.Client(s.t)
	await(s.t, "the replica follows", func() bool {
		return replication(s.t, first)["role"] == "master" && replication(s.t, second)["master_link_status"] == "up"
	})
	awaitReplicas(s.t, s.servers)
}

func (s *Sentinels) ask(sentinel *Server) *redis.SentinelClient {
	s.t.Helper()
	rdb := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr()})
	s.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}
