package gateway

import (
	"net/netip"
	"sync"
	"time"
)

// limiter holds the requests of each client on one route to a rate, by the
// generic cell rate algorithm: one instant a client says all. Safe for
// concurrent use.
type limiter struct {
	// Fixed after construction.
	interval  time.Duration // between two requests at the rate
	tolerance time.Duration // how far ahead of the rate a burst may run

	mu    sync.Mutex           // a leaf
	until map[netip.Addr]int64 // when the client will have used up what it had, Unix nanoseconds
	swept int64                // when the map was last cleared of those that have
}

// clientsKept bounds the memory of a limiter: some 2 MiB. When more clients
// than that are under way, some are forgotten and may burst again.
const clientsKept = 1 << 15

func newLimiter(r Rate) *limiter {
	interval := r.Per / time.Duration(r.Requests)
	return &limiter{interval: interval, tolerance: interval * time.Duration(r.Burst), until: map[netip.Addr]int64{}}
}

// allow reports whether a client may make a request now; if not, it says how
// long that will take.
func (l *limiter) allow(client netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	at := now.UnixNano()
	l.mu.Lock()
	defer l.mu.Unlock()
	next := max(l.until[client], at) + int64(l.interval)
	if wait = time.Duration(next-at) - l.tolerance; wait > 0 {
		return wait, false
	}
	if len(l.until) >= clientsKept {
		l.makeRoomLocked(at)
	}
	l.until[client] = next
	return 0, true
}

// makeRoomLocked forgets the clients that are within the rate, which changes
// nothing for them, or else any.
func (l *limiter) makeRoomLocked(now int64) {
	if now-l.swept > int64(time.Second) {
		l.swept = now
		for client, until := range l.until {
			if until <= now {
				delete(l.until, client)
			}
		}
	}
	for client := range l.until {
		if len(l.until) < clientsKept {
			return
		}
		delete(l.until, client)
	}
}

// clientAddress is what limits count a client by: its address, or for IPv6
// the /64 that one customer has.
func clientAddress(a netip.Addr) netip.Addr {
	a = plainAddress(a)
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
