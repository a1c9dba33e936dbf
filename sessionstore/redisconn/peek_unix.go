//go:build unix

package redisconn

import (
	"io"
	"net"
	"syscall"
)

// socket looks at what has arrived on a connection. It is used before every
// command, so that it keeps what it needs instead of allocating it.
type socket struct {
	raw     syscall.RawConn // nil: a pipe, which shows nothing
	look    func(fd uintptr) bool
	pending bool
	err     error
}

func newSocket(nc net.Conn) *socket {
	s := &socket{raw: rawSocket(nc)}
	s.look = s.recv
	return s
}

// rawSocket finds the socket under nc, through TLS; nil for a pipe.
func rawSocket(nc net.Conn) syscall.RawConn {
	if sc, ok := beneath(nc).(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// peek neither waits nor consumes: err when the other side has closed the
// connection, pending when there are bytes to read.
func (s *socket) peek() (pending bool, err error) {
	if s.raw == nil {
		return false, nil
	}
	s.pending, s.err = false, nil
	if err := s.raw.Read(s.look); err != nil {
		return false, err
	}
	return s.pending, s.err
}

func (s *socket) recv(fd uintptr) (done bool) {
	var buf [1]byte
	n, _, err := syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case n > 0:
		s.pending = true
	case n == 0 && err == nil:
		s.err = io.EOF
	case err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR:
		s.err = err
	}
	return true // never wait
}
