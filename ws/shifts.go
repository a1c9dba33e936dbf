package ws

import (
	"runtime"
	"sync"
	"time"
)

// shifts writes broadcasts for all connections by turns, with as many
// goroutines as there are processors. A goroutine for each of ten thousand
// connections that have something to write would make everything else wait
// until ten thousand have run: reading what clients send, and what Redis says.
// Here the connections wait instead, and what comes for them meanwhile goes out
// with the same write.
//
// Whoever takes a turn never waits for its client: what the socket does not
// take at once is left to a goroutine of the connection's own. The queue is
// bounded by the number of connections: each is in it once.
type shifts struct {
	limit int // of goroutines; fixed

	working sync.WaitGroup

	mu    sync.Mutex // a leaf
	queue []*conn    // in the order they came, from next on
	next  int
	busy  int // goroutines
}

func newShifts() *shifts { return &shifts{limit: runtime.GOMAXPROCS(0)} }

// add has each of conns, all of which are marked as writing, take a turn.
func (s *shifts) add(conns ...*conn) {
	if len(conns) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, conns...)
	for s.busy < min(s.limit, len(s.queue)-s.next) {
		s.busy++
		s.working.Go(s.work)
	}
}

func (s *shifts) work() {
	for c := s.take(nil); c != nil; {
		if c.turn() {
			c = s.take(c)
		} else {
			c = s.take(nil)
		}
	}
}

// take returns whose turn is next, nil when that is nobody's: then the caller
// ends. again is the connection that had its turn and has more to write.
func (s *shifts) take(again *conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again != nil {
		s.queue = append(s.queue, again)
	}
	if s.next == len(s.queue) {
		s.queue, s.next = nil, 0
		s.busy--
		return nil
	}
	c := s.queue[s.next]
	s.queue[s.next] = nil
	if s.next++; s.next == len(s.queue) {
		s.queue, s.next = s.queue[:0], 0
	} else if s.next > 1024 && s.next > len(s.queue)/2 {
		left := copy(s.queue, s.queue[s.next:])
		clear(s.queue[left:])
		s.queue, s.next = s.queue[:left], 0
	}
	return c
}

// turnWrites is how many writes one turn has at most.
const turnWrites = 4

// turn writes frames without waiting, and reports whether it is to be
// continued. Anything else there is to write is left to a writer of the
// connection's own.
func (c *conn) turn() (again bool) {
	for range turnWrites {
		out, deadline, ok := c.next()
		if !ok {
			return false
		}
		if out.frames.frames == 0 {
			c.putLater(out, deadline)
			return false
		}
		if !c.wire.whole.TryLock() { // somebody waits for the client
			c.putLater(out, deadline)
			return false
		}
		n, rest, err := c.wire.tryFrames(&out.frames)
		c.bytesOut.Add(int64(n))
		if len(rest) > 0 {
			c.putRestLater(rest, deadline)
			return false
		}
		c.wire.whole.Unlock()
		if err != nil {
			c.written(outgoing{}, err)
		}
	}
	return true
}

// putLater has a writer of the connection's own put out; finish waits for it.
func (c *conn) putLater(out outgoing, deadline time.Time) {
	c.hub.crew.do(func(c *conn) {
		c.written(out, c.put(out, deadline))
		c.write()
	}, c)
}

// putRestLater is the same for what tryFrames has left, with c.wire.whole.
func (c *conn) putRestLater(rest []byte, deadline time.Time) {
	c.hub.crew.do(func(c *conn) {
		err := c.putRest(rest, deadline)
		c.wire.whole.Unlock()
		c.written(outgoing{}, err)
		c.write()
	}, c)
}
