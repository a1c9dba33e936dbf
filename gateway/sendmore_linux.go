package gateway

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// writeMore writes what more follows upon at once, so that the system may wait
// for that: a short beginning does not go out, and wake its reader, for itself
// (send(2), MSG_MORE). Should nothing follow, it goes out after 200 ms or when
// the connection is closed.
func writeMore(c *net.TCPConn, p []byte) (written int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	for written < len(p) && err == nil {
		n, failed := 0, error(nil)
		err = raw.Write(func(fd uintptr) (done bool) {
			n, failed = unix.SendmsgN(int(fd), p[written:], nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
		case errors.Is(failed, unix.EINTR):
		case failed != nil:
			err = &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: failed}
		case n == 0:
			err = io.ErrUnexpectedEOF
		}
		written += max(n, 0)
	}
	return written, err
}
