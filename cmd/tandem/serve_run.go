package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// availabilityEvery is how often the sockets' view of Redis is compared with
// the subscriptions' health; both are known without I/O.
const availabilityEvery = 100 * time.Millisecond

// lifecycle is what changes while a replica runs.
type lifecycle struct {
	draining atomic.Bool
	informed atomic.Bool // the sockets have been told that Redis is there

	reloading sync.Mutex // one reload at a time; held while files are read
}

// announce says where the replica listens: to people as the start banner, to
// machines as log lines.
func (r *replica) announce(stdout io.Writer) {
	for i, bound := range r.gateway.Addresses() {
		r.log.Info("listening", "url", url(r.cfg.Listeners[i], bound))
	}
	if admin := r.gateway.AdminAddress(); admin != nil {
		r.log.Info("listening", "url", "http://"+admin.String(), "kind", "admin")
	}
	if r.cfg.Log.Format == "json" {
		return
	}
	fmt.Fprintf(stdout, "\n  Tandem is running: open %s\n", url(r.cfg.Listeners[0], r.gateway.Addresses()[0]))
	if r.cfg.Embedded() {
		fmt.Fprintln(stdout, "  Redis is embedded in this process: sessions and documents are gone when it ends.")
	}
	fmt.Fprintln(stdout)
}

// run serves until ctx ends and the drain is over, or something fails.
//
// Everything below the edge outlives ctx: sockets are drained while the
// watcher and the backplane still work, so that what is acknowledged on the
// way out is delivered.
func (r *replica) run(ctx context.Context, reload <-chan os.Signal) error {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(base)
	ended := func(err error) error {
		if base.Err() != nil { // asked to
			return nil
		}
		return err
	}
	g.Go(func() error { return ended(r.watcher.Run(work)) })
	g.Go(func() error { return ended(r.backplane.Run(work)) })
	g.Go(func() error { return ended(r.places.Run(work)) })
	g.Go(func() error { return ended(r.pairs.Run(work)) })
	g.Go(func() error { return ended(r.gateway.Serve(work)) })
	g.Go(func() error { r.followRedis(work); return nil })
	g.Go(func() error { returnMemory(work); return nil })
	g.Go(func() error { r.followReloads(work, reload); return nil })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			r.drain()
		case <-work.Done(): // something failed
		}
		stop()
		return nil
	})
	return g.Wait()
}

// drain parts from every client: not ready, sockets told to come back and
// closed, new ones refused, and then no connection accepted any more and
// requests finished.
func (r *replica) drain() {
	r.log.Info("draining", "timeout", r.cfg.Drain.Timeout)
	r.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Drain.Timeout)
	defer cancel()
	var g errgroup.Group
	parted := make(chan struct{})
	g.Go(func() error {
		defer close(parted)
		return errors.Join(r.hub.Drain(ctx), r.hub.Close()) // members are told while the backplane runs
	})
	g.Go(func() error {
		r.gateway.Drain(ctx)
		select {
		case <-parted:
		case <-ctx.Done(): // Shutdown cuts what is left, the hub's sockets too
		}
		return r.gateway.Shutdown(ctx)
	})
	if err := g.Wait(); err != nil {
		r.log.Warn("drain was cut short", "err", err)
		return
	}
	r.log.Info("drained")
}

// followRedis keeps sockets informed of whether Redis answers and the
// subscriptions deliver, and has everything that hangs on Redis read again
// when it is back.
func (r *replica) followRedis(ctx context.Context) {
	changed := make(chan struct{}, 1)
	remove := r.redis.OnChange(func(up bool) {
		if up {
			r.watcher.Reverify()
			r.backplane.Resync()
			r.pairs.Resync()
		}
		select {
		case changed <- struct{}{}:
		default: // a look is due already
		}
	})
	defer remove()
	ticker := time.NewTicker(availabilityEvery)
	defer ticker.Stop()
	for {
		available := r.redis.Up() && r.watcher.Healthy() == nil && r.backplane.Healthy() == nil && r.pairs.Healthy() == nil
		r.hub.SetAvailable(available)
		r.informed.Store(available)
		select {
		case <-changed:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// followReloads puts the routes and the keys for session values of a changed
// configuration in force. A file with faults changes nothing.
func (r *replica) followReloads(ctx context.Context, reload <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
		}
		if err := r.reload(); err != nil {
			r.log.Error("reload refused, what was in force stays", "err", err)
			continue
		}
		r.log.Info("routes reloaded")
	}
}

// reload puts the configuration in force as it is now, or returns its faults,
// one a line.
func (r *replica) reload() error {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	cfg, err := r.cfg.Reload()
	if err != nil {
		return err
	}
	if err := validate(cfg); err != nil {
		return err
	}
	keys, err := sealKeys(cfg)
	if err != nil {
		return err
	}
	if (keys == nil) != (r.sealKeys == nil) {
		return errors.New("session.seal_keys_file: turning it on or off takes a restart")
	}
	signing, err := signingKeys(cfg)
	if err != nil {
		return err
	}
	if (signing == nil) != (r.signer == nil) {
		return errors.New("assertion.key_files: turning it on or off takes a restart")
	}
	if err := r.gateway.Reload(gatewayListeners(cfg)); err != nil {
		return err
	}
	if signing != nil {
		err = r.signer.Replace(signing...)
	}
	if keys != nil {
		err = errors.Join(err, r.sealKeys.Replace(keys...))
	}
	return err
}
