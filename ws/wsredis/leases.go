package wsredis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// leases tell which replicas live: each renews its own with every tick, and it
// vouches for the members and sides of pairs that the replica holds.
//
// A lease that is missing may have been lost, or have run out while Redis was
// away from everybody. So it must have been missing for some time, patience,
// in which a replica that lives would have put it back, while Redis answered.
// The key's life and patience together are Config.Lease. Safe for concurrent
// use.
type leases struct {
	// Fixed after construction.
	client      redis.UniversalClient
	incarnation string
	life        time.Duration // of the key
	patience    time.Duration

	mu    sync.Mutex
	until time.Time // the own lease does not run out before
}

func newLeases(client redis.UniversalClient, incarnation string, lease, tick time.Duration) *leases {
	patience := tick * 4 / 3
	return &leases{client: client, incarnation: incarnation, life: lease - patience, patience: patience}
}

// hold renews the own lease when it may have run out.
func (l *leases) hold(ctx context.Context) error {
	l.mu.Lock()
	held := time.Now().Before(l.until)
	l.mu.Unlock()
	if held {
		return nil
	}
	return l.renew(ctx)
}

// renew prolongs the own lease. Only when it is missing is it written, which a
// Redis that is out of memory refuses.
func (l *leases) renew(ctx context.Context) error {
	now := time.Now() // before the command: never too long
	key := leaseKey(l.incarnation)
	renewed, err := l.client.PExpire(ctx, key, l.life).Result()
	if err == nil && !renewed {
		err = l.client.Set(ctx, key, "", l.life).Err()
	}
	if err != nil {
		return wrap("renew lease", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = now.Add(l.life)
	return nil
}

// release gives the own lease up.
func (l *leases) release(ctx context.Context) error {
	l.mu.Lock()
	l.until = time.Time{}
	l.mu.Unlock()
	return wrap("give up lease", l.client.Del(ctx, leaseKey(l.incarnation)).Err())
}

// dead reports whether a replica is dead. That it lives is known at once; to
// be sure that it does not takes patience.
func (l *leases) dead(ctx context.Context, replica string) (bool, error) {
	for _, wait := range []time.Duration{0, l.patience} {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, wrap("look for lease", ctx.Err())
		}
		n, err := l.client.Exists(ctx, leaseKey(replica)).Result()
		if err != nil || n > 0 {
			return false, wrap("look for lease", err)
		}
	}
	return true, nil
}

// watch looks at the leases of others with every tick. It belongs to one
// goroutine.
type watch struct {
	*leases
	missing map[string]time.Time // replica → since when its lease has been seen missing
}

// look returns which of replicas are dead, and when the next can be.
func (w *watch) look(ctx context.Context, replicas []string) (dead map[string]struct{}, next time.Duration, err error) {
	lives := make([]*redis.DurationCmd, len(replicas))
	if _, err := w.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, replica := range replicas {
			lives[i] = p.PTTL(ctx, leaseKey(replica))
		}
		return nil
	}); err != nil {
		w.missing = nil
		return nil, 0, wrap("look for leases", err)
	}
	next = w.life
	dead = map[string]struct{}{}
	missing := map[string]time.Time{}
	for i, replica := range replicas {
		left := lives[i].Val()
		if left == noKey {
			since, before := w.missing[replica]
			if !before {
				since = time.Now()
			}
			missing[replica] = since
			left = w.patience - time.Since(since)
			if left <= 0 {
				dead[replica] = struct{}{}
				continue
			}
		}
		next = min(next, left+time.Millisecond)
	}
	w.missing = missing
	return dead, next, nil
}

// lost forgets what was seen: Redis has been away.
func (w *watch) lost() { w.missing = nil }

// noKey is PTTL's answer for a key that is not there.
const noKey = time.Duration(-2)
