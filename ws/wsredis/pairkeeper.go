package wsredis

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

// looksPerTrip bounds the scripts that go to Redis in one round trip.
const looksPerTrip = 500

// keep looks at claims until ctx ends: at once at those that a hint was about,
// at all of them every second tick. A side that waits costs one script in two
// ticks, and each replica that has a counterpart here one PTTL a tick.
func (p *Pairs) keep(ctx context.Context) {
	ticker := time.NewTicker(p.tick)
	defer ticker.Stop()
	others := &watch{leases: p.leases}
	for all := false; ; {
		select {
		case <-p.wake:
		case <-ticker.C:
			p.probe(ctx)
			if all = !all; all {
				p.allDirty()
			}
			p.freeAgain(ctx)
			p.reap(ctx, others)
		case <-ctx.Done():
			return
		}
		p.look(ctx)
	}
}

// probe has this replica hear itself. A failure shows in the probe not being heard.
func (p *Pairs) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.tick)
	defer cancel()
	_ = p.client.Publish(ctx, p.channel, "").Err()
}

func (p *Pairs) allDirty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for connection := range p.claims {
		p.dirty[connection] = struct{}{}
	}
}

// hint has the connection's claim looked at.
func (p *Pairs) hint(connection string) {
	p.mu.Lock()
	if p.claims[connection] != nil {
		p.dirty[connection] = struct{}{}
	}
	p.mu.Unlock()
	notify(p.wake)
}

// look reads the state of each dirty claim, taking it again where it was lost.
func (p *Pairs) look(ctx context.Context) {
	if !p.anyDirty() || !p.holdLease(ctx) {
		return // all stay dirty until the next tick
	}
	for chunk := range slices.Chunk(p.takeDirty(), looksPerTrip) {
		calls := make([]call, len(chunk))
		for i, c := range chunk {
			calls[i] = call{[]string{pairKey(c.seat.Pair)}, p.claimArgs(c.seat, "", c)}
		}
		trip, cancel := context.WithTimeout(ctx, p.tick)
		results := runAll(trip, p.client, pairClaimScript, calls)
		cancel()
		for i, c := range chunk {
			p.looked(c, results[i])
			<-c.turn
		}
	}
}

// holdLease makes sure of the lease; renewed for certain when Redis may have
// lost it, as others would take this replica for dead.
func (p *Pairs) holdLease(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, p.tick)
	defer cancel()
	p.mu.Lock()
	renew := p.renew
	p.renew = false
	p.mu.Unlock()
	var err error
	if renew {
		err = p.leases.renew(ctx)
	} else {
		err = p.leases.hold(ctx)
	}
	if err != nil && renew {
		p.mu.Lock()
		p.renew = true
		p.mu.Unlock()
	}
	return err == nil
}

func (p *Pairs) anyDirty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dirty) > 0
}

// takeDirty returns the claims to look at, with their turns. Those that Claim
// has not finished stay.
func (p *Pairs) takeDirty() []*pairClaim {
	p.mu.Lock()
	defer p.mu.Unlock()
	var claims []*pairClaim
	for connection := range p.dirty {
		c := p.claims[connection]
		if c != nil && !c.live {
			continue
		}
		delete(p.dirty, connection)
		if c == nil {
			continue
		}
		select {
		case c.turn <- struct{}{}:
			claims = append(claims, c)
		default: // it is being released
		}
	}
	return claims
}

// looked tells the listener what was found.
func (p *Pairs) looked(c *pairClaim, result *redis.Cmd) {
	reply, err := result.Slice()
	if !p.isHeld(c) {
		// It is released after this. A script that was not answered may run
		// even later, and take the side again.
		if err != nil {
			p.free(c.seat)
		}
		return
	}
	if err != nil {
		p.logger.Debug("look at pair", "pair", c.seat.Pair, "conn", c.seat.Connection, "err", err)
		p.again(c)
		return
	}
	state, holder, err := readClaim(reply)
	if err != nil {
		p.logger.Error("look at pair", "pair", c.seat.Pair, "conn", c.seat.Connection, "err", err)
		return
	}
	if holder.connection != "" {
		p.forget(c.seat.Connection)
		c.listener.PairLost()
		return
	}
	p.met(c.seat, state)
	c.listener.PairChanged(state.PairState)
}

// again has the claim looked at with the next tick, if it is still held.
func (p *Pairs) again(c *pairClaim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claims[c.seat.Connection] == c {
		p.dirty[c.seat.Connection] = struct{}{}
	}
}

func (p *Pairs) isHeld(c *pairClaim) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.claims[c.seat.Connection] == c
}

// met remembers who sits across on another replica, to notice its death.
func (p *Pairs) met(seat ws.PairSeat, state pairState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claims[seat.Connection] == nil || state.across.connection == "" || state.across.replica == p.incarnation {
		delete(p.others, seat.Connection)
		return
	}
	p.others[seat.Connection] = pairNeighbor{state.across.replica, ws.PairSeat{
		Pair: seat.Pair, Side: seat.Side.Other(), Connection: state.across.connection,
	}}
}

// freeAgain frees seats that could not be freed when they were released.
func (p *Pairs) freeAgain(ctx context.Context) {
	p.mu.Lock()
	seats := slices.Collect(maps.Values(p.freed))
	p.mu.Unlock()
	p.releaseAll(ctx, seats, func(seat ws.PairSeat) {
		p.mu.Lock()
		delete(p.freed, seat.Connection)
		p.mu.Unlock()
	})
}

// reap frees the seats of counterparts whose replica has died.
func (p *Pairs) reap(ctx context.Context, others *watch) {
	ctx, cancel := context.WithTimeout(ctx, p.tick)
	defer cancel()
	p.mu.Lock()
	where := map[string][]ws.PairSeat{}
	for _, n := range p.others {
		where[n.replica] = append(where[n.replica], n.seat)
	}
	p.mu.Unlock()
	dead, _, err := others.look(ctx, slices.Collect(maps.Keys(where)))
	if err != nil {
		return
	}
	for replica := range dead {
		p.logger.Info("freeing the sides of a dead replica", "replica", replica, "sides", len(where[replica]))
		// Our own claims are hinted by the script.
		p.releaseAll(ctx, where[replica], func(ws.PairSeat) { p.metrics.reaped.Inc() })
	}
}

func (p *Pairs) releaseAll(ctx context.Context, seats []ws.PairSeat, done func(ws.PairSeat)) {
	for chunk := range slices.Chunk(seats, looksPerTrip) {
		calls := make([]call, len(chunk))
		for i, seat := range chunk {
			calls[i] = call{[]string{pairKey(seat.Pair)}, p.releaseArgs(seat)}
		}
		trip, cancel := context.WithTimeout(ctx, p.tick)
		for i, result := range runAll(trip, p.client, pairReleaseScript, calls) {
			if result.Err() == nil {
				done(chunk[i])
			}
		}
		cancel()
	}
}

// hinted takes what came over the channel.
func (p *Pairs) hinted(payload string) {
	connection, posted := strings.CutSuffix(payload, "+")
	p.mu.Lock()
	p.heard = time.Now()
	c := p.claims[connection]
	live := c != nil && c.live
	p.mu.Unlock()
	switch {
	case c == nil: // the probe, or somebody who has left
	case posted && live:
		c.listener.PairPosted()
	default:
		p.hint(connection)
	}
}
