package ws

import (
	"context"
	"errors"
	"slices"
)

// pairLedger is where a side stands: what its client was told of the pair, and
// how far the batches of both directions have got. Guarded by pairConn.mu.
type pairLedger struct {
	unique      string // life of the pair that the numbers below belong to; empty: none yet
	counterpart uint64 // arrival that the client was told of, 0: it waits

	number    uint64      // batches that this side has posted
	delivered uint64      // of them, those known to be taken
	underway  []pairBatch // not known to be taken, at most PairWindow; relay only
	unsure    int         // messages of batch number+1, which may have been posted or not; 0: none
	refused   bool        // ... not, in the life of the pair that is known

	taken uint64 // batches taken; all have reached the client when pairConn.out is empty
}

// pairBatch is a batch that may still be lost.
type pairBatch struct {
	number uint64
	count  int
	ids    []string
}

// fits reports whether the client knows as much as s says.
func (l *pairLedger) fits(s PairState) bool {
	return l.unique == s.Unique && l.counterpart == s.Counterpart
}

// adopt takes over what s says and returns the messages that were lost since
// the last time.
func (l *pairLedger) adopt(s PairState) (count int, ids []string) {
	for _, b := range l.underway {
		// In another life of the pair nothing is known of them.
		if l.unique != s.Unique || b.number >= s.LostFrom && b.number <= s.LostTo {
			count += b.count
			ids = append(ids, b.ids...)
		}
	}
	if l.unique == s.Unique {
		l.delivered, l.taken = max(l.delivered, s.Delivered), max(l.taken, s.Taken)
	} else {
		l.number, l.delivered, l.taken = s.Sent, s.Delivered, s.Taken
	}
	l.unique, l.counterpart, l.underway = s.Unique, s.Counterpart, nil
	return count, ids
}

// PairChanged implements PairListener.
func (c *pairConn) PairChanged(s PairState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.stale = s, false
	if l := &c.ledger; l.fits(s) {
		l.delivered = max(l.delivered, s.Delivered)
		if l.unsure == 0 {
			l.number = max(l.number, s.Sent)
		}
	}
	c.changed.Broadcast() // a client that has gone may have nobody to wait for now
	c.wakeWorkerLocked()
}

// PairPosted implements PairListener.
func (c *pairConn) PairPosted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posted = true
	c.wakeWorkerLocked()
}

// PairLost implements PairListener.
func (c *pairConn) PairLost() { c.close(closeTaken) }

// wakeWorkerLocked starts the worker if there is work.
func (c *pairConn) wakeWorkerLocked() {
	if !c.working && c.stepLocked() != nil {
		c.working = true
		go c.work() // finish waits for it
	}
}

// work is the worker: it does what there is to do and ends.
func (c *pairConn) work() {
	for {
		c.mu.Lock()
		step := c.stepLocked()
		if step == nil {
			c.working = false
			c.changed.Broadcast()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		step()
	}
}

// stepLocked picks what to do next, nil when there is nothing.
//
// What goes to the client waits until all before it is written. News of the
// counterpart comes after the messages that it left behind.
func (c *pairConn) stepLocked() func() {
	s, l := &c.state, &c.ledger
	if !c.started || c.stale {
		return nil
	}
	same := l.unique == s.Unique
	idle := c.closing == nil && len(c.out) == 0
	switch {
	case l.unsure > 0 && !l.refused && (c.closing == nil || c.lingersLocked()):
		return c.post // before anything that depends on how that ended
	case idle && same && (c.posted || s.Incoming > l.taken):
		return c.take
	case idle && !l.fits(*s):
		return c.tell
	case c.mayPostLocked() && (idle || s.Mode == ModeRelay && c.closing == nil || c.lingersLocked()):
		return c.post
	}
	return nil
}

// mayPostLocked reports whether a message waits, for a counterpart that is
// there, and there is room for it.
func (c *pairConn) mayPostLocked() bool {
	l := &c.ledger
	return len(c.early) > 0 && l.fits(c.state) && l.counterpart != 0 && l.number < l.delivered+PairWindow
}

// lingersLocked reports whether a client that has gone left messages which its
// counterpart may still get.
func (c *pairConn) lingersLocked() bool {
	return c.closing != nil && c.closing.code == closeAbnormal && !c.gaveUp &&
		len(c.early) > 0 && c.state.Mode == ModeRelay &&
		c.ledger.counterpart != 0 && c.ledger.fits(c.state)
}

// tell brings the client up to date with the pair.
func (c *pairConn) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, l := c.state, &c.ledger
	if l.refused && l.unique != s.Unique && s.Mode == ModeRelay {
		// It is not known what became of these when the pair was lost.
		l.underway = append(l.underway, batchOf(l.number+1, c.early[:l.unsure]))
		c.dropEarlyLocked(l.unsure)
	}
	l.unsure, l.refused = 0, false
	before := l.counterpart
	count, ids := l.adopt(s)
	c.pairs.metrics.undelivered.Add(float64(count))
	if c.json && count > 0 {
		c.hub.metrics.errors.WithLabelValues(string(CodeUnavailable)).Inc()
		c.out = append(c.out, pairOut{frame: encode(undelivered(count, ids))})
	}
	if c.json && before != 0 {
		c.out = append(c.out, pairOut{frame: encode(plainFrame{Type: "counterpart_left"})})
	}
	if c.json && s.Counterpart != 0 {
		c.out = append(c.out, pairOut{frame: encode(pairedFrame{"paired", s.Unique, c.side})})
	}
	if was, is := condition(before != 0), condition(s.Counterpart != 0); was != is {
		c.pairs.metrics.sides[was].Add(-1)
		c.pairs.metrics.sides[is].Add(1)
	}
	c.wakeWriterLocked()
}

// batchOf describes the messages of a batch.
func batchOf(number uint64, messages []earlyMessage) pairBatch {
	b := pairBatch{number: number, count: len(messages)}
	for _, m := range messages {
		if m.id != "" {
			b.ids = append(b.ids, m.id)
		}
	}
	return b
}

// dropEarlyLocked forgets the n oldest messages that waited, and makes room.
func (c *pairConn) dropEarlyLocked(n int) {
	for _, m := range c.early[:n] {
		c.bytes -= m.cost()
	}
	c.early = slices.Delete(c.early, 0, n)
	if len(c.early) == 0 {
		c.early = nil // one that waits holds no memory
	}
	c.changed.Broadcast()
}

// post posts the oldest messages: as many as fit into one batch, or those of
// the last attempt again.
func (c *pairConn) post() {
	p, echo := c.nextPost()
	ctx, cancel := c.call()
	receipt, ok, err := c.claim.Post(ctx, p)
	cancel()
	if c.failed("post", err) {
		return
	}
	if !ok {
		// In that life of the pair it has not been posted; whether this is
		// still that life, the state will tell.
		c.ask(func() { c.ledger.refused = true })
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.ledger
	c.pairs.metrics.messages.Add(float64(p.Count))
	l.number, l.delivered, l.unsure, l.refused = p.Number, max(l.delivered, receipt.Delivered), 0, false
	if echo {
		for i, m := range c.early[:p.Count] {
			c.out = append(c.out, pairOut{message: m.PairMessage, index: receipt.First + uint64(i), from: c.side, unique: p.Unique})
		}
		c.wakeWriterLocked()
	} else {
		l.underway = append(l.underway, batchOf(p.Number, c.early[:p.Count]))
		l.underway = slices.DeleteFunc(l.underway, func(b pairBatch) bool { return b.number <= l.delivered })
	}
	c.dropEarlyLocked(p.Count)
}

// nextPost fixes what is posted; until it is known to have been posted or not,
// the same is posted again.
func (c *pairConn) nextPost() (p PairPost, echo bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.ledger
	if l.unsure == 0 || l.refused {
		l.unsure, l.refused = 1, false
		for size := len(c.early[0].Data); l.unsure < len(c.early); l.unsure++ {
			if size += c.early[l.unsure].cost(); size > pairBatchBytes {
				break
			}
		}
	}
	p = PairPost{Unique: l.unique, To: l.counterpart, Number: l.number + 1, Count: l.unsure}
	if echo = c.state.Mode == ModeEcho; !echo {
		for _, m := range c.early[:l.unsure] {
			p.Messages = append(p.Messages, m.PairMessage)
		}
	}
	return p, echo
}

// take confirms what has reached the client and takes the next batch.
func (c *pairConn) take() {
	c.mu.Lock()
	c.posted = false
	unique, taken := c.ledger.unique, c.ledger.taken
	c.mu.Unlock()
	ctx, cancel := c.call()
	next, batch, ok, err := c.claim.Take(ctx, unique, taken)
	cancel()
	if c.failed("take", err) {
		return
	}
	if !ok {
		c.ask(func() {})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger.taken = max(c.ledger.taken, next)
	for i, m := range batch.Messages {
		c.out = append(c.out, pairOut{message: m, index: batch.First + uint64(i), from: c.side.Other()})
	}
	if len(batch.Messages) > 0 {
		c.posted = true // to confirm it, and there may be more
		c.wakeWriterLocked()
	}
}

// ask notes something, and has the plane tell the state; until it does the
// plane is not asked for anything else.
func (c *pairConn) ask(note func()) {
	c.mu.Lock()
	note()
	c.stale = true
	c.mu.Unlock()
	c.claim.Refresh()
}

// failed deals with a call of the plane that ended with err. While the store
// is away nothing is lost: the call is repeated when the state can be read.
func (c *pairConn) failed(what string, err error) bool {
	if err == nil {
		return false
	}
	if !errors.Is(err, ErrUnavailable) {
		c.log.Error("a pair's call failed", "call", what, "err", err)
		c.close(closeGoingAway)
	}
	c.ask(func() { c.posted = true }) // it may have been a take
	return true
}

// call returns the context for one call of the plane. It does not end with
// the connection: what a client sent before it went is posted still.
func (c *pairConn) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.hub.ctx, callTimeout)
}
