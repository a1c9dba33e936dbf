//go:build unix

package redisconn

import (
	"io"
	"syscall"
)

// peek looks at a socket without waiting or consuming: err when the other side
// has closed it, pending when there are bytes to read. A nil socket shows
// nothing.
func peek(socket syscall.Conn) (pending bool, err error) {
	if socket == nil {
		return false, nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		var buf [1]byte
		n, _, err := syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n > 0:
			pending = true
		case n == 0 && err == nil:
			peekErr = io.EOF
		case err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR:
			peekErr = err
		}
		return true // never wait
	})
	if err != nil {
		return false, err
	}
	return pending, peekErr
}
