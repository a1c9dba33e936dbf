package ws

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSocketPatience(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	boundSocket(conn, 10*time.Second)
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || ms != 50_000 {
			t.Errorf("unacknowledged for %d ms, %v", ms, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
