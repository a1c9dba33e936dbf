package ws

import (
	"context"
	"errors"
	"sync"
)

// ErrCrowded: the session or the user has as many connections as it may.
var ErrCrowded = errors.New("too many connections")

// Place is what one connection takes: one of its session's places, and one of
// its user's. The zero Place is none.
type Place struct {
	Session string // handle
	User    string // ID; empty: nobody is logged in, and no user's place is taken
}

// PlaceLimits is how many places there are. 0: as many as are asked for.
type PlaceLimits struct{ PerSession, PerUser int }

// Places counts connections over all replicas. Who holds a place is counted
// for as long as this replica lives; the places of one that died are free
// again within 15 seconds.
//
// Methods are safe for concurrent use.
type Places interface {
	// Take takes a place, or returns ErrCrowded: of any number who ask at the
	// same time, on whatever replicas, as many succeed as there are places.
	// While the store cannot be reached, what is known on this replica
	// decides. ErrUnavailable only when ctx ended first; no place is held then.
	Take(ctx context.Context, p Place, limits PlaceLimits) error

	// Move exchanges a place that is held for another, be there room or not:
	// the session was given a user. It does not block.
	Move(from, to Place)

	// Release gives back what Take took. It does not block.
	Release(p Place)

	// Count returns how many places each session has taken, in their order.
	Count(ctx context.Context, sessions []string) ([]int, error)
}

// placesHere counts the connections of this replica alone.
type placesHere struct {
	mu    sync.Mutex
	taken map[Place]int // by session alone, and by user alone
}

func newPlacesHere() *placesHere { return &placesHere{taken: make(map[Place]int)} }

// Take implements Places.
func (h *placesHere) Take(_ context.Context, p Place, limits PlaceLimits) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if over(h.taken[Place{Session: p.Session}], limits.PerSession) ||
		p.User != "" && over(h.taken[Place{User: p.User}], limits.PerUser) {
		return ErrCrowded
	}
	h.addLocked(p, 1)
	return nil
}

// Move implements Places.
func (h *placesHere) Move(from, to Place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(from, -1)
	h.addLocked(to, 1)
}

// Release implements Places.
func (h *placesHere) Release(p Place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(p, -1)
}

// Count implements Places.
func (h *placesHere) Count(_ context.Context, sessions []string) ([]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := make([]int, len(sessions))
	for i, session := range sessions {
		counts[i] = h.taken[Place{Session: session}]
	}
	return counts, nil
}

func (h *placesHere) addLocked(p Place, n int) {
	for _, half := range []Place{{Session: p.Session}, {User: p.User}} {
		if half == (Place{}) {
			continue
		}
		if h.taken[half] += n; h.taken[half] == 0 {
			delete(h.taken, half)
		}
	}
}
