package wsredis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-6230208e/tandem/ws"
)

var errPairReply = errors.New("pair: unexpected reply")

// pairClaim implements ws.PairClaim.
type pairClaim struct {
	// Fixed after construction.
	plane    *Pairs
	seat     ws.PairSeat
	listener ws.PairListener

	// turn is had by whoever looks at the claim in Redis, which may take the
	// side again, or releases it. It is held over a round trip, therefore no
	// mutex: waiting ends with the context. Release keeps it.
	turn chan struct{}

	// Guarded by plane.mu.
	live bool     // Claim has returned, or is about to: the keeper may call the listener
	last lastPost // the newest that Redis is known to have had
}

// lastPost is a batch that was posted. A pair that does not know it has been
// set back in time.
type lastPost struct {
	unique string
	number uint64
}

func (p *Pairs) lastPost(c *pairClaim) lastPost {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.last
}

// Post implements ws.PairClaim.
func (c *pairClaim) Post(ctx context.Context, post ws.PairPost) (receipt ws.PairReceipt, ok bool, err error) {
	reply, err := pairPostScript.Run(ctx, c.plane.client, []string{pairKey(c.seat.Pair)},
		string(c.seat.Side), c.seat.Connection, c.plane.durable.Load(), post.Unique, post.To, post.Number,
		post.Count, ws.PairWindow, encodeMessages(post.Messages)).Slice()
	if err != nil {
		return receipt, false, wrap("post", err)
	}
	r := reader{values: reply}
	if ok = r.flag(); ok {
		receipt = ws.PairReceipt{First: r.seq(), Delivered: r.seq()}
	}
	if r.failed {
		return ws.PairReceipt{}, false, fmt.Errorf("post: %w", errPairReply)
	}
	if ok {
		c.plane.mu.Lock()
		c.last = lastPost{post.Unique, post.Number}
		c.plane.mu.Unlock()
	}
	return receipt, ok, nil
}

// Take implements ws.PairClaim.
func (c *pairClaim) Take(ctx context.Context, unique string, number uint64) (next uint64, b ws.PairBatch, ok bool, err error) {
	reply, err := pairTakeScript.Run(ctx, c.plane.client, []string{pairKey(c.seat.Pair)},
		string(c.seat.Side), c.seat.Connection, c.plane.durable.Load(), unique, number, ws.PairWindow).Slice()
	if err != nil {
		return 0, b, false, wrap("take", err)
	}
	r := reader{values: reply}
	if ok = r.flag(); !ok || r.failed {
		if r.failed {
			err = fmt.Errorf("take: %w", errPairReply)
		}
		return 0, b, false, err
	}
	next = r.seq()
	if len(r.values) > 0 {
		b, err = decodeBatch(r.bytes())
	}
	if r.failed || err != nil {
		return 0, ws.PairBatch{}, false, errors.Join(fmt.Errorf("take: %w", errPairReply), err)
	}
	return next, b, true, nil
}

// Refresh implements ws.PairClaim.
func (c *pairClaim) Refresh() { c.plane.hint(c.seat.Connection) }

// Release implements ws.PairClaim.
func (c *pairClaim) Release(ctx context.Context) {
	p := c.plane
	p.forget(c.seat.Connection)
	var err error
	select {
	case c.turn <- struct{}{}:
		err = p.release(ctx, c.seat)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.free(c.seat)
		p.logger.Debug("the side of a pair is freed later", "pair", c.seat.Pair, "side", c.seat.Side, "conn", c.seat.Connection, "err", err)
	}
}

func (p *Pairs) release(ctx context.Context, seat ws.PairSeat) error {
	return wrap("release", pairReleaseScript.Run(ctx, p.client, []string{pairKey(seat.Pair)}, p.releaseArgs(seat)...).Err())
}

func (p *Pairs) releaseArgs(seat ws.PairSeat) []any {
	return []any{string(seat.Side), seat.Connection, p.durable.Load(), p.grace}
}

// pairHolder is a claim as the store tells it.
type pairHolder struct{ connection, replica string }

// pairState is a reply of pair_claim.lua.
type pairState struct {
	ws.PairState
	across pairHolder
}

// readClaim reads a reply of pair_claim.lua: the state, or who holds the side.
func readClaim(reply []any) (state pairState, taken pairHolder, err error) {
	r := reader{values: reply}
	if !r.flag() {
		taken, state.across = pairHolder{r.text(), r.text()}, pairHolder{r.text(), r.text()}
		if r.failed || taken.connection == "" {
			return state, taken, errPairReply
		}
		return state, taken, nil
	}
	state.Unique, state.Mode = r.text(), ws.PairMode(r.text())
	state.across = pairHolder{r.text(), r.text()}
	for _, n := range []*uint64{
		&state.Counterpart, &state.Sent, &state.Taken, &state.Incoming, &state.Delivered,
		&state.LostFrom, &state.LostTo,
	} {
		*n = number(&r)
	}
	if r.failed {
		return pairState{}, taken, errPairReply
	}
	return state, taken, nil
}

// number reads a field of the hash; one that is not there counts as 0.
func number(r *reader) uint64 {
	text := r.text()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	r.failed = r.failed || err != nil
	return n
}

// newUnique names a life of a pair: 128 random bits.
func newUnique() string { return strings.ToLower(rand.Text()) }
