package sessionstore

import (
	"github.com/prometheus/client_golang/prometheus"
)

// closeUnverified is the metric label of bindings that ended because Redis
// was away for too long; the other labels are the Reasons.
const closeUnverified = "unverified"

type watchMetrics struct {
	bound    prometheus.Gauge
	verify   prometheus.Histogram
	failures *prometheus.CounterVec // by subscriptionFailure
	closes   *prometheus.CounterVec // by Reason, or closeUnverified
	relisted prometheus.Counter
}

func newWatchMetrics(registry prometheus.Registerer) (*watchMetrics, error) {
	m := &watchMetrics{
		bound: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tandem_sessions_bound",
			Help: "Sessions that sockets of this replica are bound to.",
		}),
		verify: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tandem_sessions_verify_seconds",
			Help:    "Time to compare all bound sessions with Redis.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_sessions_subscription_failures_total",
			Help: "Times the subscription to session news broke or could not be made. After each the bound sessions are verified.",
		}, []string{"reason"}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_sessions_bindings_ended_total",
			Help: "Socket bindings that the end of their session ended.",
		}, []string{"reason"}),
		relisted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_sessions_relisted_total",
			Help: "Bound sessions whose record or place in the user's index was lost, and written again.",
		}),
	}
	for _, cause := range []subscriptionFailure{failedConnection, failedProbe} {
		m.failures.WithLabelValues(string(cause))
	}
	for _, reason := range []string{
		string(ReasonLogout), string(ReasonRevoked), string(ReasonExpired), string(ReasonGone), closeUnverified,
	} {
		m.closes.WithLabelValues(reason)
	}
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.bound, m.verify, m.failures, m.closes, m.relisted} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
