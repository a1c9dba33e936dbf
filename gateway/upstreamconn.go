package gateway

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// dial connects to a target and marks a failure as one that sent nothing.
func (p *pool) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: p.cfg.Timeouts.Connect}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, &dialError{err}
	}
	return &upstreamConn{Conn: c, send: p.cfg.Timeouts.Send, idle: p.cfg.Timeouts.Idle}, nil
}

// upstreamConn is a connection to a target that fails when nothing flows for
// too long.
type upstreamConn struct {
	net.Conn
	send     time.Duration // how long a write may take, 0: as long as it likes
	idle     time.Duration // how long neither direction may flow: each gives the other time; 0: as long as they like
	upgraded atomic.Bool   // to a socket, where a side may well not read for long
}

// sendTimeout is a write that the target did not take in time.
type sendTimeout struct{ error }

func (e *sendTimeout) Unwrap() error { return e.error }

func (c *upstreamConn) Read(p []byte) (int, error) {
	if c.idle > 0 {
		if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

func (c *upstreamConn) Write(p []byte) (int, error) {
	if c.idle > 0 {
		if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
			return 0, err
		}
	}
	if c.send > 0 && (c.idle == 0 || c.send < c.idle) && !c.upgraded.Load() {
		if err := c.SetWriteDeadline(time.Now().Add(c.send)); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Write(p)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		err = &sendTimeout{err}
	}
	return n, err
}

// CloseWrite keeps the half-close of upgraded connections.
func (c *upstreamConn) CloseWrite() error { return c.Conn.(halfCloser).CloseWrite() }

// withoutSendLimit has the connection that a request for a socket gets marked
// as one that may stand still, once the request is on its way.
func withoutSendLimit(req *http.Request) *http.Request {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if c, ok := info.Conn.(*upstreamConn); ok && c.upgraded.CompareAndSwap(false, true) {
			_ = c.SetWriteDeadline(time.Time{}) // a connection that is broken says so when it is used
		}
	}}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
}
