//go:build !linux

package gateway

import "net"

// writeMore writes p; only Linux can be told that more follows.
func writeMore(c *net.TCPConn, p []byte) (int, error) { return c.Write(p) }
