package redisconn

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// How the embedded Redis gets older. Each step looks at all keys in order, and
// nobody is served meanwhile: with many of them steps are as far apart as
// keeps the clock to a twentieth of the time. So keys live too long or too
// short by this much.
const (
	clockStep  = 20 * time.Millisecond
	clockShare = 20
	clockLag   = 500 * time.Millisecond // at most, whatever that takes: leases and holds last seconds
)

// runClock has keys expire until ctx ends. The server's own clock makes such a
// step at each access, and with 10,000 keys does nothing else.
func runClock(ctx context.Context, m *miniredis.Miniredis) {
	pause := time.NewTimer(clockStep)
	defer pause.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		now := time.Now()
		m.FastForward(now.Sub(last))
		last = now
		pause.Reset(min(max(clockStep, clockShare*time.Since(now)), clockLag))
	}
}

// startEmbedded begins an embedded Redis.
func startEmbedded() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	begins, err := m.Dial()
	if err != nil {
		return nil, err
	}
	return m, begins.Close()
}

// dialEmbedded connects to the embedded Redis. Its own connections hold nothing
// (net.Pipe): it would wait for the reader of each answer before it reads the
// next command of a pipeline, and for each subscriber while it publishes, with
// all its clients waiting too. Nor would they stay away once it is closed.
func dialEmbedded(m *miniredis.Miniredis) (net.Conn, error) {
	m.Lock()
	defer m.Unlock()
	if m.Server() == nil {
		return nil, net.ErrClosed
	}
	client, server := memoryConns()
	m.Server().ServeConn(server)
	return client, nil
}

// memoryConns are the ends of a connection within the process. Writing never
// waits, as in a network whose buffers are large.
func memoryConns() (a, b net.Conn) {
	there, back := newStream(), newStream()
	return &memoryConn{in: back, out: there}, &memoryConn{in: there, out: back}
}

// memoryConn is one end. Only one goroutine at a time may read.
type memoryConn struct{ in, out *stream }

func (c *memoryConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memoryConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *memoryConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline has nothing to do.
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

func (c *memoryConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *memoryConn) LocalAddr() net.Addr  { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "embedded" }

// heldBytes is how much may wait for a reader before the connection is closed,
// as Redis does it to subscribers that do not keep up.
const heldBytes = 64 << 20

// stream is one direction of a connection.
type stream struct {
	changed chan struct{} // capacity 1: the reader is to look again

	mu       sync.Mutex
	waiting  bytes.Buffer
	deadline time.Time // of reads; zero: none
	closed   bool
}

func newStream() *stream { return &stream{changed: make(chan struct{}, 1)} }

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	if s.waiting.Len() > 0 && s.waiting.Len()+len(p) > heldBytes { // one command, or one answer, may be longer
		s.closed = true
		s.waiting = bytes.Buffer{}
		s.signal()
		return 0, io.ErrShortWrite
	}
	s.waiting.Write(p) // never fails
	s.signal()
	return len(p), nil
}

func (s *stream) read(p []byte) (int, error) {
	for {
		n, deadline, err := s.take(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if deadline.IsZero() {
			<-s.changed
			continue
		}
		late := time.NewTimer(time.Until(deadline))
		select {
		case <-s.changed:
		case <-late.C:
		}
		late.Stop()
	}
}

// take reads what there is. Without any it says why there will be none, or
// until when to wait.
func (s *stream) take(p []byte) (n int, deadline time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	late := !s.deadline.IsZero() && !time.Now().Before(s.deadline)
	switch {
	case late:
		return 0, s.deadline, os.ErrDeadlineExceeded
	case s.waiting.Len() > 0:
		n, _ = s.waiting.Read(p)
		if s.waiting.Len() == 0 && s.waiting.Cap() > 64<<10 {
			s.waiting = bytes.Buffer{} // it was much for once
		}
		return n, s.deadline, nil
	case s.closed:
		return 0, s.deadline, io.EOF
	}
	return 0, s.deadline, nil
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.signal()
}

// close lets the reader have what waits.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.signal()
}

func (s *stream) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
