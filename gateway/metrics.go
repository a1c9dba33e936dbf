package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a gateway. Every label has a closed set of values: kinds of
// routes, status classes, reasons.
type metrics struct {
	duration *prometheus.HistogramVec // kind, class: requests, upgrades left out
	upgrades *prometheus.CounterVec   // kind
	failures *prometheus.CounterVec   // reason
	sessions *prometheus.GaugeVec     // kind
	bytes    *prometheus.CounterVec   // direction; counted when a connection ends
	retries  prometheus.Counter
	waiting  prometheus.Gauge

	sessionWrites *prometheus.CounterVec // result: login, logout, write, refused
}

// newMetrics makes the metrics and registers them, unless r is nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tandem_gateway_request_duration_seconds", Help: "Time from a request's header to the end of its response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"kind", "class"}),
		upgrades: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_upgrades_total", Help: "Connections that became sockets.",
		}, []string{"kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_failures_total", Help: "Requests and TCP sessions that the gateway refused, answered in another's stead, or cut.",
		}, []string{"reason"}),
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
		sessionWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_gateway_session_writes_total", Help: "Changes of sessions that upstreams asked for.",
		}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.duration, m.upgrades, m.failures, m.sessions, m.bytes, m.retries, m.waiting, m.sessionWrites} {
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
	if x.reason != "" {
		m.failures.WithLabelValues(string(x.reason)).Inc()
	}
	if x.hijacked {
		m.upgrades.WithLabelValues(x.route.kind).Inc()
		return
	}
	m.duration.WithLabelValues(x.route.kind, statusClass(x.status)).Observe(time.Since(x.started).Seconds())
}
