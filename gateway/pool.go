package gateway

import (
	"context"
	"crypto/tls"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// pool is the targets of one upstream and the connections to them. As a
// RoundTripper it picks the target of each request, and another when that one
// fails it. Safe for concurrent use.
type pool struct {
	// Fixed after construction.
	g         *Gateway
	cfg       Upstream // defaults filled in
	targets   []*target
	transport *http.Transport
	stopCheck context.CancelFunc // nil until start, or without health checks

	turn  atomic.Uint64 // for going round
	queue queue
}

// target is one server of an upstream.
type target struct {
	pool    *pool
	url     *url.URL
	id      string       // of its URL, for the log
	pending atomic.Int64 // requests under way
	sick    atomic.Bool  // by the last active check

	stumbles  atomic.Int64 // requests in a row that it took but did not answer
	ejections atomic.Int64 // in a row
	ejected   atomic.Int64 // until when it is passed over, Unix nanoseconds; 0: it is not
}

// maxResponseHeader bounds what an upstream's response header takes of memory,
// in bytes: sixteen times what a request may have.
const maxResponseHeader = 1 << 20

func newPool(g *Gateway, cfg Upstream) (*pool, error) {
	p := &pool{g: g, cfg: cfg}
	for _, t := range cfg.Targets {
		u, err := parseTarget(t)
		if err != nil {
			return nil, err
		}
		p.targets = append(p.targets, &target{pool: p, url: u, id: u.Host})
	}
	idle := cfg.Timeouts.Idle
	if idle == 0 {
		idle = 90 * time.Second
	}
	p.transport = &http.Transport{
		DialContext:           p.dial,
		ResponseHeaderTimeout: cfg.Timeouts.ResponseHeader,
		TLSHandshakeTimeout:   cfg.Timeouts.Connect,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       idle,
		MaxIdleConnsPerHost:   256, // kept for reuse by one target; more are closed after their request

		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		ReadBufferSize:         8 << 10,
		WriteBufferSize:        8 << 10,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	return p, nil
}

// start begins the health checks.
func (p *pool) start() {
	if p.cfg.Health == nil {
		return
	}
	ctx, cancel := context.WithCancel(p.g.life)
	p.stopCheck = cancel
	for _, t := range p.targets {
		check := func(ctx context.Context) error { return p.check(ctx, t) }
		p.g.running.Go(func() { p.g.watch(ctx, t, p.cfg.Health.Interval, check) })
	}
}

func (p *pool) close() {
	if p.stopCheck != nil {
		p.stopCheck()
	}
	p.transport.CloseIdleConnections()
}

// RoundTrip sends req, an outgoing request of an exchange, to a target.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeFrom(req.Context())
	var tried []*target
	for {
		t, err := p.acquire(req.Context(), x, tried)
		if err != nil {
			return nil, err
		}
		attempt := req
		if tried != nil {
			// The failed attempt may still be looking at its request.
			attempt = req.Clone(req.Context())
		}
		attempt.URL.Scheme, attempt.URL.Host = t.url.Scheme, t.url.Host
		if isUpgrade(req.Header) {
			attempt = withoutSendLimit(attempt)
		}
		res, err := p.transport.RoundTrip(attempt)
		if err == nil {
			t.answered()
			p.g.metrics.answers.WithLabelValues(t.id, statusClass(res.StatusCode)).Inc()
			x.target = t
			return res, nil
		}
		p.release(t)
		why := failureOf(req.Context(), x.body, err)
		p.g.metrics.missed(t, why)
		t.failed(why, time.Now())
		tried = append(tried, t)
		if len(tried) > p.cfg.Retries || len(tried) == len(p.targets) || !mayRetry(req.Method, x.body, why) {
			return nil, err
		}
		p.g.metrics.retries.Inc()
		p.g.log.Debug("trying another target", "request", x.id[0], "upstream", t.id, "reason", why, "err", err)
	}
}

// mayRetry reports whether a request that failed may go to another target:
// nothing of it was sent, or sending it twice does what sending it once does.
// What took too long once is not tried again: the client would wait twice.
func mayRetry(method string, body *clientBody, why reason) bool {
	switch why {
	case reasonConnectFailed, reasonConnectTimeout:
		return !body.touched()
	case reasonUpstreamClosed, reasonUpstreamProtocol:
		safe := method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
		return safe && body == nil
	default:
		return false
	}
}

// pick chooses a target that has not been tried and is not full: among the
// available ones, or among all when none of the others is available. Nil: all
// that it could choose are full.
func (p *pool) pick(x *exchange, tried []*target) *target {
	if len(p.targets) == 1 {
		if p.full(p.targets[0]) {
			return nil
		}
		return p.targets[0]
	}
	var best *target
	var bestScore uint64
	anyUp, bestUp := false, false
	now := time.Now().UnixNano()
	turn := p.turn.Add(1)
	n := uint64(len(p.targets))
	for i := range n {
		t := p.targets[(turn+i)%n]
		if slices.Contains(tried, t) {
			continue
		}
		up := t.available(now)
		anyUp = anyUp || up
		if p.full(t) {
			continue
		}
		score := p.score(x, t)
		if best == nil || up && !bestUp || up == bestUp && score < bestScore {
			best, bestScore, bestUp = t, score, up
		}
	}
	if best == nil || anyUp && !bestUp {
		return nil
	}
	best.probe(now)
	return best
}

// score ranks a target for a request, the lowest wins, the first among
// equals.
func (p *pool) score(x *exchange, t *target) uint64 {
	switch p.cfg.Balance {
	case BalanceLeastRequests:
		return uint64(t.pending.Load())
	case BalanceSessionHash:
		// Rendezvous hashing: when a target goes, only its own sessions move,
		// and every replica moves them to the same place.
		h := fnv.New64a()
		_, _ = io.WriteString(h, t.id)
		_, _ = h.Write([]byte{0})
		_, _ = io.WriteString(h, x.stickyKey())
		return mix(h.Sum64())
	default:
		return 0 // in turn
	}
}

// mix spreads FNV's weak high bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// stickyKey is what session-hash keeps on one target.
func (x *exchange) stickyKey() string {
	if x.who.handle != "" {
		return x.who.handle
	}
	host, _, _ := net.SplitHostPort(x.origin.client)
	return host
}

// Back-off of a target that fails.
const (
	firstEjection = time.Second
	lastEjection  = 30 * time.Second
	mayStumble    = 3 // requests in a row that it took but did not answer
)

func (t *target) available(now int64) bool {
	return !t.sick.Load() && t.ejected.Load() <= now
}

// failed draws the conclusion from a request that the target did not answer.
// Where nobody listens nobody will for the next request; one that took the
// request may have failed that one alone.
func (t *target) failed(why reason, now time.Time) {
	switch why {
	case reasonConnectFailed, reasonConnectTimeout:
		t.eject(now)
	case reasonUpstreamClosed, reasonUpstreamProtocol, reasonResponseTimeout, reasonSendTimeout:
		if t.stumbles.Add(1) >= mayStumble {
			t.eject(now)
		}
	}
}

// eject passes the target over for a while, longer each time in a row.
func (t *target) eject(now time.Time) {
	shift := min(t.ejections.Add(1)-1, 10)
	pause := min(firstEjection<<shift, lastEjection)
	t.ejected.Store(now.Add(pause).UnixNano())
}

// probe lets the request that is about to go to a target after its ejection
// find out for all: until it is known, others pass it over for a while more.
func (t *target) probe(now int64) {
	if end := t.ejected.Load(); end != 0 && end <= now {
		t.ejected.CompareAndSwap(end, now+int64(firstEjection))
	}
}

// answered ends the ejection.
func (t *target) answered() {
	if t.ejections.Load() != 0 {
		t.ejections.Store(0)
		t.ejected.Store(0)
	}
	if t.stumbles.Load() != 0 {
		t.stumbles.Store(0)
	}
}
