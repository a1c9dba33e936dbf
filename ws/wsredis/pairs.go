package wsredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

var (
	//go:embed lua/pair_common.lua
	pairCommonLua string
	//go:embed lua/pair_claim.lua
	pairClaimLua string
	//go:embed lua/pair_release.lua
	pairReleaseLua string
	//go:embed lua/pair_post.lua
	pairPostLua string
	//go:embed lua/pair_take.lua
	pairTakeLua string

	pairClaimScript   = redis.NewScript(homeLua + pairCommonLua + pairClaimLua)
	pairReleaseScript = redis.NewScript(homeLua + pairCommonLua + pairReleaseLua)
	pairPostScript    = redis.NewScript(homeLua + pairCommonLua + pairPostLua)
	pairTakeScript    = redis.NewScript(homeLua + pairCommonLua + pairTakeLua)
)

// PairsConfig says how Pairs work.
type PairsConfig struct {
	// Backplane is of the same replica. Required: its client, its lease, its
	// tick and its log are used, so its Run must be running.
	Backplane *Backplane

	// Grace is how long a pair lives on after both sides have left, in whole
	// seconds. 0 means 10 s; negative is an error.
	Grace time.Duration

	Metrics prometheus.Registerer // nil: not registered
}

// Pairs implements ws.PairPlane. A claim is vouched for by its replica's
// lease: nothing is written for a side that waits. Safe for concurrent use.
type Pairs struct {
	// Fixed after construction.
	client      redis.UniversalClient
	leases      *leases
	incarnation string
	channel     string
	tick        time.Duration
	grace       int64         // seconds
	durable     *atomic.Value // of the Backplane
	logger      *slog.Logger
	metrics     *pairMetrics
	wake        chan struct{} // capacity 1: there are claims to look at
	back        chan struct{} // capacity 1: Redis is back

	mu     sync.Mutex
	claims map[string]*pairClaim   // by connection; those under way too
	dirty  map[string]struct{}     // connections whose claim is to be looked at
	freed  map[string]ws.PairSeat  // by connection: released, but Redis may not know
	others map[string]pairNeighbor // by own connection: who sits across
	renew  bool                    // Redis may have lost the lease
	heard  time.Time               // when the channel last delivered; zero: not yet
}

// pairNeighbor is the claim across from one of ours, on another replica.
type pairNeighbor struct {
	replica string
	seat    ws.PairSeat
}

var _ ws.PairPlane = (*Pairs)(nil)

// NewPairs makes the plane of this replica's pairs. It does no I/O and starts
// no goroutine; Run does.
func NewPairs(cfg PairsConfig) (*Pairs, error) {
	if cfg.Backplane == nil || cfg.Grace < 0 {
		return nil, errors.New("wsredis: pairs need a Backplane, and a Grace that is not negative")
	}
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	m, err := newPairMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("wsredis: %w", err)
	}
	b := cfg.Backplane
	return &Pairs{
		client:      b.client,
		leases:      b.leases,
		incarnation: b.incarnation,
		channel:     pairChannel(b.incarnation),
		tick:        b.tick,
		grace:       int64(max(time.Second, cfg.Grace.Round(time.Second)) / time.Second),
		durable:     &b.durable,
		logger:      b.logger,
		metrics:     m,
		wake:        make(chan struct{}, 1),
		back:        make(chan struct{}, 1),
		claims:      map[string]*pairClaim{},
		dirty:       map[string]struct{}{},
		freed:       map[string]ws.PairSeat{},
		others:      map[string]pairNeighbor{},
	}, nil
}

// Run hears the hints and looks after the claims until ctx ends; it returns
// nil after its goroutines. It is called once. Claims can be released after.
func (p *Pairs) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { p.receive(ctx) })
	wg.Go(func() { p.keep(ctx) })
	wg.Wait()
	return nil
}

// Resync says that Redis is back after it was away: every claim is looked at,
// and made again where it was lost. It does not block.
func (p *Pairs) Resync() {
	notify(p.back)
	p.mu.Lock()
	p.renew = true
	for connection := range p.claims {
		p.dirty[connection] = struct{}{}
	}
	p.mu.Unlock()
	notify(p.wake)
}

// Healthy returns nil while hints are known to arrive.
func (p *Pairs) Healthy() error {
	p.mu.Lock()
	heard := p.heard
	p.mu.Unlock()
	switch {
	case heard.IsZero():
		return errors.New("subscription to pairs is not delivering yet")
	case time.Since(heard) > p.deafAfter():
		return errDeaf
	}
	return nil
}

// deafAfter is how long the own probe may be unheard.
func (p *Pairs) deafAfter() time.Duration { return p.tick * 8 / 3 }

// Claim implements ws.PairPlane.
func (p *Pairs) Claim(ctx context.Context, seat ws.PairSeat, l ws.PairListener) (ws.PairClaim, error) {
	// A claim without a lease would be taken for that of a dead replica.
	if err := p.leases.hold(ctx); err != nil {
		return nil, err
	}
	c := &pairClaim{plane: p, seat: seat, listener: l, turn: make(chan struct{}, 1)}
	// Registered first, so that no hint falls between.
	p.mu.Lock()
	p.claims[seat.Connection] = c
	p.mu.Unlock()
	state, err := p.take(ctx, seat)
	if err != nil {
		p.forget(seat.Connection)
		if !errors.Is(err, ws.ErrSideTaken) { // it may be ours
			p.free(seat)
		}
		return nil, err
	}
	p.met(seat, state)
	l.PairChanged(state.PairState)
	p.mu.Lock()
	c.live = true
	_, hinted := p.dirty[seat.Connection]
	p.mu.Unlock()
	if hinted {
		notify(p.wake)
	}
	return c, nil
}

// Look implements ws.PairPlane.
func (p *Pairs) Look(ctx context.Context, seat ws.PairSeat) error {
	side := string(seat.Side)
	values, err := p.client.HMGet(ctx, pairKey(seat.Pair), side, side+":replica", side+":session").Result()
	if err != nil {
		return wrap("look", err)
	}
	connection, held := values[0].(string)
	replica, _ := values[1].(string)
	session, _ := values[2].(string)
	if !held || seat.Session != "" && session == seat.Session {
		return nil
	}
	abandoned, err := p.abandoned(ctx, pairHolder{connection, replica})
	if err == nil && !abandoned {
		err = fmt.Errorf("%w: %s of %s", ws.ErrSideTaken, seat.Side, seat.Pair)
	}
	return err
}

// take runs the claim, and once more when the holder turns out to be dead, or
// the counterpart: a newcomer is not told that it is paired with the dead.
func (p *Pairs) take(ctx context.Context, seat ws.PairSeat) (pairState, error) {
	gone := map[string]bool{} // by connection: nobody stands behind it
	displace := ""
	for {
		reply, err := pairClaimScript.Run(ctx, p.client, []string{pairKey(seat.Pair)},
			p.claimArgs(seat, displace, nil)...).Slice()
		if err != nil {
			return pairState{}, wrap("claim", err)
		}
		state, holder, err := readClaim(reply)
		if err == nil {
			err = p.findGone(ctx, gone, holder, state.across)
		}
		ghost := state.across.connection
		switch {
		case err != nil:
			return pairState{}, err
		case holder.connection != "" && !gone[holder.connection]:
			return pairState{}, fmt.Errorf("%w: %s of %s", ws.ErrSideTaken, seat.Side, seat.Pair)
		case holder.connection != "" && displace == holder.connection:
			return pairState{}, errPairReply
		case holder.connection != "":
			displace = holder.connection
		case gone[ghost]:
			if err := p.release(ctx, ws.PairSeat{Pair: seat.Pair, Side: seat.Side.Other(), Connection: ghost}); err != nil {
				return pairState{}, err
			}
			p.metrics.reaped.Inc()
		default:
			if displace != "" {
				p.metrics.takeovers.Inc()
				p.logger.Info("took over the side of a dead replica", "pair", seat.Pair, "side", seat.Side, "conn", seat.Connection)
			}
			return state, nil
		}
	}
}

// findGone notes which of holders, if they are any, nobody stands behind. That
// takes a while for each who is not known: they are looked for together.
func (p *Pairs) findGone(ctx context.Context, gone map[string]bool, holders ...pairHolder) error {
	var all sync.WaitGroup
	found, errs := make([]bool, len(holders)), make([]error, len(holders))
	for i, h := range holders {
		if h.connection != "" && !gone[h.connection] {
			all.Go(func() { found[i], errs[i] = p.abandoned(ctx, h) })
		}
	}
	all.Wait()
	for i, h := range holders {
		gone[h.connection] = gone[h.connection] || found[i]
	}
	return errors.Join(errs...)
}

// abandoned reports whether nobody stands behind a claim any more.
func (p *Pairs) abandoned(ctx context.Context, holder pairHolder) (bool, error) {
	if holder.replica == p.incarnation {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.claims[holder.connection] == nil, nil
	}
	return p.leases.dead(ctx, holder.replica)
}

// claimArgs are those of pair_claim.lua after the key. holds is the claim that
// is looked after, nil for a newcomer's.
func (p *Pairs) claimArgs(seat ws.PairSeat, displace string, holds *pairClaim) []any {
	newcomer, last := 1, lastPost{}
	if holds != nil {
		newcomer, last = 0, p.lastPost(holds)
	}
	return []any{string(seat.Side), seat.Connection, p.durable.Load(), p.incarnation, seat.Session,
		pairLifeSeconds, newUnique(), string(seat.Mode), displace, newcomer, last.unique, last.number}
}

// forget drops all that is known of a connection.
func (p *Pairs) forget(connection string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.claims, connection)
	delete(p.dirty, connection)
	delete(p.others, connection)
}

// free frees the seat in Redis with the next tick.
func (p *Pairs) free(seat ws.PairSeat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed[seat.Connection] = seat
}
