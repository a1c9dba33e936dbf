package redisconn

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Bounds of a Convoy. As many callers as there are trips go at once, each
// alone; a crowd goes in large batches, since a round trip costs both ends
// more than most commands do.
const (
	convoyCalls    = 128     // of one trip
	convoyBytes    = 1 << 20 // of one trip's arguments; a longer call goes alone
	convoyPatience = 5 * time.Second
)

// Convoy has calls that come at the same time share a round trip. Nobody waits
// for others to come: a call leaves at once while a trip is free, and otherwise
// with all that have come by the time one ends. It needs no goroutine: one of
// those who wait leads the next trip.
//
// Safe for concurrent use.
type Convoy struct {
	// Fixed after construction.
	client    redis.UniversalClient
	maxTrips  int
	apart     bool      // each call goes alone
	pipelines sync.Pool // of redis.Pipeliner, empty

	mu      sync.Mutex
	waiting []*passenger // in the order they came
	trips   int          // under way, or about to be led
}

// passenger is one call of a convoy.
type passenger struct {
	cmds []redis.Cmder
	size int
	told chan bool // capacity 2: true, it is to lead the next trip; false, its commands have been answered

	// Guarded by Convoy.mu.
	leads  bool // was told to lead and has not begun
	aboard bool // of a trip, and waiting no more
}

// NewConvoy makes one with this many trips under way at a time. In a Cluster
// calls go apart: a shard that hangs must not hold up those of the others.
func NewConvoy(client redis.UniversalClient, trips int) *Convoy {
	_, cluster := client.(*redis.ClusterClient)
	return &Convoy{
		client: client, maxTrips: trips, apart: cluster,
		pipelines: sync.Pool{New: func() any { return client.Pipeline() }},
	}
}

// Do sends commands and waits for their answers; each has its own error
// afterwards. When ctx ends before they have left they are not sent; when it
// ends later nobody knows whether they took effect. Then the error is ctx's, or
// that of the commands; with the former they must not be looked at. Who leads a trip is held until it is
// over.
func (v *Convoy) Do(ctx context.Context, cmds ...redis.Cmder) error {
	if v.apart {
		v.send(ctx, cmds)
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	if v.trips < v.maxTrips { // then nobody waits
		v.trips++
		v.mu.Unlock()
		v.send(ctx, cmds)
		v.mu.Lock()
		v.nextLocked()
		v.mu.Unlock()
		return nil
	}
	p := &passenger{cmds: cmds, size: sizeOf(cmds), told: make(chan bool, 2)}
	v.waiting = append(v.waiting, p)
	v.mu.Unlock()
	for {
		select {
		case lead := <-p.told:
			if lead {
				v.travel(ctx, p)
				continue
			}
			v.leave(p)
			return nil
		case <-ctx.Done():
			v.leave(p)
			return ctx.Err()
		}
	}
}

func (v *Convoy) chooseLocked(p *passenger) {
	p.leads = true
	p.told <- true
}

// nextLocked passes a trip on to the first who waits and leads none, or ends
// it.
func (v *Convoy) nextLocked() {
	for _, p := range v.waiting {
		if !p.leads {
			v.chooseLocked(p)
			return
		}
	}
	v.trips--
}

// leave takes p out, and passes on a trip that it was to lead.
func (v *Convoy) leave(p *passenger) {
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

// travel sends the commands that wait. It is not interrupted when its leader
// goes: the others' calls are among them.
func (v *Convoy) travel(ctx context.Context, leader *passenger) {
	v.mu.Lock()
	leader.leads = false
	aboard := v.boardLocked()
	v.mu.Unlock()
	if len(aboard) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), convoyPatience)
		cmds := aboard[0].cmds
		if len(aboard) > 1 {
			cmds = nil
			for _, p := range aboard {
				cmds = append(cmds, p.cmds...)
			}
		}
		v.send(ctx, cmds)
		for _, p := range aboard {
			p.told <- false
		}
		cancel()
	}
	v.mu.Lock()
	v.nextLocked()
	v.mu.Unlock()
}

// send makes one round trip. Each command has its own error.
func (v *Convoy) send(ctx context.Context, cmds []redis.Cmder) {
	if len(cmds) == 1 {
		_ = v.client.Process(ctx, cmds[0])
		return
	}
	pipe := v.pipelines.Get().(redis.Pipeliner)
	defer v.pipelines.Put(pipe) // Exec has emptied it
	_ = pipe.BatchProcess(ctx, cmds...)
	_, _ = pipe.Exec(ctx)
}

// boardLocked takes who goes together out of the queue.
func (v *Convoy) boardLocked() []*passenger {
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

func sizeOf(cmds []redis.Cmder) int {
	size := 0
	for _, cmd := range cmds {
		for _, arg := range cmd.Args() {
			switch arg := arg.(type) {
			case string:
				size += len(arg)
			case []byte:
				size += len(arg)
			}
		}
	}
	return size
}
