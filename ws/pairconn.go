package ws

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Bounds of what one side of a pair costs, besides its batches under way.
const (
	maxEarly     = 64 << 10         // bytes of messages that wait to be posted; full: the reader waits and TCP holds the client back
	messageCost  = 32               // what a message counts for besides its bytes, so that empty ones are bounded too
	sendBuffer   = 256 << 10        // bytes of the socket's send buffer, where it can be set
	lingerFor    = 10 * time.Second // for what a client sent before it closed to find room
	retryCrowded = 5 * time.Second
)

var closeTaken = closing{CloseSideTaken, "side taken"}

// pairConn is one client's connection to one side of a pair.
//
// The reader is its only goroutine while it waits. A worker talks to the plane
// and a writer to the client, each only while there is something to do, so
// that neither a slow client nor a slow store holds up the other direction.
// What they have to do follows from the state and the queues below; whoever
// changes one of those wakes them.
type pairConn struct {
	// Fixed after construction.
	pairs  *pairs
	hub    *Hub
	id     string
	pair   string
	side   Side
	cookie string // session ID of the upgrade's cookie, "" without; shown nowhere
	origin endpoint
	ctx    context.Context // the connection's life: until it is decided to close it
	cancel context.CancelFunc

	// Fixed when the connection starts.
	ws      *websocket.Conn
	json    bool    // tandem.pair.v1
	binding Binding // nil: nobody's
	claim   PairClaim
	log     *slog.Logger

	// Owned by the reader.
	frames bucket
	shared *allowance // its user's, fixed before it is read; nil where there is none
	strain strain
	bad    int // bad frames since the last good one

	bytesIn, bytesOut atomic.Int64

	mu      sync.Mutex // guards the following; nothing is locked while it is held
	changed *sync.Cond // something left a queue, worker or writer ended, or closing was decided
	who     identity   // written while the session is bound, by its goroutine only
	place   Place      // zero: none taken
	started bool
	closing *closing // nil while nobody decided to close
	closeBy time.Time
	beat    *time.Timer
	bye     *time.Timer // drain

	// The worker's.
	working bool
	gaveUp  bool      // nothing more is posted for a client that has gone
	state   PairState // newest
	stale   bool      // the plane is not asked before PairChanged
	posted  bool      // there may be a batch to take
	ledger  pairLedger
	early   []earlyMessage // wait to be posted, oldest first
	bytes   int            // of early

	// The writer's.
	writing   bool
	replies   [][]byte  // error frames, at most maxPending; full: the reader waits
	out       []pairOut // at most one batch: the worker adds only when it is empty
	inHand    bool      // the first of out is being written
	ping      bool
	reconnect []byte // frame that is to be sent before the replica stops, nil: none
	redisUp   bool   // what the client was told last
	closeSent bool   // nothing more is written
}

// earlyMessage is a message that has not been posted.
type earlyMessage struct {
	PairMessage
	id string // given by the client, may be empty
}

func (m earlyMessage) cost() int { return len(m.Data) + messageCost }

func newPairConn(p *pairs, a admission, side Side) *pairConn {
	c := &pairConn{
		pairs: p, hub: p.hub, id: newConnectionID(), pair: a.document, side: side,
		cookie: a.cookie, origin: a.origin,
		frames: newBucket(p.hub.cfg.Limits.FramesPerSecond), redisUp: true,
	}
	c.log = p.hub.log.With("conn", c.id, "pair", c.pair, "side", string(side))
	c.ctx, c.cancel = context.WithCancel(p.hub.ctx)
	c.changed = sync.NewCond(&c.mu)
	return c
}

// start begins the life of the socket. What was heard of the session and the
// pair before takes effect now.
func (c *pairConn) start(ws *websocket.Conn) {
	ping := ws.PingHandler()
	ws.SetPingHandler(func(data string) error {
		// A flood of pings is answered as often as frames are allowed.
		if _, ok := c.frames.take(time.Now()); !ok {
			return nil
		}
		c.extendDeadline()
		return ping(data)
	})
	ws.SetPongHandler(func(string) error { c.extendDeadline(); return nil })
	boundSocket(ws.NetConn(), c.hub.cfg.Heartbeat)
	c.log = c.log.With("session", c.who.handle, "user", c.who.user)
	c.pairs.metrics.sides[sideWaiting].Add(1)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.ws, c.json, c.started = ws, ws.Subprotocol() == PairProtocol, true
	if c.closing == nil {
		c.beat = time.AfterFunc(c.hub.cfg.Heartbeat, c.pulse)
	} else {
		c.closeBy = time.Now().Add(closeTimeout)
		_ = ws.NetConn().SetDeadline(c.closeBy)
	}
	c.wakeWorkerLocked()
	c.wakeWriterLocked()
}

// boundSocket keeps the system from taking megabytes for a client that reads
// slowly, and from waiting for a peer that has vanished: while early messages
// fill all there is nothing is read, pongs neither, and only the system knows
// that pings are not acknowledged. It is more patient than a reader of pongs,
// for which a client that stops reading is gone too. A connection that hides
// its socket keeps the defaults.
func boundSocket(conn net.Conn, heartbeat time.Duration) {
	if tls, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = tls.NetConn()
	}
	// Not only a *net.TCPConn: the edge counts bytes around it.
	if tcp, ok := conn.(interface {
		syscall.Conn
		SetWriteBuffer(int) error
	}); ok {
		_ = tcp.SetWriteBuffer(sendBuffer)
		setUserTimeout(tcp, 5*heartbeat)
	}
}

// pulse has the writer send a ping, and itself called again.
func (c *pairConn) pulse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		c.ping = true
		c.wakeWriterLocked()
		c.beat.Reset(c.hub.cfg.Heartbeat)
	}
}

// close decides to close the connection. The first decision counts. It does
// not block and may be called from anywhere, before the start too.
func (c *pairConn) close(why closing) {
	c.mu.Lock()
	if c.closing != nil {
		if why.code != closeAbnormal { // the server does not wait for a client that has gone
			c.giveUpLocked()
		}
		c.mu.Unlock()
		return
	}
	c.closing = &why
	c.closeBy = time.Now().Add(closeTimeout)
	for _, t := range []*time.Timer{c.beat, c.bye} {
		if t != nil {
			t.Stop()
		}
	}
	if c.started {
		// A write that hangs, and the reader, end with the closing. Setting a
		// deadline is no I/O.
		_ = c.ws.NetConn().SetDeadline(c.closeBy)
	}
	c.changed.Broadcast()
	c.wakeWriterLocked()
	c.mu.Unlock()
	c.cancel()
}

// giveUpLocked ends the wait for room for messages of a client that has gone.
func (c *pairConn) giveUpLocked() {
	c.gaveUp = true
	c.changed.Broadcast()
}

// finish cleans up after the reader: the connection leaves its pair, its
// session and the hub.
func (c *pairConn) finish() {
	c.close(closeLost) // counts only when nothing was decided before
	_ = c.ws.NetConn().SetDeadline(time.Now())
	patience := time.AfterFunc(lingerFor, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.giveUpLocked()
	})
	c.mu.Lock()
	for c.working || c.lingersLocked() {
		c.changed.Wait()
	}
	c.mu.Unlock()
	patience.Stop()
	c.letGo()
	_ = c.ws.Close() // ends a write that is under way
	c.mu.Lock()
	for c.writing {
		c.changed.Wait()
	}
	c.closeSent = true
	why, paired := *c.closing, c.ledger.counterpart != 0
	c.mu.Unlock()
	c.hub.unregister(c, c.releasePlace())
	c.pairs.metrics.sides[condition(paired)].Add(-1)
	c.hub.metrics.closed(why)
	c.log.Info("socket closed", "code", int(why.code), "reason", why.reason,
		"bytes_in", c.bytesIn.Load(), "bytes_out", c.bytesOut.Load())
}

// condition is the index of a state in pairMetrics.sides.
func condition(paired bool) int {
	if paired {
		return sidePaired
	}
	return sideWaiting
}

func (c *pairConn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing != nil
}

// A side of a pair listens to its session.
var _ sessionstore.Listener = (*pairConn)(nil)

// SessionChanged closes the connection when the session speaks for somebody
// else now.
func (c *pairConn) SessionChanged(s *sessionstore.Snapshot) {
	c.mu.Lock()
	stranger := c.who.user != "" && s.UserID() != c.who.user
	if to := (Place{c.place.Session, s.UserID()}); c.place != (Place{}) && !stranger && to != c.place {
		c.hub.cfg.Places.Move(c.place, to) // somebody logged in; it does not block
		c.place = to
	}
	c.mu.Unlock()
	if stranger {
		c.close(closeEnded(sessionstore.ReasonLogout))
	}
}

// SessionEnded closes the connection and says why the session ended.
func (c *pairConn) SessionEnded(r sessionstore.Reason) { c.close(closeEnded(r)) }

// SessionUnverified closes the connection: its session may have ended.
func (c *pairConn) SessionUnverified() { c.close(closeUnverified) }

// SessionRotated is nothing that the protocol of pairs has a frame for.
func (c *pairConn) SessionRotated() {}

// SessionExpiring is nothing that the protocol of pairs has a frame for.
func (c *pairConn) SessionExpiring(time.Duration) {}

// The hub knows it as a socket among others.
var _ socket = (*pairConn)(nil)

func (c *pairConn) key() (id, cookie string) { return c.id, c.cookie }

// wake has the client told of what changed in the hub.
func (c *pairConn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeWriterLocked()
}

// sendOff closes the connection for a restart after that long. A client of the
// JSON protocol is told when, and has some time to leave by itself.
func (c *pairConn) sendOff(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil || c.bye != nil {
		return
	}
	if c.json {
		c.reconnect = encode(reconnectFrame{"reconnect", after.Milliseconds()})
		c.wakeWriterLocked()
		after += farewell
	}
	c.bye = time.AfterFunc(after, func() { c.close(closeRestart) })
}

// info describes the connection for the admin listing.
func (c *pairConn) info() ConnectionInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := "waiting"
	switch {
	case c.closing != nil:
		state = "closing"
	case c.ledger.counterpart != 0:
		state = "paired"
	}
	return ConnectionInfo{
		ID: c.id, Kind: "pair", State: state,
		Listener: c.origin.address(), Route: c.origin.route, Client: c.origin.client,
		User: c.who.user, Session: c.who.handle, Document: c.pair,
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), Since: c.origin.since,
	}
}
