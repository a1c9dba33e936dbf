package e2e

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// balancer is a TCP balancer: each connection goes to the next target that takes it, and ends with it.
type balancer struct {
	url    string
	target func(n int) string // URL of one that may be dead
	tries  int

	mu    sync.Mutex
	next  int
	flows map[net.Conn]struct{} // nil once closed
	wg    sync.WaitGroup
}

// startBalancer spreads connections over targets; of that many in a row one is alive, usually.
func startBalancer(t *testing.T, tries int, target func(n int) string) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{url: "http://" + ln.Addr().String(), target: target, tries: tries, flows: map[net.Conn]struct{}{}}
	b.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		b.mu.Lock()
		for c := range b.flows {
			_ = c.Close()
		}
		b.flows = nil
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

// hold keeps c until the end of the test, and reports whether that is still to come.
func (b *balancer) hold(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flows == nil {
		return false
	}
	b.flows[c] = struct{}{}
	return true
}

func (b *balancer) release(c net.Conn) {
	_ = c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flows, c)
}

func (b *balancer) serve(client net.Conn) {
	defer b.release(client)
	for range b.tries {
		b.mu.Lock()
		n := b.next
		b.next++
		b.mu.Unlock()
		server, err := net.Dial("tcp", strings.TrimPrefix(b.target(n), "http://"))
		if err != nil {
			continue
		}
		defer b.release(server)
		if !b.hold(client) || !b.hold(server) {
			return
		}
		b.wg.Go(func() {
			_, _ = io.Copy(server, client)
			_ = server.Close()
			_ = client.Close()
		})
		_, _ = io.Copy(client, server)
		return
	}
}
