package gateway

import (
	"errors"
	"fmt"
)

// Reload puts other listeners and routes in force and reads certificates
// again. Requests under way finish on the routes they began on. New addresses
// are bound; those that are no longer named accept nothing more, and what is
// connected there ends in its own time, at the latest with Shutdown. What a
// listener is that stays (TLS or not, HTTP or TCP, its limits on heads) cannot
// change. On an error nothing has changed.
func (g *Gateway) Reload(listeners []Listener) error {
	changed := g.cfg
	changed.Listeners = listeners
	if err := changed.validate(); err != nil {
		return err
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	plan, err := g.plan(listeners)
	if err != nil {
		plan.undo()
		return fmt.Errorf("gateway: %w", err)
	}
	if !g.commit(plan) {
		plan.undo()
		return errors.New("gateway: shutting down")
	}
	return nil
}

// plan is a reload that has been prepared: for each listener that will be,
// the one that is, with what it gets, or a new one.
type plan struct {
	next    []*listener
	updates map[*listener]prepared
	added   []*listener
	removed []*listener
}

// plan opens and binds all that the listeners need. With an error, too, it
// returns what has been opened.
func (g *Gateway) plan(listeners []Listener) (*plan, error) {
	p := &plan{updates: map[*listener]prepared{}}
	left := map[string][]*listener{} // by address; port 0 may stand for several
	for _, l := range g.current() {
		left[l.address] = append(left[l.address], l)
	}
	for i, lc := range listeners {
		if same := left[lc.Address]; len(same) > 0 {
			l := same[0]
			left[lc.Address] = same[1:]
			if err := l.canBecome(lc); err != nil {
				return p, fmt.Errorf("listeners[%d]%w", i, err)
			}
			made, err := prepare(g, lc)
			if err != nil {
				return p, fmt.Errorf("listeners[%d]: %w", i, err)
			}
			p.updates[l] = made
			p.next = append(p.next, l)
			continue
		}
		l, err := newListener(g, lc)
		if err != nil {
			return p, fmt.Errorf("listeners[%d]: %w", i, err)
		}
		p.added = append(p.added, l)
		p.next = append(p.next, l)
		if err := l.listen(); err != nil {
			return p, fmt.Errorf("listeners[%d].address: %w", i, err)
		}
	}
	for _, gone := range left {
		p.removed = append(p.removed, gone...)
	}
	return p, nil
}

// undo closes what a plan has opened that will not be.
func (p *plan) undo() {
	for _, made := range p.updates {
		made.table.close()
	}
	for _, l := range p.added {
		l.table.close()
		if l.socket != nil {
			_ = l.socket.Close()
		}
	}
}

// commit puts a plan in force; false when the gateway is shutting down.
func (g *Gateway) commit(p *plan) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return false
	}
	for l, made := range p.updates {
		old := l.install(made)
		if g.serving {
			made.table.start()
		}
		g.running.Go(func() {
			old.end()
			g.forget(l.address, old)
		})
	}
	g.listeners = p.next
	for _, l := range p.added {
		if g.serving {
			l.table.start()
			g.serve(l.serve)
		}
		g.log.Info("listener added", "listener", l.address, "address", l.socket.Addr().String())
	}
	for _, l := range p.removed {
		g.log.Info("listener removed", "listener", l.address)
		g.running.Go(func() {
			l.stop(g.life)
			g.forget(l.address, l.retire())
		})
	}
	return true
}

// serve runs a listener in the background; the first that fails ends Serve.
func (g *Gateway) serve(run func() error) {
	g.running.Go(func() {
		if err := run(); err != nil {
			select {
			case g.failed <- err:
			default: // another one has failed already
			}
		}
	})
}

// current returns the listeners in force; the slice is never changed.
func (g *Gateway) current() []*listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.listeners
}

// canBecome reports in an error how a listener differs from what it is in
// what a reload cannot change.
func (l *listener) canBecome(lc Listener) error {
	limits := lc.Limits.withDefaults()
	switch {
	case (l.certificate.Load() != nil) != (lc.TLS != nil):
		return errors.New(".tls: restart to switch it on or off")
	case (l.server == nil) != (lc.TCP != nil):
		return errors.New(": restart to change between HTTP and TCP")
	case l.server != nil && (l.server.MaxHeaderBytes != limits.Header || l.server.ReadHeaderTimeout != limits.HeaderTimeout):
		return errors.New(".limits: restart to change header or header_timeout")
	}
	return nil
}
