//go:build !unix

package redisconn

import "syscall"

// peek sees nothing here: only the ping finds dead connections.
func peek(syscall.Conn) (pending bool, err error) { return false, nil }
