//go:build !linux

package ws

import (
	"net"
	"syscall"
)

// rawSocket returns nil: here readers wait inside the library's buffers, and
// every connection has a writer of its own.
func rawSocket(net.Conn) syscall.RawConn { return nil }

// awaitInput is not called.
func awaitInput(syscall.RawConn) {}

type attempt struct{}

func newAttempt() *attempt { return &attempt{} }

// write is not called.
func (*attempt) write(syscall.RawConn, []byte) int { return 0 }
