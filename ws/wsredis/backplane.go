// Package wsredis is the ws.Backplane over Redis: streams hold the logs of
// documents, hashes their members, and pub/sub announces both. Pub/sub is a
// hint; what it may have lost is found by the tick and read from the truth.
//
// Each atomic step is one Lua file. They run on Redis 7.0 and later,
// standalone or Cluster, and on miniredis. keys.go lists all that is in Redis.
package wsredis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/ws"
)

// Config says how a Backplane works. Negative durations and counts are errors.
type Config struct {
	// Client talks to Redis. Required; it should have ContextTimeoutEnabled.
	// The Backplane does not close it.
	Client redis.UniversalClient

	// Replica names this process in logs and leases. Required. It need not be
	// unique: each Backplane adds a random incarnation.
	Replica string

	// KeepOperations is the length to which a log is trimmed; from 1,000 on
	// roughly: Redis trims by blocks of up to 100 entries. 0 means 10,000.
	KeepOperations int

	// Tick is the interval of lease renewals and delivery probes; open
	// documents are checked every second one, and at the next when
	// announcements were under way at the last. 0 means 3 s.
	Tick time.Duration

	// Lease is how long members outlive a replica that died; at least three
	// ticks. 0 means three ticks.
	Lease time.Duration

	// Retention is the life of a document since its last write, while nobody
	// is in it; at least a second. 0 means 30 days.
	Retention time.Duration

	Logger  *slog.Logger          // nil: no log
	Metrics prometheus.Registerer // nil: not registered
}

func (c Config) withDefaults() (Config, error) {
	if c.Client == nil || c.Replica == "" {
		return c, errors.New("wsredis: Client and Replica are required")
	}
	if c.KeepOperations < 0 || c.Tick < 0 || c.Lease < 0 || c.Retention < 0 {
		return c, errors.New("wsredis: negative setting")
	}
	if c.KeepOperations == 0 {
		c.KeepOperations = 10_000
	}
	if c.Tick == 0 {
		c.Tick = 3 * time.Second
	}
	if c.Lease == 0 {
		c.Lease = 3 * c.Tick
	}
	if c.Lease < 3*c.Tick {
		return c, fmt.Errorf("wsredis: Lease %s is shorter than three ticks of %s", c.Lease, c.Tick)
	}
	if c.Retention == 0 {
		c.Retention = 30 * 24 * time.Hour
	}
	if c.Retention < time.Second {
		return c, fmt.Errorf("wsredis: Retention %s is shorter than 1s", c.Retention)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Backplane implements ws.Backplane. Safe for concurrent use. Subscribe works
// only while Run does.
type Backplane struct {
	// Fixed after construction.
	client      redis.UniversalClient
	incarnation string // the replica's name and a random part
	keep        int
	tick        time.Duration
	retention   time.Duration
	logger      *slog.Logger
	metrics     *metrics
	appends     *redisconn.Convoy
	subs        *subscriptions
	leases      *leases
	presence    *presence
	wake        chan struct{} // capacity 1: the tick is wanted now
	durable     atomic.Value  // string: whether Redis answers a write when it is on its disk
}

var _ ws.Backplane = (*Backplane)(nil)

// New makes a Backplane. It does no I/O and starts no goroutine; Run does.
func New(cfg Config) (*Backplane, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("wsredis: %w", err)
	}
	b := &Backplane{
		client:      cfg.Client,
		incarnation: cfg.Replica + "." + strings.ToLower(rand.Text()[:10]),
		keep:        cfg.KeepOperations,
		tick:        cfg.Tick,
		retention:   cfg.Retention,
		logger:      cfg.Logger,
		metrics:     m,
		appends:     redisconn.NewConvoy(cfg.Client, appendTrips),
		wake:        make(chan struct{}, 1),
	}
	b.durable.Store("")
	b.subs = newSubscriptions(b.client, probeChannel(b.incarnation), cfg.Tick, cfg.Logger, m)
	b.subs.urgent, b.subs.told = b.wakeUp, b.heard
	b.leases = newLeases(b.client, b.incarnation, cfg.Lease, cfg.Tick)
	b.presence = newPresence(b.client, b.leases)
	return b, nil
}

// Run keeps the subscription, the lease and open documents in order until ctx
// ends. Then it takes away members that are left, but for those that are away,
// and the lease, and returns after its goroutines. It is called once, and
// always returns nil.
func (b *Backplane) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { b.subs.run(ctx) })
	wg.Go(func() { b.maintain(ctx) })
	wg.Wait()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.tick)
	defer cancel()
	if err := b.presence.release(ctx); err != nil {
		b.logger.Warn("members of this replica stay until its lease ends", "err", err)
	}
	return nil
}

// Resync says that Redis is back after it was away: all receivers get a Gap,
// and subscription, presence and lease are put right at once. It does not
// block.
func (b *Backplane) Resync() {
	b.subs.resync()
	b.wakeUp()
}

// Healthy returns nil while announcements are known to arrive: this replica
// heard itself lately.
func (b *Backplane) Healthy() error { return b.subs.healthy() }

// Subscribe implements ws.Backplane. It waits until Redis has confirmed the
// subscription, or until ctx ends.
func (b *Backplane) Subscribe(ctx context.Context, document string, r ws.Receiver) (func(), error) {
	return b.subs.subscribe(ctx, document, r)
}

// heard follows what another replica says of members of this one: that they
// were replaced.
func (b *Backplane) heard(document, replica string, change ws.PresenceChange) {
	if replica != b.incarnation {
		b.presence.cede(document, change.Left)
	}
}

func (b *Backplane) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default: // it is awake
	}
}
