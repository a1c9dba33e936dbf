package gateway

import (
	"context"
	"time"
)

// Drain is the gentle part of a shutdown. Clients still come in, since
// balancers need their time to notice, and are answered; but each HTTP
// connection is closed after its answer, sockets to upstreams are closed over
// Drain.Spread, and no new ones are made. Raw TCP, which cannot say any of
// this, is accepted no more. Drain returns when the sockets to upstreams have
// been closed, or ctx ends; Shutdown follows.
func (g *Gateway) Drain(ctx context.Context) {
	g.draining.Store(true)
	for _, l := range g.current() {
		switch {
		case l.server != nil:
			l.server.SetKeepAlivesEnabled(false)
		case l.socket != nil:
			_ = l.socket.Close()
		}
	}
	g.partFromSockets(ctx)
}

// partFromSockets closes the sockets to upstreams, evenly over the spread.
func (g *Gateway) partFromSockets(ctx context.Context) {
	sockets := g.sessions.all((*session).isProxied)
	if len(sockets) == 0 {
		return
	}
	tick := time.NewTicker(max(g.cfg.Drain.Spread/time.Duration(len(sockets)), 1))
	defer tick.Stop()
	for i, s := range sockets {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		_ = s.conn.Close()
	}
}
