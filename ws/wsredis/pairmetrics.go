package wsredis

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// pairMetrics of one Pairs.
type pairMetrics struct {
	takeovers prometheus.Counter
	reaped    prometheus.Counter
	restarts  prometheus.Counter
}

func newPairMetrics(reg prometheus.Registerer) (*pairMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_backplane_pair_" + name, Help: help})
	}
	m := &pairMetrics{
		takeovers: counter("takeovers_total", "Sides taken over from replicas that had died."),
		reaped:    counter("sides_reaped_total", "Counterparts' sides freed because their replica had died."),
		restarts:  counter("subscription_restarts_total", "Times the subscription to pairs was lost or went deaf."),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.takeovers), reg.Register(m.reaped), reg.Register(m.restarts))
}
