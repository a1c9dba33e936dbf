package redisconn

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// idleProbe is how long nothing may have been heard of Redis before it is
	// asked. With two failing probes an outage on an idle replica is noticed
	// within four seconds.
	idleProbe = 2 * time.Second

	// probeTimeout bounds a probe, connecting included.
	probeTimeout = time.Second

	// probeGap is the least time between two probes while Redis is up.
	probeGap = 100 * time.Millisecond

	// While it is down, probes are this far apart, growing, with jitter.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

// monitor knows whether Redis is up.
//
// One goroutine (run) decides. Up to down: something cast doubt (a failed
// command or dial, a reply that did not come, or silence for idleProbe), and a
// probe on a connection of its own failed too. Down to up: a probe succeeded,
// the connections from before are closed, and the clients' pool works again. A
// second goroutine (notify) calls the callbacks, so that a slow one delays no
// probe.
type monitor struct {
	prober  *prober // owned by run once it is started
	log     *slog.Logger
	metrics *metrics
	started time.Time
	dropAll func()        // closes every connection but the prober's
	drop    func(string)  // closes those that were dialled for an address
	relearn func()        // has a cluster's nodes asked who serves what; nil: no cluster
	doubts  chan struct{} // holds one: more doubt is no more reason to probe
	wake    chan struct{} // holds one: changes has entries
	wg      sync.WaitGroup

	down   atomic.Pointer[outage]  // nil: up
	nodes  atomic.Pointer[masters] // never nil: as of the latest probe that succeeded
	heard  atomic.Int64            // when Redis last answered, nanoseconds since started
	client redis.UniversalClient   // set by start

	mu        sync.Mutex
	callbacks []*callback // in order of registration
	changes   []bool      // not yet delivered; two at most, see push
}

type callback struct{ fn func(up bool) }

// outage is one time of being down.
type outage struct {
	err   error // what commands get: why the latest probe failed
	since time.Time
}

func newMonitor(p *prober, log *slog.Logger, m *metrics) *monitor {
	mon := &monitor{
		prober: p, log: log, metrics: m, started: time.Now(),
		doubts: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
	mon.nodes.Store(&masters{})
	return mon
}

// start asks once and keeps asking in the background until ctx ends.
func (m *monitor) start(ctx context.Context, client redis.UniversalClient) {
	m.client = client
	if found, err := m.prober.probe(ctx); err != nil {
		m.down.Store(&outage{err: unavailable(err), since: time.Now()})
		m.log.Warn("redis is not available; waiting for it", "err", err)
	} else {
		m.answered()
		m.learn(found)
	}
	m.metrics.state(m.up())
	m.wg.Go(func() { m.run(ctx) })
	m.wg.Go(func() { m.notify(ctx) })
}

func (m *monitor) wait() { m.wg.Wait() }

func (m *monitor) up() bool { return m.down.Load() == nil }

// answered notes that Redis did.
func (m *monitor) answered() { m.heard.Store(int64(time.Since(m.started))) }

func (m *monitor) silence() time.Duration {
	return time.Since(m.started) - time.Duration(m.heard.Load())
}

// doubt asks for a probe; it never blocks. A cluster may have replaced the
// node that failed: left alone go-redis would go on asking the dead one for a
// minute.
func (m *monitor) doubt() {
	if m.relearn != nil {
		m.relearn()
	}
	select {
	case m.doubts <- struct{}{}:
	default:
	}
}

func (m *monitor) run(ctx context.Context) {
	defer m.prober.close()
	for ctx.Err() == nil {
		if m.up() {
			m.watch(ctx)
		} else {
			m.recover(ctx)
		}
	}
}

// watch returns when Redis is down.
func (m *monitor) watch(ctx context.Context) {
	timer := time.NewTimer(idleProbe)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.doubts:
		case <-timer.C:
			if left := idleProbe - m.silence(); left > 0 && len(m.nodes.Load().away) == 0 {
				timer.Reset(left)
				continue
			}
		}
		found, err := m.prober.probe(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.fall(err)
			}
			return
		}
		m.answered()
		timer.Reset(idleProbe)
		if m.learn(found); len(found.away) > 0 {
			timer.Reset(maxBackoff) // its commands are refused: only a probe can tell when it is back
		}
		sleep(ctx, probeGap)
	}
}

// recover returns when Redis is up.
func (m *monitor) recover(ctx context.Context) {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		if !sleep(ctx, backoff/2+rand.N(backoff/2)) {
			return
		}
		found, err := m.prober.probe(ctx)
		if err == nil {
			// go-redis stops dialling for a second after many failed dials: up
			// means that commands work, so it must be over that.
			m.dropAll()
			_, err = m.prober.ask(withoutRefusal(ctx), m.client)
		}
		if err == nil {
			m.learn(found)
			m.rise()
			return
		}
		m.down.Store(&outage{err: unavailable(err), since: m.down.Load().since}) // refused, then loading, …
	}
}

// learn notes which masters answer. Whoever hung on one that was away is told
// when it is back, or another serves its slots: as after an outage.
func (m *monitor) learn(found masters) {
	before := m.nodes.Swap(&found)
	back := false
	for addr := range before.away {
		if found.away[addr] == nil {
			back = true
			m.drop(addr) // what went to another node in its place, too
			m.log.Info("a master of the redis cluster is back, or replaced", "address", addr)
		}
	}
	for addr, cause := range found.away {
		if before.away[addr] == nil {
			m.log.Warn("a master of the redis cluster is away", "address", addr, "err", cause)
		}
	}
	m.metrics.mastersAway.Set(float64(len(found.away)))
	if back && m.up() {
		m.push(true)
	}
}

func (m *monitor) fall(cause error) {
	m.down.Store(&outage{err: unavailable(cause), since: time.Now()})
	m.nodes.Store(&masters{}) // nobody is asked in the place of another
	m.metrics.mastersAway.Set(0)
	m.log.Warn("redis is down", "err", cause)
	m.metrics.changed(false)
	m.push(false)
}

func (m *monitor) rise() {
	m.answered()
	was := m.down.Swap(nil)
	m.log.Info("redis is up", "after", time.Since(was.since).Round(time.Millisecond))
	m.metrics.changed(true)
	select {
	case <-m.doubts: // of the outage that is over
	default:
	}
	m.push(true)
}

// push queues a change for notify. Whoever is so slow that a third change
// comes has its first two dropped: they cancel each other out.
func (m *monitor) push(up bool) {
	m.mu.Lock()
	if len(m.changes) == 2 {
		m.changes = m.changes[:0]
	}
	m.changes = append(m.changes, up)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// notify delivers changes.
func (m *monitor) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		for {
			up, callbacks := m.next()
			if callbacks == nil {
				break
			}
			for _, cb := range callbacks {
				cb.fn(up)
			}
		}
	}
}

// next takes the oldest change; no callbacks means that there is nothing to do.
func (m *monitor) next() (up bool, callbacks []*callback) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.changes) == 0 {
		return false, nil
	}
	up, m.changes = m.changes[0], append(m.changes[:0], m.changes[1:]...)
	return up, append([]*callback{}, m.callbacks...)
}

func (m *monitor) onChange(fn func(up bool)) (remove func()) {
	cb := &callback{fn}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.callbacks = append(m.callbacks, cb)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, other := range m.callbacks {
			if other == cb {
				m.callbacks = append(m.callbacks[:i:i], m.callbacks[i+1:]...)
				return
			}
		}
	}
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// prober asks Redis on a connection of its own, which says nothing about, and
// is not kept from answering by, the clients' pool. It is not safe for
// concurrent use.
type prober struct {
	open    func() redis.UniversalClient
	timeout time.Duration
	client  redis.UniversalClient // nil: the last probe failed
}

// probe asks over the kept connection, if there is one. When that fails, or a
// master of a Cluster does not answer, it starts from nothing, with a new
// connection and, for Sentinel and Cluster, having looked for the master anew:
// only that tells a dead Redis from a dead connection.
func (p *prober) probe(ctx context.Context) (masters, error) {
	var kept masters
	answered := false
	if p.client != nil {
		var err error
		kept, err = p.ask(ctx, p.client)
		if answered = err == nil; answered && len(kept.away) == 0 {
			return kept, nil
		}
	}
	client := p.open()
	found, err := p.ask(ctx, client)
	if err != nil {
		_ = client.Close()
		if answered { // finding the nodes began with the one that is away
			return kept, nil
		}
		p.close()
		return masters{}, err
	}
	p.close()
	p.client = client
	return found, nil
}

// probeKey never exists, nor do those that begin with it.
const probeKey = "tandem:probe"

// ask sends a write that changes nothing: unlike PING it fails on a replica, on a
// primary without the replicas it must have, and on a cluster that is down.
func (p *prober) ask(ctx context.Context, client redis.UniversalClient) (masters, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return askMasters(ctx, cluster)
	}
	return masters{}, client.Del(ctx, probeKey).Err()
}

func (p *prober) close() {
	if p.client != nil {
		_ = p.client.Close()
		p.client = nil
	}
}
