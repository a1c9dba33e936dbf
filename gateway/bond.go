package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Binding is a socket's hold on its session, as sessionstore's Binding. Its
// methods are safe for concurrent use and do not block.
type Binding interface {
	Touch() // notes activity of the client
	Close() // ends the binding; it is idempotent
}

// bond ties a socket to an upstream, or a response that takes long, to the
// session that it was let in with: when that ends, so does it. It is the
// session's Listener.
type bond struct {
	user    string // fixed
	binding Binding

	ended atomic.Pointer[parting] // nil: not yet

	mu    sync.Mutex // a leaf
	conn  net.Conn   // nil until the upgrade
	stop  func()     // of a response; nil for a socket
	timer *time.Timer
}

// parting is why a socket is closed, and what its client is told in the frame.
type parting struct {
	code   uint16 // those of the other sockets: docs/PROTOCOL.md
	reason string
	why    reason
}

// partingTime is what a client gets to take its leave.
const partingTime = time.Second

// bind ties the socket that r asks for to its session, until unbind. False: r
// has been answered, since the session has ended since it was looked at, or nothing is
// known of it any more.
func (x *exchange) bind(r *http.Request) bool {
	why, cause := x.tryBind(r)
	if why != "" {
		x.refuse(r, why, cause)
	}
	return why == ""
}

// tryBind is bind without the answer: it returns why there is no bond, ""
// if there is.
func (x *exchange) tryBind(r *http.Request) (reason, error) {
	b := &bond{user: x.who.user}
	id, _ := x.g.cfg.Store.IDFromRequest(r)
	binding, now, err := x.g.cfg.Bind(r.Context(), id, b)
	switch {
	case errors.Is(err, sessionstore.ErrUnavailable):
		return reasonStore, err
	case errors.Is(err, sessionstore.ErrUndecodable):
		return reasonUndecodable, err
	case errors.Is(err, context.Canceled):
		return reasonClientGone, err
	case err != nil:
		return reasonSessionEnded, err
	case now.UserID() != b.user:
		binding.Close()
		return reasonSessionEnded, nil
	}
	b.binding, x.bond = binding, b
	return "", nil
}

// onEnd has stop called when the session ends, at once if it has ended. It
// must not wait.
func (b *bond) onEnd(stop func()) {
	b.mu.Lock()
	b.stop = stop
	b.mu.Unlock()
	if b.ended.Load() != nil {
		stop()
	}
}

// unbind ends x's bond, if it has one, and notes whether that ended the socket
// or the response.
func (x *exchange) unbind() {
	if x.long != nil {
		x.long.end()
	}
	b := x.bond
	if b == nil {
		return
	}
	b.binding.Close()
	b.mu.Lock()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	if p := b.ended.Load(); p != nil && (x.hijacked || x.long != nil) {
		x.reason, x.cause = p.why, errors.New(p.reason)
	}
}

// SessionEnded implements sessionstore.Listener.
func (b *bond) SessionEnded(r sessionstore.Reason) {
	b.part(parting{4401, string(r), reasonSessionEnded})
}

// SessionChanged implements sessionstore.Listener: an application may have
// taken the user out of the session.
func (b *bond) SessionChanged(s *sessionstore.Snapshot) {
	if s.UserID() != b.user {
		b.part(parting{4401, string(sessionstore.ReasonLogout), reasonSessionEnded})
	}
}

// SessionUnverified implements sessionstore.Listener.
func (b *bond) SessionUnverified() { b.part(parting{4503, "session not verified", reasonStore}) }

// SessionRotated implements sessionstore.Listener: the client's next page
// gets the cookie.
func (b *bond) SessionRotated() {}

// SessionExpiring implements sessionstore.Listener.
func (b *bond) SessionExpiring(time.Duration) {}

// part has the socket closed. It does not wait: what reads from the client is
// woken to say good-bye, and if it is held up elsewhere, or the client does
// not leave, the connection is cut after partingTime.
func (b *bond) part(p parting) {
	if !b.ended.CompareAndSwap(nil, &p) {
		return
	}
	b.mu.Lock()
	conn, stop := b.conn, b.stop
	b.mu.Unlock()
	if conn != nil {
		b.hurry(conn)
	}
	if stop != nil {
		stop()
	}
}

func (b *bond) hurry(conn net.Conn) {
	now := time.Now()
	_ = conn.SetReadDeadline(now)
	_ = conn.SetWriteDeadline(now.Add(partingTime))
	timer := time.AfterFunc(partingTime, func() { _ = conn.Close() })
	b.mu.Lock()
	b.timer = timer
	b.mu.Unlock()
}

// tie returns the upgraded connection for the proxy to copy from and to.
func (b *bond) tie(conn net.Conn) net.Conn {
	b.mu.Lock()
	b.conn = conn
	b.mu.Unlock()
	if b.ended.Load() != nil { // before there was anything to close
		b.hurry(conn)
	}
	return &bondedConn{Conn: conn, b: b}
}

// bondedConn is a client's connection, upgraded to a WebSocket. It follows the
// frames both ways: those that a client sends are activity of the session, but
// for pings and their like; and a good-bye has its place between two frames.
type bondedConn struct {
	net.Conn
	b  *bond
	in frames // owned by the reading goroutine

	// One writer at a time: the proxy, and the reading goroutine for its
	// last words. The lock is held while it writes.
	writing sync.Mutex
	out     frames
	over    bool
}

var errSessionOver = errors.New("the socket's session is over")

func (c *bondedConn) Read(p []byte) (int, error) {
	if c.b.ended.Load() != nil {
		return 0, c.leave()
	}
	n, err := c.Conn.Read(p)
	if c.b.ended.Load() != nil {
		return 0, c.leave()
	}
	if c.in.follow(p[:n]) {
		c.b.binding.Touch()
	}
	return n, err
}

// Write drops what comes after the good-bye.
func (c *bondedConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.over {
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	c.out.follow(p[:n])
	return n, err
}

// CloseWrite keeps the half-close of the connection behind.
func (c *bondedConn) CloseWrite() error {
	if hc, ok := c.Conn.(halfCloser); ok {
		return hc.CloseWrite()
	}
	return c.Close()
}

// leave tells the client why, unless a frame is half sent, and waits for it to
// go: closing with bytes unread would reset the connection, and the reason
// would be lost.
func (c *bondedConn) leave() error {
	p := c.b.ended.Load()
	c.writing.Lock()
	said := c.over
	if !c.over && c.out.between() {
		_, err := c.Conn.Write(closeFrame(p.code, p.reason))
		said = err == nil
	}
	c.over = true
	c.writing.Unlock()
	if said && c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(partingTime)) == nil {
		_, _ = io.Copy(io.Discard, readerOnly{c.Conn})
	}
	return errSessionOver
}

// closeFrame is a close frame of RFC 6455 from a server.
func closeFrame(code uint16, reason string) []byte {
	frame := append([]byte{0x88, byte(2 + len(reason))}, 0, 0)
	binary.BigEndian.PutUint16(frame[2:], code)
	return append(frame, reason...)
}

// frames finds the frames of RFC 6455 in a stream, one direction of a socket.
type frames struct {
	head [14]byte
	n    int    // bytes of head that are there
	left uint64 // bytes of the payload that are still to come
}

// follow goes on with the next bytes and reports whether a data frame began
// among them, one of text, binary or a continuation.
func (f *frames) follow(p []byte) (data bool) {
	for len(p) > 0 {
		if f.left > 0 {
			step := min(f.left, uint64(len(p)))
			f.left -= step
			p = p[step:]
			continue
		}
		f.head[f.n] = p[0]
		f.n++
		p = p[1:]
		if f.n < 2 || f.n < f.size() {
			continue
		}
		data = data || f.head[0]&0x0f < 8
		f.left, f.n = f.payload(), 0
	}
	return data
}

// size is how long the head is, once two bytes of it are there.
func (f *frames) size() int {
	size := 2
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.head[1]&0x80 != 0 {
		size += 4 // the mask
	}
	return size
}

func (f *frames) payload() uint64 {
	switch n := f.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}

// between reports whether no frame is half there.
func (f *frames) between() bool { return f.n == 0 && f.left == 0 }
