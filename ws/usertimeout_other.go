//go:build !linux

package ws

import (
	"syscall"
	"time"
)

// setUserTimeout leaves the system's own patience, where it is all there is.
func setUserTimeout(syscall.Conn, time.Duration) {}
