package wsredis

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one Backplane. Labels come from closed sets: kind* for
// announcements, gap* for gaps.
type metrics struct {
	announcements *prometheus.CounterVec
	gaps          *prometheus.CounterVec
	subscriptions prometheus.Gauge
	restarts      prometheus.Counter
	refilled      prometheus.Counter
	reaped        prometheus.Counter
}

// Reasons of a Gap.
const (
	gapResubscribed = "resubscribed" // the subscription was cut
	gapEpoch        = "epoch"        // the log began a new epoch
	gapMissed       = "missed"       // the log is ahead of what was delivered
	gapInvalid      = "invalid"      // an announcement could not be read
	gapResync       = "resync"       // Redis had been away
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		announcements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_backplane_announcements_total",
			Help: "Announcements received from the other replicas and this one.",
		}, []string{"kind"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_backplane_gaps_total",
			Help: "Times a document was told to read its log and members again.",
		}, []string{"reason"}),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tandem_backplane_subscriptions",
			Help: "Documents subscribed to.",
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_backplane_subscription_restarts_total",
			Help: "Times the subscription's connection was lost or went deaf.",
		}),
		refilled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_backplane_members_refilled_total",
			Help: "Members of this replica that Redis had lost.",
		}),
		reaped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_backplane_members_reaped_total",
			Help: "Members of dead replicas that this one removed.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(
		reg.Register(m.announcements), reg.Register(m.gaps), reg.Register(m.subscriptions),
		reg.Register(m.restarts), reg.Register(m.refilled), reg.Register(m.reaped))
}
