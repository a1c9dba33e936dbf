package ws

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Labels of tandem_ws_broadcasts_total, tandem_ws_dropped_total and of
// lagged frames.
const (
	channelOperations = "operations"
	channelPresence   = "presence"
)

// metrics are the numbers of one hub. They are always counted and registered
// only where there is a registerer. Every label is from a closed set.
type metrics struct {
	states   [stateCount]atomic.Int64 // live connections by state
	peaks    [stateCount]atomic.Int64 // the most of them
	frames   *prometheus.CounterVec   // type
	errors   *prometheus.CounterVec   // code
	refusals *prometheus.CounterVec   // code of the problem document
	closes   *prometheus.CounterVec   // code, reason
	sent     *prometheus.CounterVec   // channel
	dropped  *prometheus.CounterVec   // channel
	appends  *prometheus.CounterVec   // result
	latency  prometheus.Histogram
	repairs  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, h *Hub) (*metrics, error) {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_ws_" + name, Help: help}, labels)
	}
	m := &metrics{
		frames:   vec("frames_received_total", "Frames received from clients, by type.", "type"),
		errors:   vec("errors_total", "Error frames sent, by code.", "code"),
		refusals: vec("refusals_total", "Upgrades refused, by code of the problem document.", "code"),
		closes:   vec("closes_total", "Connections closed, by close code and reason.", "code", "reason"),
		sent:     vec("broadcasts_total", "Broadcast frames handed to documents, by channel.", "channel"),
		dropped:  vec("dropped_total", "Broadcast frames that slow receivers lost, by channel.", "channel"),
		appends:  vec("operations_total", "Operations, by result.", "result"),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_ws_append_seconds", Help: "Time from an operation's turn to its acknowledgement.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_ws_repairs_total", Help: "Reads of a document's log to close a gap in its announcements.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{
		m.frames, m.errors, m.refusals, m.closes, m.sent, m.dropped, m.appends, m.latency, m.repairs,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tandem_ws_connections_peak", Help: "Most connections at once since the start.",
		}, func() float64 { _, peak := h.Counts(); return float64(peak) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tandem_ws_documents", Help: "Documents open on this replica.",
		}, func() float64 { return float64(h.openDocuments()) }),
	}
	for s := range m.states {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tandem_ws_connections", Help: "Live connections, by state.",
			ConstLabels: prometheus.Labels{"state": state(s).String()},
		}, func() float64 { return float64(m.states[s].Load()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tandem_ws_connections_state_peak", Help: "Most connections in a state at once since the start.",
			ConstLabels: prometheus.Labels{"state": state(s).String()},
		}, func() float64 { return float64(m.peaks[s].Load()) }))
	}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// enter counts a connection that comes into a state.
func (m *metrics) enter(s state) {
	n := m.states[s].Add(1)
	for {
		peak := m.peaks[s].Load()
		if n <= peak || m.peaks[s].CompareAndSwap(peak, n) {
			return
		}
	}
}

// leave counts a connection that goes out of a state.
func (m *metrics) leave(s state) { m.states[s].Add(-1) }

func (m *metrics) closed(c closing) {
	m.closes.WithLabelValues(strconv.Itoa(int(c.code)), c.reason).Inc()
}

// appended counts one operation; result is appended, duplicate, unavailable
// or failed.
func (m *metrics) appended(result string, took time.Duration) {
	m.appends.WithLabelValues(result).Inc()
	m.latency.Observe(took.Seconds())
}
