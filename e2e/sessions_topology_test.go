//go:build slow

package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A master dies and three Sentinels put its replica in its place.
func TestSessionsSurviveSentinelFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	mishap{redis: s.URL(), happen: func(t *testing.T, _ []*asker) {
		s.Await()
		old, _ := s.Master()
		old.Kill()
		eventually(t, 30*time.Second, func() error {
			if now, _ := s.Master(); now == old {
				return errors.New("the Sentinels have not agreed yet")
			}
			return nil
		})
	}}.survive(t)
}

// A master that is well is asked to give way: it lives on as a replica, and refuses writes.
func TestSessionsSurviveSentinelSwitchover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	mishap{redis: s.URL(), happen: func(t *testing.T, _ []*asker) {
		s.Await()
		old, _ := s.Master()
		s.Failover()
		eventually(t, 30*time.Second, func() error {
			if now, _ := s.Master(); now == old {
				return errors.New("the master has not changed yet")
			}
			return nil
		})
	}}.survive(t)
}

// A master of a Cluster hands slots over to another, those of sessions in use among them.
func TestSessionsSurviveReshard(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	mishap{redis: c.URL(), durable: true, happen: func(t *testing.T, users []*asker) {
		// Slots go in their order: that of the user who needs the fewest to go is the last.
		least, last := 16384, 0
		for _, u := range users {
			slot := c.Slot(u.key)
			for i, first := range []int{0, 5461, 10922} {
				if c.Master(slot) == c.Nodes[i] && slot-first < least {
					least, last = slot-first, slot
				}
			}
		}
		from := c.Master(last)
		to := c.Nodes[0]
		if to == from {
			to = c.Nodes[1]
		}
		c.Reshard(from, to, least+1)
		if c.Master(last) != to {
			t.Error("the session's slot did not move")
		}
		t.Logf("%d slots moved", least+1)
	}}.survive(t)
}

// The slot of a session is on its way for longer than any request waits.
func TestSessionsSurviveMigration(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 0)
	mishap{redis: c.URL(), durable: true, happen: func(t *testing.T, users []*asker) {
		slot := c.Slot(users[0].key)
		to := c.Nodes[0]
		if to == c.Master(slot) {
			to = c.Nodes[1]
		}
		migration := c.Migrate(slot, to)
		from := users[0].right.Load() + users[0].away.Load()
		eventually(t, 30*time.Second, func() error {
			if users[0].right.Load()+users[0].away.Load() < from+30 {
				return errors.New("too few answers")
			}
			return nil
		})
		migration.Finish()
		if c.Master(slot) != to {
			t.Error("the slot did not move")
		}
	}}.survive(t)
}

// A master of a Cluster dies, with sessions on it, and its replica takes over.
func TestSessionsSurviveNodeKill(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	mishap{redis: c.URL(), happen: func(t *testing.T, users []*asker) {
		c.Await()
		c.Master(c.Slot(users[0].key)).Kill()
		c.Await()
	}}.survive(t)
}
