package ws

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawSocket returns the TCP connection itself where there is nothing between
// it and its user, else nil.
func rawSocket(conn net.Conn) syscall.RawConn {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// awaitInput returns when something can be read, or reading would fail: the
// connection has ended, or its read deadline has passed. A read that waits
// inside the library's buffers has a stack of 4 kB, this one of 2.
func awaitInput(socket syscall.RawConn) {
	looked := false
	_ = socket.Read(func(fd uintptr) (done bool) { // an error is the next read's, too
		if looked {
			return true
		}
		looked = true
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// attempt writes without waiting. It is not safe for concurrent use.
type attempt struct {
	wire []byte
	n    int
	err  error
	once func(fd uintptr) bool // made once
}

func newAttempt() *attempt {
	a := &attempt{}
	a.once = func(fd uintptr) bool {
		for {
			if a.n, a.err = syscall.Write(int(fd), a.wire); a.err != syscall.EINTR {
				return true
			}
		}
	}
	return a
}

// write writes what the socket takes at once, and returns how much that is. It
// is less than all of wire when a write that waits has to go on.
func (a *attempt) write(socket syscall.RawConn, wire []byte) int {
	a.wire, a.n, a.err = wire, 0, nil
	if err := socket.Write(a.once); err != nil || a.err != nil {
		a.n = 0 // the write that goes on finds out why
	}
	a.wire = nil
	return max(0, a.n)
}
