package redistest

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Link is a TCP proxy in front of a server, with faults. Its methods are safe
// for concurrent use; the test's cleanup closes it.
type Link struct {
	t      testing.TB
	addr   string
	target string

	blackhole atomic.Bool
	delay     atomic.Int64 // time.Duration
	drop      atomic.Int64 // server→client chunks still to be swallowed
	accepted  atomic.Int64

	wg sync.WaitGroup // accept loop, and two pumps a flow

	mu       sync.Mutex
	listener net.Listener // nil while cut
	flows    map[*flow]struct{}
	closed   bool
}

// flow is one client's connection through the link.
type flow struct {
	client, server net.Conn
	lost           atomic.Bool // the middle forgot it: bytes vanish for ever
	subscribed     atomic.Bool // a SUBSCRIBE went over it
	muted          atomic.Bool // what the server says vanishes
}

func (f *flow) close() {
	_ = f.client.Close()
	_ = f.server.Close()
}

// NewLink listens on a free port of 127.0.0.1 and passes everything to target
// (host:port) and back.
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("link: %v", err)
	}
	l := &Link{t: t, addr: ln.Addr().String(), target: target, listener: ln, flows: map[*flow]struct{}{}}
	l.wg.Go(func() { l.accept(ln) })
	t.Cleanup(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.Cut()
		l.wg.Wait()
	})
	return l
}

// Addr returns the host:port that clients dial.
func (l *Link) Addr() string { return l.addr }

// Accepted counts the connections that clients have made so far.
func (l *Link) Accepted() int { return int(l.accepted.Load()) }

// Cut closes every connection and refuses new ones until Heal.
func (l *Link) Cut() {
	l.mu.Lock()
	ln := l.listener
	l.listener = nil
	l.mu.Unlock()
	if ln != nil {
		_ = ln.Close()
	}
	for _, f := range l.snapshot() {
		f.close()
	}
}

// Heal accepts connections again after Cut.
func (l *Link) Heal() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil || l.closed {
		return
	}
	// The port may be somebody's for the moment: an outgoing connection's.
	deadline := time.Now().Add(startTimeout)
	for {
		ln, err := net.Listen("tcp", l.addr)
		if err == nil {
			l.listener = ln
			l.wg.Go(func() { l.accept(ln) })
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("link: listen again: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Blackhole(true) accepts connections and swallows what is sent, both ways,
// until Blackhole(false). A flow that lost bytes meanwhile stays lost: it would
// be out of step.
func (l *Link) Blackhole(on bool) { l.blackhole.Store(on) }

// Delay holds every chunk back for d, each way; 0 ends it.
func (l *Link) Delay(d time.Duration) { l.delay.Store(int64(d)) }

// DropReplies swallows the next n chunks from the server; each costs its
// connection, which is closed on both sides, so that the client knows that it
// got no reply and not whether the command ran. The handshake of a new
// connection has replies too.
func (l *Link) DropReplies(n int) { l.drop.Store(int64(n)) }

// DropIdle forgets the flows that exist now, as a middlebox forgets idle ones:
// neither side sees a FIN or RST, and what they send vanishes. New connections
// work.
func (l *Link) DropIdle() {
	for _, f := range l.snapshot() {
		f.lost.Store(true)
	}
}

// Deafen swallows, from now on, what the server says on connections that have
// subscriptions, and returns how many these are. Both sides see them alive and
// in use. New connections work.
func (l *Link) Deafen() int {
	n := 0
	for _, f := range l.snapshot() {
		if f.subscribed.Load() {
			f.muted.Store(true)
			n++
		}
	}
	return n
}

func (l *Link) snapshot() []*flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	flows := make([]*flow, 0, len(l.flows))
	for f := range l.flows {
		flows = append(flows, f)
	}
	return flows
}

func (l *Link) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return // closed by Cut
		}
		l.accepted.Add(1)
		// The target is on this machine: dialling it here delays nobody.
		server, err := net.Dial("tcp", l.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		l.start(&flow{client: client, server: server}, ln)
	}
}

// start registers and runs f unless the link was cut since it was accepted.
func (l *Link) start(f *flow, ln net.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != ln {
		f.close()
		return
	}
	l.flows[f] = struct{}{}
	l.wg.Go(func() { l.pump(f, f.server, f.client, false) })
	l.wg.Go(func() { l.pump(f, f.client, f.server, true) })
}

// pump copies one direction of f until either end closes. A lost flow is read
// on and goes nowhere; not even its end is told to the other side.
func (l *Link) pump(f *flow, dst, src net.Conn, reply bool) {
	defer func() {
		if f.lost.Load() {
			return
		}
		f.close()
		l.mu.Lock()
		delete(l.flows, f)
		l.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		if l.blackhole.Load() {
			f.lost.Store(true)
		}
		if f.lost.Load() {
			continue
		}
		if !reply && bytes.Contains(buf[:n], []byte("subscribe\r\n")) {
			f.subscribed.Store(true)
		}
		if reply && f.muted.Load() {
			continue
		}
		if reply && l.swallow() {
			return
		}
		if d := time.Duration(l.delay.Load()); d > 0 {
			time.Sleep(d)
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// swallow takes one of DropReplies' chunks.
func (l *Link) swallow() bool {
	for {
		n := l.drop.Load()
		if n <= 0 {
			return false
		}
		if l.drop.CompareAndSwap(n, n-1) {
			return true
		}
	}
}
