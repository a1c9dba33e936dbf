package ws

import (
	"context"
	"math/rand/v2"
	"time"
)

// farewell is how long after the time it was told to reconnect at a client
// is closed, so that one that does as told leaves by itself.
const farewell = time.Second

// Drain tells every client to reconnect, spread over Drain.Spread, closes
// those that stay with 1012, and returns when all have gone. Until then their
// operations are acknowledged as ever; new upgrades are refused with 503.
// When ctx or Drain.Timeout ends first, the rest is closed at once; Drain
// then returns the context's error after they have gone.
func (h *Hub) Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Drain.Timeout)
	defer cancel()
	h.mu.Lock()
	if !h.draining {
		h.draining = true
		if h.admitted == 0 {
			close(h.empty)
		}
	}
	h.mu.Unlock()
	deadline, _ := ctx.Deadline()
	spread := min(h.cfg.Drain.Spread, max(0, time.Until(deadline)-farewell))
	for _, c := range h.live() {
		c.sendOff(rand.N(spread + 1))
	}
	select {
	case <-h.empty:
		return nil
	case <-ctx.Done():
	}
	for _, c := range h.live() {
		c.close(closeRestart)
	}
	<-h.empty
	return ctx.Err()
}

func (h *Hub) isDraining() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.draining
}

// delay is when one of many who are closed at once should come back.
func (h *Hub) delay() time.Duration { return rand.N(h.cfg.Drain.Spread + 1) }

// sendOff tells the client to reconnect after that long, and closes the
// connection some time later if it is still there: as soon as all that waits
// for it has been sent, and soon in any case.
func (c *conn) sendOff(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil || c.bye != nil {
		return
	}
	c.out.reconnect = &after
	c.bye = time.AfterFunc(after+farewell, c.part)
	c.wakeLocked()
}

// part has the writer close the connection when it has nothing more to write.
func (c *conn) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		c.out.parting = true
		c.bye = time.AfterFunc(closeTimeout, func() { c.close(closeRestart) })
		c.wakeLocked()
	}
}
