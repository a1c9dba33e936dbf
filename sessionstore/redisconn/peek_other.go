//go:build !unix

package redisconn

import "net"

// socket shows nothing here: only the ping finds dead connections.
type socket struct{}

func newSocket(net.Conn) *socket { return &socket{} }

func (*socket) peek() (pending bool, err error) { return false, nil }
