package redistest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// What it had to load is there once it has; until then it says so.
func TestServerSeenLoading(t *testing.T) {
	s := redistest.Start(t, "--appendonly", "yes", "--key-load-delay", "50", "--loading-process-events-interval-bytes", "1024")
	rdb := s.Client(t)
	pipe := rdb.Pipeline()
	for range 16_000 {
		pipe.Incr(t.Context(), "k")
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.RestartLoading()
	if err := rdb.Get(t.Context(), "k").Err(); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
		t.Errorf("a server that is loading answers %v", err)
	}
	eventually(t, "loaded", func() bool { return rdb.Get(t.Context(), "k").Val() == "16000" })
}

// A slot moves by hand and by redis-cli, a dead master is replaced: nothing
// is lost.
func TestClusterMovesSlots(t *testing.T) {
	ctx := t.Context()
	c := redistest.StartCluster(t, 1)
	rdb := c.Client(t)
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	slot := c.Slot("k")
	first := c.Master(slot)
	second := c.Nodes[0]
	if second == first {
		second = c.Nodes[1]
	}
	migration := c.Migrate(slot, second)
	if got := rdb.Get(ctx, "k").Val(); got != "v" {
		t.Errorf("during the migration: %q", got)
	}
	migration.Finish()
	if c.Master(slot) != second || rdb.Get(ctx, "k").Val() != "v" {
		t.Error("the slot did not move")
	}
	c.Reshard(second, first, 100)

	c.Await() // the replica of the new master has it too
	dead := c.Master(slot)
	dead.Kill()
	eventually(t, "the replica takes over", func() bool { return rdb.Get(ctx, "k").Val() == "v" })
	if c.Master(slot) == dead {
		t.Error("a dead node is said to serve")
	}
	dead.Restart()
	c.Await()
}

// The Sentinels replace a master that is dead.
func TestSentinelsFailOver(t *testing.T) {
	s := redistest.StartSentinels(t)
	first, second := s.Master()
	if err := first.Client(t).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Await()
	first.Kill()
	eventually(t, "the replica takes over", func() bool { m, _ := s.Master(); return m == second })
	if got := second.Client(t).Get(t.Context(), "k").Val(); got != "v" {
		t.Errorf("the new master has %q", got)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
