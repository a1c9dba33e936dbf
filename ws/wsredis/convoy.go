package wsredis

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Bounds of a convoy. As many callers as there are trips go at once, each
// alone; a crowd goes in large batches, since a round trip costs both ends
// more than most scripts do.
const (
	convoyTrips    = 8       // under way at a time
	convoyCalls    = 128     // of one trip
	convoyBytes    = 1 << 20 // of one trip's arguments; a longer call goes alone
	convoyPatience = 5 * time.Second
)

// convoy has calls of one script that come at the same time share a round
// trip. Nobody waits for others to come: a call leaves at once while a trip is
// free, and otherwise with all that have come by the time one ends. It needs
// no goroutine: one of those who wait leads the next trip.
//
// Safe for concurrent use.
type convoy struct {
	// Fixed after construction.
	client redis.UniversalClient
	script *redis.Script
	apart  bool // each call goes alone

	mu      sync.Mutex
	waiting []*passenger // in the order they came
	trips   int          // under way, or about to be led
}

// passenger is one call of a convoy.
type passenger struct {
	call
	size   int
	lead   chan struct{} // capacity 1: it is to lead the next trip
	ready  chan struct{} // closed when there is a result
	result *redis.Cmd

	// Guarded by convoy.mu.
	leads  bool // was told to lead and has not begun
	aboard bool // of a trip, and waiting no more
}

// newConvoy makes one. In a Cluster calls go apart: a shard that hangs must
// not hold up those of the others.
func newConvoy(client redis.UniversalClient, script *redis.Script) *convoy {
	_, cluster := client.(*redis.ClusterClient)
	return &convoy{client: client, script: script, apart: cluster}
}

// run makes the call and returns its result. When ctx ends before the call has
// left it is not made; when it ends later nobody knows whether it took effect.
// Who leads a trip is held until it is over.
func (v *convoy) run(ctx context.Context, c call) *redis.Cmd {
	if v.apart {
		return v.script.Run(ctx, v.client, c.keys, c.args...)
	}
	if ctx.Err() != nil {
		return refused(ctx)
	}
	p := &passenger{call: c, size: sizeOf(c), lead: make(chan struct{}, 1), ready: make(chan struct{})}
	v.mu.Lock()
	v.waiting = append(v.waiting, p)
	if v.trips < convoyTrips {
		v.trips++
		v.chooseLocked(p)
	}
	v.mu.Unlock()
	for {
		select {
		case <-p.lead:
			v.travel(ctx, p)
		case <-p.ready:
			v.leave(p)
			return p.result
		case <-ctx.Done():
			v.leave(p)
			return refused(ctx)
		}
	}
}

// refused is the result of a call whose caller has gone.
func refused(ctx context.Context) *redis.Cmd {
	result := redis.NewCmd(ctx)
	result.SetErr(ctx.Err())
	return result
}

func (v *convoy) chooseLocked(p *passenger) {
	p.leads = true
	p.lead <- struct{}{}
}

// nextLocked passes a trip on to the first who waits and leads none, or ends
// it.
func (v *convoy) nextLocked() {
	for _, p := range v.waiting {
		if !p.leads {
			v.chooseLocked(p)
			return
		}
	}
	v.trips--
}

// leave takes p out, and passes on a trip that it was to lead.
func (v *convoy) leave(p *passenger) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !p.aboard {
		i := slices.Index(v.waiting, p)
		v.waiting = slices.Delete(v.waiting, i, i+1)
		p.aboard = true
	}
	if p.leads {
		p.leads = false
		v.nextLocked()
	}
}

// travel makes the calls that wait. It is not interrupted when its leader
// goes: the others' calls are in it.
func (v *convoy) travel(ctx context.Context, leader *passenger) {
	v.mu.Lock()
	leader.leads = false
	aboard := v.boardLocked()
	v.mu.Unlock()
	if len(aboard) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), convoyPatience)
		calls := make([]call, len(aboard))
		for i, p := range aboard {
			calls[i] = p.call
		}
		for i, result := range runAll(ctx, v.client, v.script, calls) {
			aboard[i].result = result
			close(aboard[i].ready)
		}
		cancel()
	}
	v.mu.Lock()
	v.nextLocked()
	v.mu.Unlock()
}

// boardLocked takes who goes together out of the queue.
func (v *convoy) boardLocked() []*passenger {
	n, size := 0, 0
	for n < min(len(v.waiting), convoyCalls) && (n == 0 || size+v.waiting[n].size <= convoyBytes) {
		size += v.waiting[n].size
		n++
	}
	aboard := slices.Clone(v.waiting[:n])
	v.waiting = slices.Delete(v.waiting, 0, n)
	for _, p := range aboard {
		p.aboard = true
	}
	return aboard
}

func sizeOf(c call) int {
	size := 0
	for _, arg := range c.args {
		switch arg := arg.(type) {
		case string:
			size += len(arg)
		case []byte:
			size += len(arg)
		}
	}
	return size
}
