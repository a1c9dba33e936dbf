package wstest

import (
	"context"
	"fmt"

	"github.com/seed-6230208e/tandem/ws"
)

var _ ws.Places = (*Replica)(nil)

// places counts by session alone, and by user alone.
type places map[ws.Place]int

func (p places) add(place ws.Place, n int) {
	for _, half := range []ws.Place{{Session: place.Session}, {User: place.User}} {
		if half != (ws.Place{}) {
			p[half] += n
		}
	}
}

// Take implements ws.Places.
func (r *Replica) Take(ctx context.Context, p ws.Place, limits ws.PlaceLimits) error {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ws.ErrUnavailable, err)
	}
	total := func(half ws.Place) (n int) {
		for _, other := range r.network.replicas {
			if other == r || !r.unavailable && !other.unavailable && !other.dead {
				n += other.places[half]
			}
		}
		return n
	}
	if limits.PerSession > 0 && total(ws.Place{Session: p.Session}) >= limits.PerSession ||
		p.User != "" && limits.PerUser > 0 && total(ws.Place{User: p.User}) >= limits.PerUser {
		return ws.ErrCrowded
	}
	r.places.add(p, 1)
	return nil
}

// Move implements ws.Places.
func (r *Replica) Move(from, to ws.Place) {
	r.set(func() {
		r.places.add(from, -1)
		r.places.add(to, 1)
	})
}

// Release implements ws.Places.
func (r *Replica) Release(p ws.Place) { r.Move(p, ws.Place{}) }

// Count implements ws.Places.
func (r *Replica) Count(ctx context.Context, sessions []string) ([]int, error) {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return nil, err
	}
	counts := make([]int, len(sessions))
	for _, other := range r.network.replicas {
		for i, session := range sessions {
			if !other.dead {
				counts[i] += other.places[ws.Place{Session: session}]
			}
		}
	}
	return counts, nil
}
