package redisconn

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// guard checks pooled connections before they are used.
//
// go-redis offers one place for it: when its pool hands out a connection it
// asks the outermost net.Conn for its SyscallConn, to peek at the socket, and
// replaces the connection when that fails. No attempt at the command is spent.
// conn.SyscallConn is therefore where the check runs. After three dead
// connections the pool dials, so a command waits for one ping at most: what
// was idle before a ping went unanswered is dropped without asking again.
type guard struct {
	every   time.Duration // idle longer than this is pinged; negative: never
	timeout time.Duration // of the ping
	onDoubt func()        // a reply did not come in time
	metrics *metrics
	start   time.Time

	closing atomic.Bool // the pool also checks what it is about to close

	// Nanoseconds since start. Connections last used before doubt are pinged,
	// those last used before dead are not worth it.
	doubt atomic.Int64 // the latest time-out of a command or ping
	dead  atomic.Int64 // the latest time-out of a ping: whatever forgot one idle flow forgot them all

	mu    sync.Mutex
	conns map[*conn]struct{} // all that are open
}

func newGuard(every, timeout time.Duration, onDoubt func(), m *metrics) *guard {
	return &guard{
		every: every, timeout: timeout, onDoubt: onDoubt, metrics: m, start: time.Now(), conns: map[*conn]struct{}{},
	}
}

func (g *guard) now() int64 { return int64(time.Since(g.start)) }

// wrap makes nc, just dialled for addr, a guarded connection.
func (g *guard) wrap(nc net.Conn, addr string) net.Conn {
	c := &conn{Conn: nc, guard: g, addr: addr, socket: newSocket(nc)}
	c.lastUse.Store(g.now())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	return c
}

// conn is a connection that knows when it was used last.
type conn struct {
	net.Conn
	guard  *guard
	addr   string  // that it was dialled for
	socket *socket // what to peek at; the pool holds c alone when it does

	lastUse  atomic.Int64 // nanoseconds since guard.start
	awaiting atomic.Bool  // something was written and nothing read since
}

// Read notes the use, or that an awaited reply did not come in time. A
// subscription that is silent awaits nothing.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.awaiting.Store(false)
		c.lastUse.Store(c.guard.now())
	} else if errors.Is(err, os.ErrDeadlineExceeded) && c.awaiting.Load() {
		c.guard.suspect()
	}
	return n, err
}

// Write notes the use.
func (c *conn) Write(b []byte) (int, error) {
	c.awaiting.Store(true)
	n, err := c.Conn.Write(b)
	c.lastUse.Store(c.guard.now())
	return n, err
}

// Close closes the connection and forgets it.
func (c *conn) Close() error {
	c.guard.mu.Lock()
	delete(c.guard.conns, c)
	c.guard.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn is called by go-redis' pool, which holds the connection alone,
// before it hands it out; see guard. Once the check has passed there is
// nothing left to peek at: under TLS the bytes would mean nothing to it.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if err := c.guard.check(c); err != nil {
		return nil, err
	}
	return checked{}, nil
}

func (g *guard) suspect() {
	g.doubt.Store(g.now())
	g.onDoubt()
}

// dropAll closes every connection, subscriptions too: those of an outage that
// is over. Which of them survived it is not known, and what waits for a reply
// on one that did not would wait for its time-out.
//
// TLS says good-bye before it closes, and waits five seconds for a link that
// takes no more bytes; whoever is dropped here is not told.
func (g *guard) dropAll() { g.dropIf(func(*conn) bool { return true }) }

// drop is dropAll for one address of several.
func (g *guard) drop(addr string) { g.dropIf(func(c *conn) bool { return c.addr == addr }) }

func (g *guard) dropIf(goes func(*conn) bool) {
	g.mu.Lock()
	conns := slices.Collect(maps.Keys(g.conns))
	g.mu.Unlock()
	for _, c := range conns {
		if goes(c) {
			_ = beneath(c.Conn).Close()
		}
	}
}

// beneath is the connection under TLS, or nc itself.
func beneath(nc net.Conn) net.Conn {
	if wrapper, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return wrapper.NetConn()
	}
	return nc
}

var (
	errNoPong  = errors.New("redisconn: unexpected reply to the idle check's PING")
	errSilence = errors.New("redisconn: idle since before another connection went silent")
)

// check returns why c must not be used, or nil.
func (g *guard) check(c *conn) error {
	if g.closing.Load() {
		return nil
	}
	pending, err := c.socket.peek()
	if err != nil {
		g.metrics.checked(checkClosed)
		return err
	}
	if g.every < 0 {
		return nil
	}
	last := c.lastUse.Load()
	// Bytes that nobody asked for are a farewell or, over TLS, a session
	// ticket: only a ping can tell.
	if !pending && g.now()-last <= int64(g.every) && last > g.doubt.Load() {
		return nil
	}
	if last < g.dead.Load() {
		g.metrics.checked(checkPresumed)
		return errSilence
	}
	if err := c.ping(g.timeout); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			g.dead.Store(g.now())
			g.suspect()
		}
		g.metrics.checked(checkFailed)
		return fmt.Errorf("redisconn: idle check: %w", err)
	}
	c.lastUse.Store(g.now())
	g.metrics.checked(checkOK)
	return nil
}

var (
	pingCommand = []byte("*1\r\n$4\r\nPING\r\n")
	pong        = []byte("+PONG\r\n")
)

// ping sends PING and reads its reply. An error reply (LOADING, MISCONF) is a
// reply: the connection lives, and the command will get one as well.
func (c *conn) ping(timeout time.Duration) error {
	if err := c.Conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Conn.Write(pingCommand); err != nil {
		return err
	}
	var buf [512]byte
	n := 0
	for !bytes.HasSuffix(buf[:n], []byte("\r\n")) {
		if n == len(buf) {
			return errNoPong
		}
		m, err := c.Conn.Read(buf[n:])
		if n += m; err != nil {
			return err
		}
	}
	reply := buf[:n]
	errorReply := reply[0] == '-' && bytes.Count(reply, []byte("\r\n")) == 1
	if !errorReply && !bytes.Equal(reply, pong) {
		return errNoPong
	}
	return c.Conn.SetDeadline(time.Time{})
}

// checked is what a connection that passed shows to go-redis: a socket with
// nothing to see.
type checked struct{}

func (checked) Control(func(fd uintptr)) error    { return nil }
func (checked) Read(func(fd uintptr) bool) error  { return nil }
func (checked) Write(func(fd uintptr) bool) error { return nil }
