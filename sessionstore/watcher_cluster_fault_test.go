package sessionstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// One master of a Cluster dies, or falls silent, and nobody replaces it. The
// sessions of the others are verified as ever, and live; those on it become
// unverified.
func TestWatcherClusterMasterDies(t *testing.T) {
	t.Run("dead", func(t *testing.T) {
		clusterMasterFails(t, func(node *redistest.Server) { node.Kill() })
	})
	t.Run("silent", func(t *testing.T) {
		clusterMasterFails(t, func(node *redistest.Server) {
			check(t, node.Client(t).Do(t.Context(), "CLIENT", "PAUSE", time.Hour.Milliseconds(), "ALL").Err())
		})
	})
}

func clusterMasterFails(t *testing.T, fail func(*redistest.Server)) {
	t.Parallel()
	c := redistest.StartCluster(t, 0, "--cluster-require-full-coverage", "no")
	conn, err := redisconn.Open(redisconn.Config{URL: c.URL()})
	check(t, err)
	t.Cleanup(func() { check(t, conn.Close()) })
	a := watchFrom(t, conn.Client(), Config{}, WatchConfig{VerifyEvery: 100 * time.Millisecond, MaxUnverified: 4 * time.Second})

	dead := c.Master(c.Slot(newsChannel))
	type socket struct {
		id, key string
		ear     *ear
		b       *Binding
	}
	var there, elsewhere []socket
	for n := 0; len(there) < 20 || len(elsewhere) < 20; n++ {
		s := a.open(t, fmt.Sprint(n))
		k := socket{id: s.ID(), key: a.valueKey(s.ref)}
		k.ear, k.b = a.bind(t, s.ID())
		if c.Master(c.Slot(k.key)) == dead {
			there = append(there, k)
		} else {
			elsewhere = append(elsewhere, k)
		}
	}
	fail(dead)

	gone := elsewhere[:len(elsewhere)/2]
	for _, k := range gone { // silently, so that only verification finds it
		check(t, conn.Client().Del(t.Context(), k.key).Err())
	}
	for _, k := range gone {
		k.ear.eventually(t, "ended gone")
	}
	for _, k := range there {
		k.ear.eventually(t, "unverified")
	}
	for _, k := range elsewhere[len(gone):] {
		if len(k.ear.heard) > 0 {
			t.Errorf("a session on a living master: its socket heard %s", <-k.ear.heard)
		}
	}
}
