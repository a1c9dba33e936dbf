package sessionstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// Four callers of two replicas count one attribute up, over a link that loses a reply now and then, so that go-redis
// sends the same command again: each increment counts once.
func TestUpdateCountsExactly(t *testing.T) {
	// Losses are so far apart that none meets the repeat of the one before: a
	// command is sent twice at most, and then nobody knows whether it counted.
	const callers, each, lossEvery = 4, 500, 400
	server := redistest.Start(t)
	link := redistest.NewLink(t, server.Addr())
	var factories []*sessionstore.Factory
	for range 2 {
		conn, err := redisconn.Open(redisconn.Config{URL: server.URLAt(link.Addr())})
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		factories = append(factories, factory(t, conn.Client(), sessionstore.Config{}))
	}
	id := created(t, factories[0], "n", 0).ID()

	var counted atomic.Int64
	var g errgroup.Group
	for n := range callers {
		f := factories[n%len(factories)]
		g.Go(func() error {
			for i := range each {
				if err := errOf(f.Update(t.Context(), id, increment)); err != nil {
					return fmt.Errorf("caller %d, increment %d: %w", n, i, err)
				}
				if counted.Add(1)%lossEvery == 0 {
					link.DropReplies(1)
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	if got, _ := loaded(t, factories[1], id).JSON("n"); string(got) != fmt.Sprint(callers*each) {
		t.Errorf("%d increments counted %s", callers*each, got)
	}
	if made := link.Accepted(); made < callers*each/lossEvery {
		t.Errorf("%d connections only: no reply was lost", made)
	}
}
