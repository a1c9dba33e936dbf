package webapp

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/webapp/accounts"
)

// metrics of the web app. The label result has the values of result.
type metrics struct {
	logins, registrations *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (metrics, error) {
	m := metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_webapp_logins_total", Help: "Login attempts by result.",
		}, []string{"result"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_webapp_registrations_total", Help: "Registration attempts by result.",
		}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.logins, m.registrations} {
		if err := r.Register(c); err != nil {
			return metrics{}, fmt.Errorf("webapp: %w", err)
		}
	}
	return m, nil
}

// result is the metric label for how an attempt ended.
func result(err error) string {
	var throttled *accounts.ThrottledError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &throttled):
		return "throttled"
	case errors.Is(err, accounts.ErrBadCredentials):
		return "bad_credentials"
	case errors.Is(err, accounts.ErrBusy):
		return "busy"
	case errors.Is(err, accounts.ErrExists), errors.Is(err, accounts.ErrNotFirst),
		errors.Is(err, accounts.ErrBadName), errors.Is(err, accounts.ErrBadPassword):
		return "refused"
	default:
		return "unavailable"
	}
}
