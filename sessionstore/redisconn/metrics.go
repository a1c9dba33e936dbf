package redisconn

import "github.com/prometheus/client_golang/prometheus"

// Results of the idle check: the label of tandem_redis_idle_checks_total. All
// but ok mean that the connection was replaced before its command.
const (
	checkOK       = "ok"       // pinged, answered
	checkFailed   = "failed"   // pinged, not answered
	checkPresumed = "presumed" // dropped unasked after another's failure
	checkClosed   = "closed"   // Redis had closed it
)

type metrics struct {
	upGauge     prometheus.Gauge
	mastersAway prometheus.Gauge
	changes     *prometheus.CounterVec // to
	refusals    prometheus.Counter
	errors      *prometheus.CounterVec // class
	idleChecks  *prometheus.CounterVec // result
	dials       *prometheus.CounterVec // result
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help, label string, values ...string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			vec.WithLabelValues(value) // shown as 0 from the start
		}
		return vec
	}
	m := &metrics{
		upGauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tandem_redis_up", Help: "1 while Redis answers and takes writes.",
		}),
		mastersAway: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tandem_redis_masters_away", Help: "Masters of the Cluster that do not answer while others do.",
		}),
		changes: counter("tandem_redis_state_changes_total", "Times Redis went up or down.", "to", "up", "down"),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_redis_fail_fast_total", Help: "Commands refused at once because Redis was down.",
		}),
		errors: counter("tandem_redis_errors_total", "Commands that Redis did not answer, by what kept it.", "class"),
		idleChecks: counter("tandem_redis_idle_checks_total", "Connections pinged or found dead before use.", "result",
			checkOK, checkFailed, checkPresumed, checkClosed),
		dials: counter("tandem_redis_dials_total", "Connections made to Redis or a Sentinel.", "result", "ok", "failed"),
	}
	for _, cls := range classes {
		m.errors.WithLabelValues(string(cls))
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.upGauge, m.mastersAway, m.changes, m.refusals, m.errors, m.idleChecks, m.dials} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) checked(result string) { m.idleChecks.WithLabelValues(result).Inc() }
func (m *metrics) refused()              { m.refusals.Inc() }
func (m *metrics) failed(cls class)      { m.errors.WithLabelValues(string(cls)).Inc() }

func (m *metrics) dialed(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.dials.WithLabelValues(result).Inc()
}

// state is set before the first change without counting one.
func (m *metrics) state(up bool) {
	value := 0.0
	if up {
		value = 1
	}
	m.upGauge.Set(value)
}

func (m *metrics) changed(up bool) {
	m.state(up)
	to := "down"
	if up {
		to = "up"
	}
	m.changes.WithLabelValues(to).Inc()
}
