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
	convoyWait     = 100 * time.Millisecond // without a trip that ends; then a call goes alone, beside those that hang
)

// Convoy has calls that come at the same time share a round trip. Nobody waits
// for others to come: a call leaves at once while a trip is free, and otherwise
// with all that have come by the time one ends. Trips that hang hold nobody up
// for longer than convoyWait.
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
	trips   int          // under way
	moved   time.Time    // when one ended last
}

// passenger is one call of a convoy.
type passenger struct {
	cmds []redis.Cmder
	size int
	done chan struct{} // closed: its commands have been answered

	aboard bool // of a trip, and waiting no more; guarded by Convoy.mu
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
// that of the commands; with the former they must not be looked at.
func (v *Convoy) Do(ctx context.Context, cmds ...redis.Cmder) error {
	if v.apart {
		v.send(ctx, cmds)
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	if v.trips < v.maxTrips {
		v.trips++
		v.mu.Unlock()
		defer v.next()
		v.send(ctx, cmds)
		return nil
	}
	p := &passenger{cmds: cmds, size: sizeOf(cmds), done: make(chan struct{})}
	v.waiting = append(v.waiting, p)
	v.mu.Unlock()

	overdue := time.NewTimer(convoyWait)
	defer overdue.Stop()
	for {
		select {
		case <-p.done:
			return nil
		case <-ctx.Done():
			v.leave(p)
			return ctx.Err()
		case <-overdue.C:
			if v.moves() { // slowly: a crowd whose calls went alone would have all wait for connections
				overdue.Reset(convoyWait)
			} else if v.leave(p) {
				v.send(ctx, cmds)
				return nil
			}
		}
	}
}

// moves reports whether a trip has ended a moment ago.
func (v *Convoy) moves() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Since(v.moved) < convoyWait
}

// next begins another trip in the place of one that is over, if anybody waits.
func (v *Convoy) next() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moved = time.Now()
	if len(v.waiting) == 0 {
		v.trips--
		return
	}
	go v.travel(v.boardLocked()) // for convoyPatience at most
}

// leave takes p out of the queue, and reports whether it was there.
func (v *Convoy) leave(p *passenger) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.aboard {
		return false
	}
	i := slices.Index(v.waiting, p)
	v.waiting = slices.Delete(v.waiting, i, i+1)
	p.aboard = true
	return true
}

// travel sends the commands of those who go together. Nobody's leaving
// interrupts it: the others' are among them.
func (v *Convoy) travel(aboard []*passenger) {
	defer v.next()
	ctx, cancel := context.WithTimeout(context.Background(), convoyPatience)
	defer cancel()
	cmds := aboard[0].cmds
	if len(aboard) > 1 {
		cmds = nil
		for _, p := range aboard {
			cmds = append(cmds, p.cmds...)
		}
	}
	v.send(ctx, cmds)
	for _, p := range aboard {
		close(p.done)
	}
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
	_, err := pipe.Exec(ctx)
	failed := func(cmd redis.Cmder) bool { return cmd.Err() != nil }
	if err != nil && !slices.ContainsFunc(cmds, failed) { // refused before they were sent, such as a login
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
	}
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
