// Package gateway is the edge: it accepts every client connection, decides by
// listener, host and path where a request goes (an upstream, files, or one of
// the rooms that it is given as an http.Handler), tells upstreams who is
// logged in, and turns what fails behind it into one clear answer.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
)

// Gateway serves listeners. Its life is New, Listen, Serve, and from another
// goroutine Drain, if there is time, and Shutdown; all methods are safe for concurrent use.
type Gateway struct {
	// Fixed after construction.
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	sessions *sessions
	admin    *admin // nil: none

	life    context.Context // of everything that serves clients; ends with cut
	cut     context.CancelFunc
	running sync.WaitGroup // accept loops, TCP sessions, health checks, routes that finish their requests
	done    chan struct{}  // closed when Shutdown is over

	draining atomic.Bool // see Drain

	failed chan error // of 1: why a listener stopped serving

	reloading sync.Mutex // one Reload at a time; before mu, and held while addresses are bound

	mu        sync.Mutex  // before listener.mu
	listeners []*listener // in force, replaced as a whole
	serving   bool
	closing   bool
}

// New makes a gateway; it returns every fault of the configuration.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Available == nil {
		cfg.Available = func() bool { return true }
	}
	g := &Gateway{cfg: cfg, log: cfg.Logger, done: make(chan struct{}), failed: make(chan error, 1)}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if g.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g.sessions = newSessions(g.metrics)
	g.life, g.cut = context.WithCancel(context.Background())
	for _, lc := range cfg.Listeners {
		l, err := newListener(g, lc)
		if err != nil {
			return nil, fmt.Errorf("gateway: listener %s: %w", lc.Address, err)
		}
		g.listeners = append(g.listeners, l)
	}
	if cfg.Admin.Address != "" {
		g.admin = newAdmin(g, cfg.Admin)
	}
	return g, nil
}

// Listen binds every address, the admin listener's too, or none. From then on
// clients can connect; they are answered once Serve runs.
func (g *Gateway) Listen() error {
	for _, l := range g.current() {
		if err := l.listen(); err != nil {
			g.unlisten()
			return fmt.Errorf("gateway: %w", err)
		}
	}
	if g.admin != nil {
		if err := g.admin.listen(); err != nil {
			g.unlisten()
			return fmt.Errorf("gateway: admin: %w", err)
		}
	}
	return nil
}

func (g *Gateway) unlisten() {
	for _, l := range g.current() {
		if l.socket != nil {
			_ = l.socket.Close()
		}
	}
}

// Addresses returns where the listeners are bound, in their order; only after
// Listen.
func (g *Gateway) Addresses() []net.Addr {
	listeners := g.current()
	addresses := make([]net.Addr, len(listeners))
	for i, l := range listeners {
		addresses[i] = l.socket.Addr()
	}
	return addresses
}

// AdminAddress returns where the admin listener is bound, nil without one;
// only after Listen.
func (g *Gateway) AdminAddress() net.Addr {
	if g.admin == nil {
		return nil
	}
	return g.admin.socket.Addr()
}

// Sessions returns the live gateway sessions, oldest first.
func (g *Gateway) Sessions() []ConnectionInfo {
	return g.sessions.infos()
}

// Serve serves until Shutdown has ended, and returns nil then. When ctx ends
// or a listener fails, it cuts everything at once and returns that error.
func (g *Gateway) Serve(ctx context.Context) error {
	if !g.begin() {
		return errors.New("gateway: Serve was called before, or after Shutdown")
	}
	if g.admin != nil {
		g.serve(g.admin.serve)
	}
	var err error
	select {
	case <-g.done:
		return nil
	case err = <-g.failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	now, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cancel()
	_ = g.Shutdown(now) // it reports that there was no time, which is the point
	return fmt.Errorf("gateway: %w", err)
}

// begin starts all listeners and the background work of their routes; false
// when that was done before or the gateway is closed.
func (g *Gateway) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.serving || g.closing {
		return false
	}
	g.serving = true
	for _, l := range g.listeners {
		l.table.start()
		g.serve(l.serve)
	}
	return true
}

// Shutdown stops accepting, closes idle connections, and waits for requests
// and raw TCP sessions to end; sockets to upstreams are closed over
// Drain.Spread. Sockets of other rooms are for their owners to drain at the
// same time. What is still there when ctx ends is cut, and ctx's error
// returned. The admin listener goes last.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	first := !g.closing
	g.closing = true
	listeners := g.listeners // for good: no Reload from here on
	g.mu.Unlock()
	if !first {
		<-g.done // the first call's context decides how long that takes
		return nil
	}
	defer close(g.done)

	var stopping sync.WaitGroup
	for _, l := range listeners {
		stopping.Go(func() { l.stop(ctx) })
	}
	stopping.Go(func() { g.partFromSockets(ctx) })
	err := g.sessions.wait(ctx)
	g.cut()
	for _, l := range listeners {
		l.close()
	}
	for _, s := range g.sessions.all(nil) {
		_ = s.conn.Close()
	}
	stopping.Wait()
	for _, l := range listeners {
		l.retire()
	}
	if g.admin != nil {
		g.admin.close()
	}
	g.running.Wait()
	if err != nil {
		return fmt.Errorf("gateway: connections were cut: %w", err)
	}
	return nil
}

// handlerLog is where net/http reports what it cannot tell anybody else:
// failed TLS handshakes, malformed requests.
func (g *Gateway) handlerLog() *slog.Logger { return g.log.With("from", "net/http") }
