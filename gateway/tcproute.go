package gateway

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// tcpRoute passes connections to one of several targets. Safe for concurrent
// use.
type tcpRoute struct {
	// Fixed after construction.
	g       *Gateway
	cfg     TCP
	targets []*target
	stop    context.CancelFunc // of the health checks; nil until start, or without

	turn atomic.Uint64 // for going round
}

func newTCPRoute(g *Gateway, cfg TCP) *tcpRoute {
	t := &tcpRoute{g: g, cfg: cfg}
	for _, address := range cfg.targets() {
		t.targets = append(t.targets, &target{id: address})
	}
	if cfg.Health != nil {
		h := Upstream{Health: cfg.Health}.withDefaults().Health
		t.cfg.Health = h
	}
	return t
}

// connect returns a connection to the best target that can be reached, which
// counts it among its pending ones until the caller takes it off.
func (t *tcpRoute) connect(ctx context.Context) (*net.TCPConn, *target, error) {
	var tried []*target
	for {
		to := t.pick(tried)
		c, err := dialTCP(ctx, to, tcpConnectTimeout)
		if err == nil {
			to.answered()
			return c, to, nil
		}
		to.pending.Add(-1)
		why := failureOf(ctx, nil, err)
		t.g.metrics.missed(to, why)
		to.failed(why, time.Now())
		if tried = append(tried, to); len(tried) == len(t.targets) || ctx.Err() != nil {
			return nil, nil, err
		}
		t.g.metrics.retries.Inc()
	}
}

// pick chooses the target with the fewest connections of those that have not
// been tried, of which there is one, and counts the caller's among them.
func (t *tcpRoute) pick(tried []*target) *target {
	var best *target
	bestUp := false
	now := time.Now().UnixNano()
	turn, n := t.turn.Add(1), uint64(len(t.targets))
	for i := range n {
		to := t.targets[(turn+i)%n]
		if slices.Contains(tried, to) {
			continue
		}
		up := to.available(now)
		if best == nil || up && !bestUp || up == bestUp && to.pending.Load() < best.pending.Load() {
			best, bestUp = to, up
		}
	}
	best.probe(now)
	best.pending.Add(1)
	return best
}

func dialTCP(ctx context.Context, to *target, timeout time.Duration) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, "tcp", to.id)
	if err != nil {
		return nil, &dialError{err}
	}
	return c.(*net.TCPConn), nil
}

// start begins the health checks: a target is well when it can be connected
// to.
func (t *tcpRoute) start() {
	if t.cfg.Health == nil {
		return
	}
	ctx, cancel := context.WithCancel(t.g.life)
	t.stop = cancel
	for _, to := range t.targets {
		t.g.running.Go(func() {
			t.g.watch(ctx, to, t.cfg.Health.Interval, func(ctx context.Context) error {
				c, err := dialTCP(ctx, to, t.cfg.Health.Timeout)
				if err == nil {
					err = c.Close()
				}
				return err
			})
		})
	}
}

func (t *tcpRoute) close() {
	if t.stop != nil {
		t.stop()
	}
}
