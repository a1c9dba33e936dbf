package sessionstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// One master of a Cluster dies or falls silent. Of sessions that are touched
// together those on the others get their life all the same, also when those
// masters have not seen the script before.
func TestTouchClusterMasterFails(t *testing.T) {
	t.Run("dead", func(t *testing.T) {
		touchWithoutMaster(t, func(node *redistest.Server) { node.Kill() })
	})
	t.Run("silent", func(t *testing.T) {
		touchWithoutMaster(t, func(node *redistest.Server) {
			check(t, node.Client(t).Do(t.Context(), "CLIENT", "PAUSE", time.Hour.Milliseconds(), "ALL").Err())
		})
	})
}

func touchWithoutMaster(t *testing.T, fail func(*redistest.Server)) {
	t.Parallel()
	c := redistest.StartCluster(t, 0, "--cluster-require-full-coverage", "no")
	conn, err := redisconn.Open(redisconn.Config{URL: c.URL()})
	check(t, err)
	t.Cleanup(func() { check(t, conn.Close()) })
	f, err := New(conn.Client(), Config{TouchEvery: time.Millisecond})
	check(t, err)

	dead := c.Nodes[0]
	var snaps []*Snapshot
	var there []bool
	for range 60 {
		s := f.New()
		check(t, s.Save(t.Context()))
		check(t, f.rdb.PExpire(t.Context(), f.valueKey(s.ref), time.Minute).Err())
		snaps = append(snaps, s.Snapshot())
		there = append(there, c.Master(c.Slot(f.valueKey(s.ref))) == dead)
	}
	fail(dead)

	within, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	lives, err := f.touchAll(within, snaps)
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	for i := range snaps {
		want := life{known: true, left: f.cfg.IdleTimeout, renewed: true}
		if there[i] {
			want = life{}
		}
		got := lives[i]
		if got.left = got.left.Round(time.Minute); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
