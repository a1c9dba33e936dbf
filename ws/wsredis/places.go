package wsredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

//go:embed lua/places.lua
var placesLua string

var placesScript = redis.NewScript(placesLua)

// PlacesConfig says how Places work.
type PlacesConfig struct {
	// Backplane is of the same replica. Required: its client, its tick, its
	// lease's length and its log are used; its Run need not be running.
	Backplane *Backplane

	Metrics prometheus.Registerer // nil: not registered
}

// Places implements ws.Places. Each replica has a hash of how many connections
// its sessions and users have, which lives as long as a lease and which nobody
// else writes. Its one writer takes all who wait for a place and all that
// changed to Redis in one script, so that a storm of connections costs few
// round trips. Safe for concurrent use; Take needs Run.
type Places struct {
	// Fixed after construction.
	client  redis.UniversalClient
	key     string // of this replica's hash
	tick    time.Duration
	life    time.Duration
	logger  *slog.Logger
	metrics *placesMetrics
	wake    chan struct{} // capacity 1: there is something to write

	// Owned by Run.
	others []string // hashes of the other replicas
	writes uint64   // number of the last write

	mu      sync.Mutex
	held    map[string]int // by field; what the hash should say
	changed map[string]struct{}
	waiting []*waiter // in order; each is a connection that is not open yet
	anew    bool      // the hash was lost, or may be
}

var _ ws.Places = (*Places)(nil)

// waiter is a Take under way.
type waiter struct {
	place  ws.Place
	limits ws.PlaceLimits
	given  chan bool // capacity 1
	left   bool      // guarded by Places.mu: nobody receives from given any more
}

// NewPlaces makes the count of this replica's connections. It does no I/O and
// starts no goroutine; Run does.
func NewPlaces(cfg PlacesConfig) (*Places, error) {
	if cfg.Backplane == nil {
		return nil, errors.New("wsredis: places need a Backplane")
	}
	m, err := newPlacesMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("wsredis: %w", err)
	}
	b := cfg.Backplane
	return &Places{
		client:  b.client,
		key:     placesKey(b.incarnation),
		tick:    b.tick,
		life:    b.leases.life + b.leases.patience,
		logger:  b.logger,
		metrics: m,
		wake:    make(chan struct{}, 1),
		held:    map[string]int{},
		changed: map[string]struct{}{},
		anew:    true,
	}, nil
}

// Take implements ws.Places.
func (p *Places) Take(ctx context.Context, place ws.Place, limits ws.PlaceLimits) error {
	if limits == (ws.PlaceLimits{}) { // nobody is refused, nobody has to wait
		p.Move(ws.Place{}, place)
		return nil
	}
	w := &waiter{place: place, limits: limits, given: make(chan bool, 1)}
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	notify(p.wake)
	given := false
	select {
	case given = <-w.given:
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		w.left = true
		select {
		case given = <-w.given: // just now
			if given {
				p.addLocked(place, -1)
				notify(p.wake)
			}
		default: // whoever gives it takes it back
		}
		return fmt.Errorf("%w: take a place: %w", ws.ErrUnavailable, ctx.Err())
	}
	if !given {
		return ws.ErrCrowded
	}
	return nil
}

// Move implements ws.Places.
func (p *Places) Move(from, to ws.Place) {
	p.mu.Lock()
	p.addLocked(from, -1)
	p.addLocked(to, 1)
	p.mu.Unlock()
	notify(p.wake)
}

// Release implements ws.Places.
func (p *Places) Release(place ws.Place) { p.Move(place, ws.Place{}) }

// Count implements ws.Places. What this replica has is known; the others are
// asked.
func (p *Places) Count(ctx context.Context, sessions []string) ([]int, error) {
	counts, fields := make([]int, len(sessions)), make([]string, len(sessions))
	p.mu.Lock()
	for i, session := range sessions {
		fields[i] = sessionField(session)
		counts[i] = p.held[fields[i]]
	}
	p.mu.Unlock()
	if len(sessions) == 0 {
		return counts, nil
	}
	replicas, err := p.client.SMembers(ctx, placesSet).Result()
	if err != nil {
		return nil, wrap("count connections", err)
	}
	var there []*redis.SliceCmd
	if _, err := p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range replicas {
			if key != p.key {
				there = append(there, pipe.HMGet(ctx, key, fields...))
			}
		}
		return nil
	}); err != nil {
		return nil, wrap("count connections", err)
	}
	for _, replica := range there {
		for i, value := range replica.Val() {
			counts[i] += countIn(value)
		}
	}
	return counts, nil
}

// addLocked changes what is held, and has it written.
func (p *Places) addLocked(place ws.Place, n int) {
	for _, field := range fieldsOf(place) {
		p.countLocked(field, n)
		p.changed[field] = struct{}{}
	}
}

func (p *Places) countLocked(field string, n int) {
	if p.held[field] += n; p.held[field] == 0 {
		delete(p.held, field)
	}
}

// fieldsOf names the fields of a place: its session's, its user's if any.
func fieldsOf(place ws.Place) []string {
	var fields []string
	if place.Session != "" {
		fields = append(fields, sessionField(place.Session))
	}
	if place.User != "" {
		fields = append(fields, userField(place.User))
	}
	return fields
}

func sessionField(handle string) string { return "s:" + handle }
func userField(user string) string      { return "u:" + user }
