package ws

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// pairMetrics are the numbers of pairs that the hub's do not have.
type pairMetrics struct {
	sides       [2]atomic.Int64 // waiting, paired
	messages    prometheus.Counter
	undelivered prometheus.Counter
}

const (
	sideWaiting = iota
	sidePaired
)

func newPairMetrics(reg prometheus.Registerer) (*pairMetrics, error) {
	m := &pairMetrics{
		messages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_ws_pair_messages_total", Help: "Messages of pairs that were numbered.",
		}),
		undelivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_ws_pair_undelivered_total", Help: "Messages whose receiver left before they reached it.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	err := errors.Join(reg.Register(m.messages), reg.Register(m.undelivered))
	for i, state := range []string{"waiting", "paired"} {
		err = errors.Join(err, reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tandem_ws_pair_sides", Help: "Sides of pairs that are held here, by state.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(m.sides[i].Load()) })))
	}
	return m, err
}
