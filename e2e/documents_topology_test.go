//go:build slow

package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// failover is a ledger during which a master dies. What its copy did not get is lost, although it was acknowledged, and
// nobody may take other operations for it: a new epoch begins.
func failover(t *testing.T, fleet *fleet, name string, die func(l *ledger)) (lost int) {
	t.Helper()
	l, ada := redisLedger(t, fleet, name)
	l.whileWorking(t, func() { die(l) })
	lost = l.check(t, ada)
	if l.lives() < 2 {
		t.Errorf("%d epochs", l.lives())
	}
	t.Logf("%d acknowledged operations lost, %d epochs", lost, l.lives())
	return lost
}

// ahead returns when some more operations have been acknowledged.
func (l *ledger) ahead(t *testing.T) {
	t.Helper()
	acked := 0
	for _, f := range l.followers {
		acked += int(f.acked.Load())
	}
	l.await(t, acked+100)
}

func TestLedgerSentinelFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	lost := failover(t, startFleetAt(t, s.URL()), "sentinel", func(l *ledger) {
		s.Await()
		old, standby := s.Master()
		if err := standby.Client(t).Do(t.Context(), "REPLICAOF", "127.0.0.1", 1).Err(); err != nil { // nobody is there
			t.Fatal(err)
		}
		l.ahead(t)
		old.Kill()
		eventually(t, 30*time.Second, func() error {
			if now, _ := s.Master(); now == old {
				return errors.New("the Sentinels have not agreed yet")
			}
			return nil
		})
	})
	if lost == 0 {
		t.Error("nothing was lost: the copy was to be behind")
	}
}

func TestLedgerClusterNodeKilled(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	failover(t, startFleetAt(t, c.URL()), "cluster", func(l *ledger) {
		c.Await()
		c.Master(c.Slot("tandem:doc:{doc:cluster-0}")).Kill()
		c.Await()
	})
}
