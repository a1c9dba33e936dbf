package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a gateway. Every label has a closed set of values: listeners,
// routes and targets as they are configured, kinds of routes, status classes,
// reasons. What a reload takes out of the configuration goes: see forget.
type metrics struct {
	duration *prometheus.HistogramVec // listener, route, kind, class: requests, upgrades left out
	upgrades *prometheus.CounterVec   // listener, route, kind
	failures *prometheus.CounterVec   // listener, route, reason
	sessions *prometheus.GaugeVec     // kind
	bytes    *prometheus.CounterVec   // direction; counted when a connection ends
	retries  prometheus.Counter
	waiting  prometheus.Gauge

	answers *prometheus.CounterVec // upstream, class: by targets of HTTP upstreams
	misses  *prometheus.CounterVec // upstream, reason: attempts, TCP's too, that a target did not answer

	sessionWrites *prometheus.CounterVec // result: login, logout, write, refused
}

// newMetrics makes the metrics and registers them, unless r is nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tandem_gateway_request_duration_seconds", Help: "Time from a request's header to the end of its response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"listener", "route", "kind", "class"}),
		upgrades: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_upgrades_total", Help: "Connections that became sockets.",
		}, []string{"listener", "route", "kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_failures_total", Help: "Requests and TCP sessions that the gateway refused, answered in another's stead, or cut.",
		}, []string{"listener", "route", "reason"}),
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tandem_gateway_sessions", Help: "Client connections that are open.",
		}, []string{"kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_bytes_total", Help: "Bytes of client connections that have ended.",
		}, []string{"direction"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_gateway_retries_total", Help: "Requests sent to another target after one had failed.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tandem_gateway_waiting_requests", Help: "Requests that wait for a target with a free place.",
		}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_upstream_responses_total", Help: "Responses of targets, by class of status.",
		}, []string{"upstream", "class"}),
		misses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_upstream_failures_total", Help: "Attempts that a target did not answer, those that another one then did among them.",
		}, []string{"upstream", "reason"}),
		sessionWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_session_writes_total", Help: "Changes of sessions that upstreams asked for.",
		}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.duration, m.upgrades, m.failures, m.sessions, m.bytes, m.retries, m.waiting, m.answers, m.misses, m.sessionWrites} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// statusClass is the class of a status; a connection that was cut before any
// has none.
func statusClass(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	default:
		return "none"
	}
}

// observe counts an exchange that has ended.
func (m *metrics) observe(x *exchange) {
	listener, route := x.session.listener, x.route.name
	if x.reason != "" {
		m.failed(listener, route, x.reason)
		if x.target != nil {
			m.missed(x.target, x.reason) // the rest of its answer
		}
	}
	if x.hijacked {
		m.upgrades.WithLabelValues(listener, route, x.route.kind).Inc()
		return
	}
	m.duration.WithLabelValues(listener, route, x.route.kind, statusClass(x.status)).Observe(time.Since(x.started).Seconds())
}

// failed counts a failure; route is "" where none was found or looked for.
func (m *metrics) failed(listener, route string, why reason) {
	m.failures.WithLabelValues(listener, route, string(why)).Inc()
}

// missed counts an attempt that ended so, if that is the target's doing.
func (m *metrics) missed(t *target, why reason) {
	switch why {
	case reasonConnectFailed, reasonConnectTimeout, reasonSendTimeout, reasonResponseTimeout,
		reasonUpstreamClosed, reasonUpstreamProtocol, reasonUpstreamAborted:
		m.misses.WithLabelValues(t.id, string(why)).Inc()
	}
}

// place is what a table's series are named by: a listener's route, or a target.
type place struct{ listener, route, upstream string }

// places returns those of a listener's table.
func (t *table) places(listener string) map[place]bool {
	all := map[place]bool{{listener: listener}: true}
	for _, r := range t.routes {
		all[place{listener: listener, route: r.name}] = true
		if p, ok := r.handler.(*proxy); ok {
			for _, to := range p.pool.targets {
				all[place{upstream: to.id}] = true
			}
		}
	}
	if t.tcp != nil {
		for _, to := range t.tcp.targets {
			all[place{upstream: to.id}] = true
		}
	}
	return all
}

// forget drops the series of an old table that none in force has. The table
// has no users any more.
func (g *Gateway) forget(address string, old *table) {
	g.mu.Lock()
	closing := g.closing // then no routes are in force, and all series stay
	g.mu.Unlock()
	if closing {
		return
	}
	gone := old.places(address)
	for _, l := range g.current() {
		t := l.acquire()
		for p := range t.places(l.address) {
			delete(gone, p)
		}
		t.users.Done()
	}
	m := g.metrics
	for p := range gone {
		labels := prometheus.Labels{"listener": p.listener, "route": p.route}
		if p.upstream != "" {
			m.answers.DeletePartialMatch(prometheus.Labels{"upstream": p.upstream})
			m.misses.DeletePartialMatch(prometheus.Labels{"upstream": p.upstream})
			continue
		}
		m.duration.DeletePartialMatch(labels)
		m.upgrades.DeletePartialMatch(labels)
		m.failures.DeletePartialMatch(labels)
	}
}
