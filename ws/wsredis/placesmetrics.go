package wsredis

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// placesMetrics are the numbers of Places. The label is from the closed set
// result*.
type placesMetrics struct {
	takes     *prometheus.CounterVec
	rewritten prometheus.Counter
}

// How a Take ended.
const (
	resultTaken   = "taken"
	resultRefused = "refused"
	resultLocal   = "local" // Redis did not answer: this replica decided
)

func newPlacesMetrics(reg prometheus.Registerer) (*placesMetrics, error) {
	m := &placesMetrics{
		takes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_places_total", Help: "Connections that asked for a place of their session and user, by result.",
		}, []string{"result"}),
		rewritten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_places_rewritten_total", Help: "Times Redis had lost the count of this replica's connections.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.takes), reg.Register(m.rewritten))
}
