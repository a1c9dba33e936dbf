package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// holding is an upstream whose requests end when they are told to, and that
// knows how many it had at a time.
type holding struct {
	url     string
	end     chan struct{}
	arrived chan struct{}
	now     atomic.Int64
	most    atomic.Int64
}

func newHolding(t *testing.T) *holding {
	h := &holding{end: make(chan struct{}), arrived: make(chan struct{}, 100)}
	h.url = upstream(t, func(w http.ResponseWriter, r *http.Request) {
		n := h.now.Add(1)
		defer h.now.Add(-1)
		for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
		}
		h.arrived <- struct{}{}
		select {
		case <-h.end:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "done")
	}).URL
	return h
}

func (g *Gateway) waitingRequests() int { return int(testutil.ToFloat64(g.metrics.waiting)) }

// What exceeds the places waits, in a queue with an end and for a time with an
// end, and is told so once.
func TestConcurrency(t *testing.T) {
	h := newHolding(t)
	g := start(t, toUpstream(Upstream{Targets: []string{h.url}, Concurrency: &Concurrency{Requests: 2, Waiting: 3, Timeout: time.Minute}}))
	statuses := make(chan int, 10)
	var clients sync.WaitGroup
	for range 5 {
		clients.Go(func() { statuses <- get(t, g.url()).status })
	}
	eventually(t, "two are there, three wait", func() bool { return len(h.arrived) == 2 && g.waitingRequests() == 3 })
	a := get(t, g.url())
	if a.status != 503 || !strings.Contains(a.body, "upstream_busy") || a.header.Get("Retry-After") == "" || g.failures(reasonBusy) != 1 {
		t.Errorf("the sixth: %d %s", a.status, a.body)
	}
	for range 5 {
		h.end <- struct{}{}
	}
	clients.Wait()
	for range 5 {
		if s := <-statuses; s != 200 {
			t.Error(s)
		}
	}
	if h.most.Load() != 2 || g.waitingRequests() != 0 {
		t.Errorf("%d at a time, %d wait", h.most.Load(), g.waitingRequests())
	}
}

func TestWaitForAPlaceEnds(t *testing.T) {
	h := newHolding(t)
	g := start(t, toUpstream(Upstream{Targets: []string{h.url}, Concurrency: &Concurrency{Requests: 1, Waiting: 9, Timeout: 20 * time.Millisecond}}))
	first := make(chan int)
	go func() { first <- get(t, g.url()).status }()
	<-h.arrived
	if a := get(t, g.url()); a.status != 503 || g.failures(reasonBusy) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(h.end)
	if s := <-first; s != 200 {
		t.Error(s)
	}
	if a := get(t, g.url()); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// A client that leaves the queue takes no place with it.
func TestClientLeavesTheQueue(t *testing.T) {
	h := newHolding(t)
	g := start(t, toUpstream(Upstream{Targets: []string{h.url}, Concurrency: &Concurrency{Requests: 1, Waiting: 9, Timeout: time.Minute}}))
	first := make(chan int)
	go func() { first <- get(t, g.url()).status }()
	<-h.arrived
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error)
	go func() {
		_, err := http.DefaultClient.Do(request(t, http.MethodGet, g.url()).WithContext(ctx))
		left <- err
	}()
	eventually(t, "one waits", func() bool { return g.waitingRequests() == 1 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "none waits", func() bool { return g.waitingRequests() == 0 })
	close(h.end)
	if s := <-first; s != 200 {
		t.Error(s)
	}
	if a := get(t, g.url()); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// Places are never more than allowed and never lost, whatever comes and goes.
func TestPlacesAreKept(t *testing.T) {
	p := poolOf(t, BalanceLeastRequests, 3)
	p.cfg.Concurrency = &Concurrency{Requests: 2, Waiting: 1000, Timeout: time.Minute}
	p.g.metrics, _ = newMetrics(nil)
	var over atomic.Int64
	var workers sync.WaitGroup
	for w := range 32 {
		workers.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithCancel(context.Background())
				if (w+i)%5 == 0 {
					cancel()
				}
				var tried []*target
				if (w+i)%7 == 0 {
					tried = p.targets[:1]
				}
				target, err := p.acquire(ctx, exchangeOf(fmt.Sprint(w)), tried)
				if err == nil {
					if target.pending.Load() > 2 {
						over.Add(1)
					}
					p.release(target)
				}
				cancel()
			}
		})
	}
	workers.Wait()
	for _, target := range p.targets {
		if target.pending.Load() != 0 {
			t.Errorf("%s keeps %d", target.id, target.pending.Load())
		}
	}
	if over.Load() != 0 || p.queue.waiting.Len() != 0 {
		t.Errorf("%d times too many, %d still wait", over.Load(), p.queue.waiting.Len())
	}
}
