package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// Bounds of a raw TCP session's beginning; once it flows it may take as long
// as it likes.
const (
	tcpConnectTimeout   = 5 * time.Second
	tcpHandshakeTimeout = 10 * time.Second
)

// halfCloser is a connection whose writing side can be closed alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// serveTCP is the whole life of a raw TCP session: connect, pass bytes both
// ways, and end when neither direction can flow.
func (l *listener) serveTCP(client *countedConn) {
	defer client.Close()
	t := l.acquire()
	defer t.users.Done()
	if t.tcp == nil {
		return // retired
	}
	s := client.session
	s.mu.Lock()
	s.state, s.route = stateConnecting, strings.Join(t.tcp.cfg.targets(), " ")
	s.mu.Unlock()

	var down halfCloser = client
	if l.certificate.Load() != nil {
		secure := tls.Server(client, l.tlsConfig())
		ctx, cancel := context.WithTimeout(l.g.life, tcpHandshakeTimeout)
		err := secure.HandshakeContext(ctx)
		cancel()
		if err != nil {
			l.g.log.Debug("tcp: no TLS handshake", "conn", s.id, "listener", l.address, "err", err)
			return
		}
		down = secure
	}
	up, to, err := t.tcp.connect(l.g.life)
	if err != nil {
		why := failureOf(l.g.life, nil, err)
		l.g.metrics.failed(l.address, "", why)
		l.g.log.Warn("tcp: no connection to the target", "conn", s.id, "listener", l.address, "upstream", s.route, "reason", why, "err", err)
		return
	}
	defer to.pending.Add(-1)
	defer up.Close()
	s.mu.Lock()
	s.state, s.route = stateOpen, to.id
	s.mu.Unlock()
	err = l.pipe(s, down, up, t.tcp.cfg.Idle)
	l.g.log.Debug("tcp: session ended", "conn", s.id, "listener", l.address, "upstream", to.id,
		"in", s.in.Load(), "out", s.out.Load(), "duration", time.Since(s.since), "err", err)
}

// pipe passes bytes both ways. The end of one direction is passed on as a
// half-close and leaves the other flowing; an error in one means that nothing
// can flow in either, since both use the same two connections; so does idle
// time, if that is limited. It returns what went wrong.
func (l *listener) pipe(s *session, down, up halfCloser, idle time.Duration) error {
	closeBoth := func() { _ = down.Close(); _ = up.Close() }
	stop := context.AfterFunc(l.g.life, closeBoth)
	defer stop()
	flows := func() {}
	if idle > 0 {
		timer := time.AfterFunc(idle, func() {
			l.g.metrics.failed(l.address, "", reasonIdle)
			closeBoth()
		})
		defer timer.Stop()
		flows = func() { timer.Reset(idle) }
	}

	direction := func(dst, src halfCloser, done chan<- error) {
		err := copyBounded(dst, src, flows)
		if err == nil {
			s.setState(stateHalfClosed)
			err = dst.CloseWrite()
		}
		if err != nil {
			closeBoth()
		}
		done <- err
	}
	done := make(chan error, 2)
	go direction(up, down, done)
	direction(down, up, done)
	return errors.Join(<-done, <-done)
}

// copyBounded copies until src ends, through one small buffer: a slow
// receiver slows the sender down instead of filling memory. It calls flows for
// each piece.
func copyBounded(dst io.Writer, src io.Reader, flows func()) error {
	buf := copyBuffers.Get()
	defer copyBuffers.Put(buf)
	_, err := io.CopyBuffer(writerOnly{dst}, readerOnly{pieces{src, flows}}, buf)
	return err
}

// pieces tells of each piece that is read.
type pieces struct {
	io.Reader
	flows func()
}

func (p pieces) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.flows()
	return n, err
}
