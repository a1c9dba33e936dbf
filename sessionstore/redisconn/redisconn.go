// Package redisconn opens Redis by URL and keeps the connection honest.
//
// It adds three things to a go-redis client and nothing else:
//
//   - The idle check (guard.go): a pooled connection that was idle for longer
//     than Config.CheckEvery is pinged before it is used; a dead one is
//     replaced before the command is written, so that no retry is needed.
//     Connections in use are never pinged.
//   - The state (monitor.go): is Redis up? While it is down every command
//     fails at once instead of waiting for a time-out, and one goroutine finds
//     out when it is back.
//   - One error (errors.go): whatever keeps Redis from answering matches
//     ErrUnavailable.
package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Config says which Redis to open and how patient to be with it.
type Config struct {
	// URL is required. Its forms are those of the redis setting:
	//
	//	redis://[user:password@]host[:6379][/db]            rediss://…
	//	redis+sentinel://[…@]host[:26379],host…/master[/db] rediss+sentinel://…
	//	redis+cluster://[…@]host[:6379],host…               rediss+cluster://…
	//	embedded:
	//
	// Query: ca_file=PEM file, insecure_skip_verify=true (rediss only),
	// pool_size=connections a node at most (10 a CPU, at least 64),
	// sentinel_username and sentinel_password.
	URL string

	// CheckEvery is how long a connection may be idle before it is pinged
	// when it is used next. 0: 20 s. Negative: never ping.
	CheckEvery time.Duration

	// DialTimeout bounds making a connection, its TLS handshake included.
	// 0: 1 s. Negative: an error.
	DialTimeout time.Duration

	// CommandTimeout bounds each attempt at a command, and the wait for a free
	// connection. A command is attempted twice at most, so that a page answers
	// after twice that when Redis falls silent. 0: 1 s. Negative: an error.
	CommandTimeout time.Duration

	// TLS is used by the rediss forms. Nil: the system's roots. What the URL
	// says comes on top of a copy of it.
	TLS *tls.Config

	// Logger gets state changes and, at debug level, what go-redis says.
	// Nil: nothing is logged.
	Logger *slog.Logger

	// Metrics gets the tandem_redis_… metrics. Nil: none.
	Metrics prometheus.Registerer
}

// Defaults of Config.
const (
	defaultCheckEvery = 20 * time.Second
	defaultTimeout    = time.Second
)

func (cfg *Config) setDefaults() error {
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = defaultCheckEvery
	}
	if cfg.DialTimeout < 0 || cfg.CommandTimeout < 0 {
		return errors.New("redisconn: DialTimeout and CommandTimeout must not be negative")
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = defaultTimeout
	}
	if cfg.CommandTimeout == 0 {
		cfg.CommandTimeout = defaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Conn is one Redis, opened. It is safe for concurrent use.
type Conn struct {
	client    redis.UniversalClient
	guard     *guard
	monitor   *monitor
	newProber func() *prober
	embedded  *miniredis.Miniredis // nil: a Redis of its own
	clock     sync.WaitGroup       // of the embedded one

	stop context.CancelFunc // ends the monitor and dials under way
	once sync.Once
	err  error // Close's
}

// errNotNeeded ends a dial to a stand-in.
var errNotNeeded = errors.New("redisconn: the master that was away is back")

// Open opens the Redis that cfg names. It does not need to be there: Open asks
// it once, for a second at most, so that Up tells the truth right away, and
// goes on without it. An error means that cfg is wrong.
//
// go-redis has one logger per process; Open points it at cfg.Logger.
func Open(cfg Config) (*Conn, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	tgt, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := tgt.tlsConfig(cfg.TLS)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("redisconn: register metrics: %w", err)
	}
	redis.SetLogger(redisLogger{cfg.Logger})

	life, stop := context.WithCancel(context.Background())
	c := &Conn{stop: stop}
	d := &dialer{life: life, timeout: cfg.DialTimeout, tls: tlsConfig, metrics: m}
	if tgt.kind == kindEmbedded {
		if c.embedded, err = startEmbedded(); err != nil {
			stop()
			return nil, fmt.Errorf("redisconn: embedded Redis: %w", err)
		}
		c.clock.Go(func() { runClock(life, c.embedded) })
		d.embedded = c.embedded
		cfg.Logger.Warn("embedded redis: sessions and documents live in this process only and are lost when it ends")
	}
	opts := options{target: tgt, dial: d.dial, timeout: cfg.CommandTimeout, dialTimeout: cfg.DialTimeout}
	probing := opts.probing()
	c.newProber = func() *prober {
		return &prober{open: probing.client, timeout: min(probeTimeout, cfg.CommandTimeout)}
	}
	c.monitor = newMonitor(c.newProber(), cfg.Logger, m)
	c.guard = newGuard(cfg.CheckEvery, cfg.CommandTimeout/2, c.monitor.doubt, m)
	c.monitor.dropAll, c.monitor.drop = c.guard.dropAll, c.guard.drop
	opts.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		// Commands for a master that is away are refused before this: what
		// dials it is a subscription, which can be on any node.
		standIn := c.monitor.nodes.Load().standIn(addr)
		conn, err := d.dial(ctx, network, standIn)
		if err != nil {
			c.monitor.doubt() // subscriptions dial out of the hook's sight
			return nil, err
		}
		wrapped := c.guard.wrap(conn, addr)
		if standIn != addr && c.monitor.nodes.Load().standIn(addr) != standIn { // and monitor.learn has not seen it
			_ = wrapped.Close()
			return nil, errNotNeeded
		}
		return wrapped, nil
	}
	c.client = opts.client()
	cluster, _ := c.client.(*redis.ClusterClient)
	c.client.AddHook(hook{monitor: c.monitor, metrics: m, cluster: cluster})
	if cluster != nil {
		cluster.OnNewNode(func(node *redis.Client) {
			node.AddHook(hook{monitor: c.monitor, metrics: m, node: node.Options().Addr})
		})
		c.monitor.relearn = func() { cluster.ReloadState(context.Background()) }
	}
	c.monitor.start(life, c.client)
	return c, nil
}

// Client returns the client to run commands with. Its errors match
// ErrUnavailable when Redis did not answer. It is closed by Close only.
func (c *Conn) Client() redis.UniversalClient { return c.client }

// Up tells whether commands are worth trying: Redis answered lately and takes
// writes. Of a Cluster any master that does is enough: commands for one that
// is away fail at once with ErrUnavailable.
func (c *Conn) Up() bool { return c.monitor.up() }

// OnChange has fn called after each change of Up, with the new value, from one
// goroutine and in order; and with true once more when a master of a Cluster
// that was away is back, or replaced. A fn so slow that Redis changed twice
// meanwhile sees down, then up, once. Register first, then read Up: no change
// is missed.
//
// remove may return while fn still runs. fn must not call Close.
func (c *Conn) OnChange(fn func(up bool)) (remove func()) { return c.monitor.onChange(fn) }

// Ping asks Redis over a new connection, also while it is down, and waits for a
// second at most. Nil means that Redis answers and takes writes. It looks for the
// masters of a Cluster anew, and fails when it begins with a silent node.
func (c *Conn) Ping(ctx context.Context) error {
	p := c.newProber()
	defer p.close()
	_, err := p.probe(ctx)
	if classify(ctx, err) == classNone {
		return err
	}
	return unavailable(err)
}

// Embedded tells whether this Redis lives in this process.
func (c *Conn) Embedded() bool { return c.embedded != nil }

// Close closes every connection and returns after the last OnChange call.
// Commands fail with ErrUnavailable from then on.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.stop()
		c.monitor.wait()
		c.guard.closing.Store(true)
		c.err = c.client.Close()
		c.clock.Wait()
		if c.embedded != nil {
			c.embedded.Close()
		}
	})
	return c.err
}

// redisLogger passes what go-redis wants to say on at debug level: whatever
// of it matters is told by the monitor, once and in our words.
type redisLogger struct{ log *slog.Logger }

func (l redisLogger) Printf(ctx context.Context, format string, v ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "go-redis: "+fmt.Sprintf(format, v...))
	}
}
