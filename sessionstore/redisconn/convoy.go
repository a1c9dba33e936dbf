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
	convoyFewest   = 8       // of one trip, however long it takes
	convoyBytes    = 1 << 20 // of one trip's arguments; a longer call goes alone
	convoyPatience = 5 * time.Second
	convoyLong     = 250 * time.Millisecond // a trip that takes longer has too many calls
	convoyWait     = 2 * convoyLong         // without a trip that ends; then there is one more, beside those that hang
)

// Convoy has calls that come at the same time share a round trip. Nobody waits
// for others to come: a call leaves at once while a trip is free, and otherwise
// with all that have come by the time one ends. Trips that hang hold others up
// for little longer than convoyWait: then another begins, and one more each
// time that none has ended for as long again. A Redis that is slow is another
// matter: there trips are made shorter, so that they end before their time is
// over. More of them at a time, or calls that go alone, would make it slower.
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
	calls   int          // of one trip at most, as long as they take long; convoyCalls otherwise
	moved   time.Time    // when one began or ended last
	ended   int          // how many have ended and begun anew
}

// passenger is one call of a convoy.
type passenger struct {
	cmds []redis.Cmder
	size int
	done chan struct{} // closed: its commands have been answered
}

// NewConvoy makes one with this many trips under way at a time. In a Cluster
// calls go apart: a shard that hangs must not hold up those of the others.
func NewConvoy(client redis.UniversalClient, trips int) *Convoy {
	_, cluster := client.(*redis.ClusterClient)
	return &Convoy{
		client: client, maxTrips: trips, apart: cluster, calls: convoyCalls,
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
	now := time.Now()
	if v.trips < v.maxTrips {
		v.trips++
		v.moved = now
		before := v.ended
		v.mu.Unlock()
		defer func() { v.next(before) }()
		v.send(ctx, cmds)
		return nil
	}
	p := &passenger{cmds: cmds, size: sizeOf(cmds), done: make(chan struct{})}
	v.waiting = append(v.waiting, p)
	overdue := time.NewTimer(v.moved.Add(convoyWait).Sub(now)) // others may have waited before, and have given up
	v.mu.Unlock()
	defer overdue.Stop()
	for {
		select {
		case <-p.done:
			return nil
		case <-ctx.Done():
			v.leave(p)
			return ctx.Err()
		case <-overdue.C:
			overdue.Reset(v.hasten())
		}
	}
}

// hasten begins one more trip, if none has begun or ended for a while and
// somebody waits. It returns when to look again.
func (v *Convoy) hasten() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if left := v.moved.Add(convoyWait).Sub(now); left > 0 {
		return left
	}
	if len(v.waiting) > 0 {
		v.trips++
		v.moved = now
		go v.travel(v.boardLocked(), v.ended) // for convoyPatience at most
	}
	return convoyWait
}

// next begins another trip in the place of one that is over, if anybody waits.
// One trip too many, begun beside those that hung, is the last when others
// have gone on since it began, before being how many had. Were it the last
// without that, nobody might go on.
func (v *Convoy) next(before int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moved = time.Now()
	if len(v.waiting) == 0 || v.trips > v.maxTrips && v.ended != before {
		v.trips--
		return
	}
	v.ended++
	go v.travel(v.boardLocked(), v.ended) // for convoyPatience at most
}

// leave takes p out of the queue, if it is there.
func (v *Convoy) leave(p *passenger) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := slices.Index(v.waiting, p); i >= 0 {
		v.waiting = slices.Delete(v.waiting, i, i+1)
	}
}

// travel sends the commands of those who go together. Nobody's leaving
// interrupts it: the others' are among them.
func (v *Convoy) travel(aboard []*passenger, before int) {
	defer func() { v.next(before) }()
	ctx, cancel := context.WithTimeout(context.Background(), convoyPatience)
	defer cancel()
	cmds := aboard[0].cmds
	if len(aboard) > 1 {
		cmds = nil
		for _, p := range aboard {
			cmds = append(cmds, p.cmds...)
		}
	}
	began := time.Now()
	v.send(ctx, cmds)
	for _, p := range aboard {
		close(p.done)
	}
	v.adapt(len(aboard), time.Since(began))
}

// adapt learns from a trip how many calls the next ones may have. A trip that
// was nearly empty says nothing of that: it was the way that took long.
func (v *Convoy) adapt(calls int, took time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case took > convoyLong && calls > v.calls/2:
		v.calls = max(convoyFewest, min(v.calls, calls/2))
	case took < convoyLong/4:
		v.calls = min(convoyCalls, v.calls+v.calls/4)
	case took < convoyLong:
		v.calls = min(convoyCalls, v.calls+1)
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
	for n < min(len(v.waiting), v.calls) && (n == 0 || size+v.waiting[n].size <= convoyBytes) {
		size += v.waiting[n].size
		n++
	}
	aboard := slices.Clone(v.waiting[:n])
	v.waiting = slices.Delete(v.waiting, 0, n)
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
