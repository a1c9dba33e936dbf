package sessionstore

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// factoryMetrics count what becomes of sessions. Every label has a closed
// set of values.
type factoryMetrics struct {
	loads, saves, ended, rotations *prometheus.CounterVec
	loadsOK                        prometheus.Counter // the one of loads that counts most
	conflicts, adopted, touches    prometheus.Counter
	buried                         prometheus.Counter
}

func newFactoryMetrics(r prometheus.Registerer) (*factoryMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tandem", Subsystem: "sessions", Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tandem", Subsystem: "sessions", Name: name, Help: help}, []string{label})
	}
	m := &factoryMetrics{
		loads:     vec("loads_total", "Sessions that clients presented, by result.", "result"),
		saves:     vec("saves_total", "Writes of sessions, by result.", "result"),
		ended:     vec("ended_total", "Sessions ended, by reason.", "reason"),
		rotations: vec("rotations_total", "Session IDs replaced, by cause.", "cause"),
		conflicts: counter("conflicts_total", "Saves that were made again because somebody else wrote meanwhile."),
		adopted:   counter("adopted_total", "Sessions of other applications that were given a handle."),
		touches:   counter("touches_total", "Renewals of an idle timeout."),
		buried:    counter("buried_total", "Values of ended sessions that a late writer had brought back."),
	}
	m.loadsOK = m.loads.WithLabelValues(result(nil))
	for _, reason := range []Reason{ReasonLogout, ReasonRevoked, ReasonExpired, ReasonGone} {
		m.ended.WithLabelValues(string(reason))
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.loads, m.saves, m.ended, m.rotations, m.conflicts, m.adopted, m.touches, m.buried} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *factoryMetrics) loaded(err error) {
	if err == nil {
		m.loadsOK.Inc()
		return
	}
	m.loads.WithLabelValues(result(err)).Inc()
}

func (m *factoryMetrics) saved(err error) { m.saves.WithLabelValues(result(err)).Inc() }

func (m *factoryMetrics) rotated(login *Login) {
	cause := "privilege"
	if login != nil {
		cause = "login"
	}
	m.rotations.WithLabelValues(cause).Inc()
}

// result names an error for a metric.
func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrEnded):
		return "ended"
	case errors.Is(err, ErrUndecodable):
		return "undecodable"
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	default:
		return "failed"
	}
}
