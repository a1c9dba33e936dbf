package gateway

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// queue is where requests wait for a target with a free place, when the
// upstream bounds what is under way at each. First come, first served, but
// for those that may not go where there is room. Safe for concurrent use.
type queue struct {
	mu      sync.Mutex // a leaf; guards the choice of a place, too
	waiting list.List  // of *waiter; at most Concurrency.Waiting
}

// waiter is a request in the queue.
type waiter struct {
	x     *exchange // its goroutine does nothing but wait
	tried []*target
	place chan *target // of 1; gets the target that has a place for it
}

// errBusy says that no target had a place for a request in time.
var errBusy = errors.New("every target has as many requests as it may have")

// acquire returns the target that a request is to go to, with the request
// counted among those under way there. The error is errBusy or the context's.
func (p *pool) acquire(ctx context.Context, x *exchange, tried []*target) (*target, error) {
	if p.cfg.Concurrency == nil {
		t := p.pick(x, tried)
		t.pending.Add(1)
		return t, nil
	}
	w := &waiter{x: x, tried: tried, place: make(chan *target, 1)}
	p.queue.mu.Lock()
	if p.queue.waiting.Len() == 0 && p.place(w) {
		p.queue.mu.Unlock()
		return <-w.place, nil
	}
	if p.queue.waiting.Len() >= p.cfg.Concurrency.Waiting {
		p.queue.mu.Unlock()
		return nil, errBusy
	}
	element := p.queue.waiting.PushBack(w)
	p.queue.mu.Unlock()

	p.g.metrics.waiting.Inc()
	defer p.g.metrics.waiting.Dec()
	timeout := time.NewTimer(p.cfg.Concurrency.Timeout)
	defer timeout.Stop()
	err := errBusy
	select {
	case t := <-w.place:
		return t, nil
	case <-timeout.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.queue.mu.Lock()
	p.queue.waiting.Remove(element)
	p.queue.mu.Unlock()
	select {
	case t := <-w.place: // it came at the last moment
		if err == errBusy {
			return t, nil
		}
		p.release(t)
	default:
	}
	return nil, err
}

// release gives the place of a request that has ended to one that waits.
func (p *pool) release(t *target) {
	t.pending.Add(-1)
	if p.cfg.Concurrency == nil {
		return
	}
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	for e := p.queue.waiting.Front(); e != nil; {
		w, next := e.Value.(*waiter), e.Next()
		switch {
		case p.place(w):
			p.queue.waiting.Remove(e)
		case len(w.tried) == 0:
			return // there is no room, for the others neither
		}
		e = next
	}
}

// place gives w the best target with a free place, if there is one. The
// caller holds queue.mu.
func (p *pool) place(w *waiter) bool {
	t := p.pick(w.x, w.tried)
	if t == nil {
		return false
	}
	t.pending.Add(1)
	w.place <- t
	return true
}

// full reports whether a target has as many requests as it may have.
func (p *pool) full(t *target) bool {
	return p.cfg.Concurrency != nil && t.pending.Load() >= int64(p.cfg.Concurrency.Requests)
}
