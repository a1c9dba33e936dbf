//go:build slow

package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// failover is a ledger during which a master dies that its copy did not keep up with. Operations are lost then, and
// nobody may take others for them.
func failover(t *testing.T, fleet *fleet, name string, die func(l *ledger)) {
	t.Helper()
	l, ada := redisLedger(t, fleet, name)
	l.whileWorking(t, func() { die(l) })
	lost := l.check(t, ada)
	if lost == 0 || l.lives() < 2 {
		t.Errorf("%d acknowledged operations lost, %d epochs: the copy was to be behind", lost, l.lives())
	}
	t.Logf("%d acknowledged operations lost, %d epochs", lost, l.lives())
}

// dieAhead kills a master once it has acknowledged what its copy did not get.
func (l *ledger) dieAhead(t *testing.T, master *redistest.Server) {
	t.Helper()
	rdb := master.Client(t)
	for _, set := range [][2]string{{"client-output-buffer-limit", "replica 1 0 0"}} {
		if err := rdb.ConfigSet(t.Context(), set[0], set[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	acked := 0
	for _, f := range l.followers {
		acked += int(f.acked.Load())
	}
	l.await(t, min(acked+100, l.clients*l.operations-1))
	master.Kill()
}

func TestLedgerSentinelFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	failover(t, startFleetAt(t, s.URL()), "sentinel", func(l *ledger) {
		s.Await()
		old, _ := s.Master()
		l.dieAhead(t, old)
		eventually(t, 30*time.Second, func() error {
			if now, _ := s.Master(); now == old {
				return errors.New("the Sentinels have not agreed yet")
			}
			return nil
		})
	})
}

func TestLedgerClusterNodeKilled(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	failover(t, startFleetAt(t, c.URL()), "cluster", func(l *ledger) {
		c.Await()
		l.dieAhead(t, c.Master(c.Slot("tandem:doc:{doc:cluster-0}")))
		c.Await()
	})
}
