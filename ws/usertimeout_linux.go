package ws

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout bounds how long what was sent may stay unacknowledged by the
// peer's system (TCP_USER_TIMEOUT, tcp(7)). An error leaves the system's own
// patience, which is a quarter of an hour.
func setUserTimeout(socket syscall.Conn, d time.Duration) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
