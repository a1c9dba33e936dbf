package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

const (
	maxStop = 30 * time.Second // so long a client may stop reading
	passing = 32 << 20         // bytes that pass it, more than all buffers on the way hold
)

// A client stops reading while very much passes. It keeps its connection, is told what it lost, and fetches it; the
// replica keeps nothing for it meanwhile.
func TestClientStopsReading(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL(), more: busy})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var g errgroup.Group
	follow := func(name string) *follower {
		size := passing / documentSizes.lagging
		f := &follower{
			name: name, document: "lagging", cookies: ada.cookies(r.url), where: func() string { return r.url },
			payload: func() string { return strings.Repeat("x", size) },
		}
		f.reached.Store(&place{})
		return f
	}
	reach := func(f *follower, seq int) {
		t.Helper()
		eventually(t, 5*time.Minute, func() error {
			if at := f.reached.Load(); at.Seq < seq {
				return fmt.Errorf("%s is at %v, not %d", f.name, *at, seq)
			}
			return nil
		})
	}

	stopping := follow("stopping")
	g.Go(func() error { return stopping.run(ctx) })
	eventually(t, 20*time.Second, func() error {
		if stopping.reached.Load().Epoch == "" {
			return fmt.Errorf("not joined")
		}
		return nil
	})
	stopping.slow.Store(int64(maxStop)) // after the next frame
	writing := follow("writing")
	writing.publish = documentSizes.lagging
	g.Go(func() error { return writing.run(ctx) })
	reach(stopping, 1)
	began := time.Now()
	missed := make(chan int, 1)
	goOn := sync.OnceFunc(func() {
		missed <- writing.reached.Load().Seq
		stopping.slow.Store(0)
	})
	defer time.AfterFunc(maxStop, goOn).Stop() // on a machine that is busy not everything has passed by then
	reach(writing, 1200)
	early := r.resident()
	reach(writing, documentSizes.lagging)
	late := r.resident()
	wait(t, documentSizes.stopped-time.Since(began))
	goOn()
	t.Logf("%d operations passed in %v; the replica took %d MiB, %d MiB after the first 1,200",
		documentSizes.lagging, time.Since(began).Round(time.Millisecond), late, early)
	if late > early+64 { // the race detector and the garbage collector have their share
		t.Errorf("the replica grew from %d to %d MiB", early, late)
	}
	reach(stopping, documentSizes.lagging)
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	enough := <-missed > documentSizes.lagging/2
	if told := stopping.told; told.connections != 1 || enough && (told.lagged == 0 || told.dropped == 0) {
		t.Errorf("the client that stopped: %+v", told)
	}
	if !slices.Equal(stopping.log, writing.log) {
		t.Error("the logs differ")
	}
	t.Logf("the client that stopped: %+v", stopping.told)
}

// resident is the memory of the replica in MiB.
func (r *replica) resident() int {
	r.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	r.t.Fatal("no VmRSS")
	return 0
}
