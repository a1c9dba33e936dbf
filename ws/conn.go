package ws

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Times of a connection's life that nobody configures.
const (
	writeTimeout = 10 * time.Second // for one frame of a pair, or the answer to an upgrade, to leave
	closeTimeout = 3 * time.Second  // from the decision to close until the TCP connection is closed at the latest
	callTimeout  = 5 * time.Second  // for one call of the backplane or the session store
)

// state is where a connection is in its life. Broadcasts reach only joined
// ones.
type state int32

const (
	stateConnecting state = iota
	stateAuthenticated
	stateJoined
	stateClosing
	stateCount
)

func (s state) String() string {
	return [...]string{"connecting", "authenticated", "joined", "closing"}[s]
}

// conn is one client's connection to one document.
//
// Three goroutines share it, the last two only while they have something to
// do: the reader decodes frames and hands them over; the worker handles them
// one at a time, in order, and may wait for Redis; the writer is the only
// one that writes, but for the library's answers to a close and to what breaks
// the protocol. Whoever wants to close decides so with close; the writer
// says why, the reader cleans up.
type conn struct {
	// Fixed after construction.
	hub      *Hub
	ws       *websocket.Conn
	wire     *wire       // below ws
	in       *lentReader // that ws reads from; its buffer is the reader's
	id       string
	document string
	cookie   string // session ID of the upgrade's cookie, "" without; shown nowhere
	color    string // asked for in the query, "" when not
	origin   endpoint

	// Owned by the reader.
	frames, operations bucket
	strain             strain

	// Owned by the worker; after it has ended, by the reader.
	binding Binding
	place   Place // zero: none taken
	doc     *document
	bad     int // bad frames since the last good one

	mayRead, mayWrite permit // what the Authorizer has allowed

	// Owned by the writer.
	writeBy moment // deadline of writes, as it was set last

	bytesIn, bytesOut atomic.Int64
	shared            atomic.Pointer[allowance] // its user's; nil before it has authenticated, and where there is none

	mu      sync.Mutex // guards the following; nothing is locked while it is held
	changed sync.Cond  // a reply left, a request left, worker or writer ended, or closing was decided
	state   state
	who     identity
	pending []inbound // at most maxPending; full: the reader waits
	working bool
	doubt   bool // whether it may stay is to be asked again
	out     outbox
	over    bool     // its session has ended
	closing *closing // nil while nobody decided to close
	closeBy moment
	calling context.CancelFunc // ends the worker's call under way, nil without one
	auth    *time.Timer        // nil once the connection has authenticated
	beat    *time.Timer
	bye     *time.Timer // drain: the close after reconnect
	again   *time.Timer // the end of the permit to read

	missedBy *document // that waits for its return, nil: none does
}

// endpoint says where a connection came in, for the admin listing.
type endpoint struct {
	listener      net.Addr
	route, client string
	since         time.Time
}

// moment is a time as it is kept with every connection: since the process
// began, by the clock that nobody sets.
type moment time.Duration

var began = time.Now()

func momentOf(t time.Time) moment { return moment(t.Sub(began)) }
func (m moment) time() time.Time  { return began.Add(time.Duration(m)) }

// identity is who a connection speaks for, once it has authenticated.
type identity struct {
	handle, user, name, color string
}

// inbound is one frame on its way to the worker; err says that it is bad.
type inbound struct {
	request
	err error
}

func newConn(h *Hub, ws *websocket.Conn, from *hijackable, a admission) *conn {
	c := &conn{
		hub: h, ws: ws, wire: from.wire, in: from.in, id: newConnectionID(),
		document: a.document, cookie: a.cookie, color: a.color, origin: a.origin, place: a.place,
		frames:     newBucket(h.cfg.Limits.FramesPerSecond),
		operations: newBucket(h.cfg.Limits.OperationsPerSecond),
	}
	c.changed.L = &c.mu
	c.out.redisUp = true
	h.metrics.enter(stateConnecting)
	return c
}

// start begins the connection's life with hello and its timers.
func (c *conn) start() {
	c.ws.SetPingHandler(func(data string) error {
		// A flood of pings is answered as often as frames are allowed.
		if _, ok := c.frames.take(time.Now()); ok {
			c.extendDeadline()
			c.answerPing(data)
		}
		return nil
	})
	c.ws.SetPongHandler(func(string) error { c.extendDeadline(); return nil })
	c.ws.SetCloseHandler(func(code int, _ string) error {
		// Before anything is written that fails because the peer has gone.
		c.close(lostBy(&websocket.CloseError{Code: code}))
		c.wire.closing() // waits no longer than the deadline that close has set
		_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(closeTimeout))
		return nil
	})

	cfg := &c.hub.cfg
	c.extendDeadline()
	c.mu.Lock()
	c.auth = time.AfterFunc(cfg.Documents.AuthTimeout, c.authTimedOut)
	c.beat = time.AfterFunc(cfg.Heartbeat, c.ping)
	c.mu.Unlock()
	c.reply(helloFrame{
		Type: "hello", ConnectionID: c.id, Replica: cfg.Replica,
		HeartbeatMS: cfg.Heartbeat.Milliseconds(), MaxMessageBytes: cfg.Documents.MaxMessage,
	})
}

// authTimedOut closes a connection that has not authenticated. While Redis is
// away, or an answer is owed to the client, that is not the client's fault: it
// is told to come back.
func (c *conn) authTimedOut() {
	why := closeAuthTimeout
	c.mu.Lock()
	owed, late := c.working, c.state != stateConnecting
	c.mu.Unlock()
	if late { // it has authenticated at the last moment
		return
	}
	if owed || !c.hub.available.Load() {
		why = closeUnverified
	}
	c.close(why)
}

// ping has the writer send a ping, and itself called again.
func (c *conn) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		c.out.ping = true
		c.wakeLocked()
		c.beat.Reset(c.hub.cfg.Heartbeat)
	}
}

// answerPing has the writer answer a ping; of several that wait the newest is
// answered (RFC 6455, section 5.5.3). The reader must not: the pong would wait
// behind a write that hangs, and share its deadline.
func (c *conn) answerPing(data string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		c.out.pong = &data
		c.wakeLocked()
	}
}

// extendDeadline gives the peer its time to show life. Once the close frame is
// out the deadline is the closing's.
func (c *conn) extendDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		_ = c.ws.SetReadDeadline(time.Now().Add(c.hub.cfg.patience()))
	}
}

// close decides to close the connection. The first decision counts. It does
// not block and may be called from anywhere.
func (c *conn) close(why closing) {
	c.mu.Lock()
	if c.closing != nil {
		c.mu.Unlock()
		return
	}
	c.closing = &why
	closeBy := time.Now().Add(closeTimeout)
	c.closeBy = momentOf(closeBy)
	switch {
	case !why.code.many():
		c.out.reconnect = nil
	case c.bye == nil: // else sendOff has told
		after := c.hub.delay()
		c.out.reconnect = &after
	}
	c.setStateLocked(stateClosing)
	for _, t := range []*time.Timer{c.auth, c.beat, c.bye, c.again} {
		if t != nil {
			t.Stop()
		}
	}
	// A write that hangs, and the reader, end with the closing. Setting a
	// deadline is no I/O.
	_ = c.ws.NetConn().SetDeadline(closeBy)
	c.changed.Broadcast()
	c.wakeLocked()
	calling := c.calling
	c.mu.Unlock()
	if calling != nil {
		calling()
	}
}

// finish cleans up after the reader: the connection leaves its document, its
// session and the hub.
func (c *conn) finish() {
	c.close(closeLost) // counts only when nothing was decided before
	c.mu.Lock()
	for c.working {
		c.changed.Wait()
	}
	why := *c.closing
	who := c.who
	c.mu.Unlock()

	reason := leftClosed
	if why.code == CloseUnauthorized {
		reason = leftSession
	}
	if c.doc != nil && c.returns(why) {
		c.excuseFromDocument()
	} else {
		c.leaveDocument(reason)
	}
	if c.binding != nil {
		c.binding.Close()
	}
	_ = c.ws.Close() // ends a write that is under way
	c.mu.Lock()
	for c.out.writing {
		c.changed.Wait()
	}
	c.out.stopped = true
	c.mu.Unlock()
	c.hub.cfg.Places.Release(c.place)
	c.hub.allowances.release(who.user, c.shared.Load())
	c.hub.unregister(c, who.handle)
	c.hub.metrics.leave(stateClosing)
	c.hub.metrics.closed(why)
	c.logger().Info("socket closed", "code", int(why.code), "reason", why.reason,
		"bytes_in", c.bytesIn.Load(), "bytes_out", c.bytesOut.Load())
}

// key implements socket.
func (c *conn) key() (id, cookie string) { return c.id, c.cookie }

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing != nil
}

// isOpen reports whether the connection is authenticated and not closing.
func (c *conn) isOpen() bool {
	s := c.currentState()
	return s == stateAuthenticated || s == stateJoined
}

func (c *conn) currentState() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// setStateLocked keeps the gauges true. Closing is for good.
func (c *conn) setStateLocked(s state) {
	if c.state == stateClosing {
		return
	}
	c.hub.metrics.leave(c.state)
	c.hub.metrics.enter(s)
	c.state = s
}

// call returns the context for one call of the worker that ends with the
// connection. It is made for the call: most connections make none.
func (c *conn) call() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(c.hub.ctx, callTimeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil {
		cancel()
	}
	c.calling = cancel
	return ctx, func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calling = nil
	}
}

// logger is made when there is something to log, for the same reason.
func (c *conn) logger() *slog.Logger {
	c.mu.Lock()
	who := c.who
	c.mu.Unlock()
	log := c.hub.log.With("conn", c.id, "document", c.document)
	if who.handle != "" {
		log = log.With("session", who.handle, "user", who.user)
	}
	return log
}

// info describes the connection for the admin listing.
func (c *conn) info() ConnectionInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnectionInfo{
		ID: c.id, Kind: "document", State: c.state.String(),
		Listener: c.origin.address(), Route: c.origin.route, Client: c.origin.client,
		User: c.who.user, Session: c.who.handle, Document: c.document,
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), Since: c.origin.since,
	}
}

// address is the listener's, as text.
func (e endpoint) address() string {
	if e.listener == nil {
		return ""
	}
	return e.listener.String()
}

// endpointOf reads where r came in. The route is the path up to the ID.
func endpointOf(r *http.Request, document string) endpoint {
	e := endpoint{client: r.RemoteAddr, since: time.Now()}
	e.listener, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	e.route = r.URL.Path[:max(0, len(r.URL.Path)-len(document))]
	return e
}

// ConnectionInfo is one line of the admin listing of connections.
type ConnectionInfo struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	State    string    `json:"state"`
	Listener string    `json:"listener"`
	Route    string    `json:"route"`
	Client   string    `json:"client"`
	User     string    `json:"user"`
	Session  string    `json:"session"`
	Document string    `json:"document"`
	BytesIn  int64     `json:"bytes_in"`
	BytesOut int64     `json:"bytes_out"`
	Since    time.Time `json:"since"`
}
