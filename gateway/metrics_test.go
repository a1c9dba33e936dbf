package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// series returns the counters of a collector by their labels, "a=1,b=2" in
// the order of the names.
func series(c prometheus.Collector) map[string]float64 {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		panic(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			n := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()) // one of them
			all[strings.Join(labels, ",")] = n
		}
	}
	return all
}

// total is the sum of the series with a label's value.
func total(c prometheus.Collector, label, value string) (sum float64) {
	for labels, n := range series(c) {
		if strings.Contains(","+labels+",", ","+label+"="+value+",") {
			sum += n
		}
	}
	return sum
}

// What is counted is told apart by route and target, and what a reload took
// away is counted no longer.
func TestMetricsByRouteAndTarget(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/cut") {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	target := strings.TrimPrefix(up.URL, "http://")
	dead := deadAddress(t)
	left := Route{Path: "/left/", Upstream: &Upstream{Targets: []string{"http://" + dead, up.URL}, Balance: BalanceRoundRobin, Retries: 1}}
	right := Route{Path: "/right/", Upstream: &Upstream{Targets: []string{up.URL}}}
	g := start(t, routes(left, right))
	for range 3 {
		get(t, g.url()+"/left/")
	}
	get(t, g.url()+"/right/")
	get(t, g.url()+"/nowhere")
	if res, err := http.Get(g.url() + "/right/cut"); err == nil {
		_, _ = io.Copy(io.Discard, res.Body) // until it is cut: leaving before would be the client's doing
		_ = res.Body.Close()
	}
	m := g.metrics
	eventually(t, "the cut response", func() bool { return g.failures(reasonUpstreamAborted) == 1 })
	for _, c := range []struct {
		of     prometheus.Collector
		labels string
		want   float64
	}{
		{m.duration, "class=2xx,kind=upstream,listener=127.0.0.1:0,route=/left/", 3},
		{m.duration, "class=2xx,kind=upstream,listener=127.0.0.1:0,route=/right/", 2},
		{m.duration, "class=4xx,kind=none,listener=127.0.0.1:0,route=", 1},
		{m.failures, "listener=127.0.0.1:0,reason=no_route,route=", 1},
		{m.failures, "listener=127.0.0.1:0,reason=upstream_aborted,route=/right/", 1},
		{m.answers, "class=2xx,upstream=" + target, 5},
		{m.misses, "reason=connect_failed,upstream=" + dead, 1},
		{m.misses, "reason=upstream_aborted,upstream=" + target, 1},
	} {
		if all := series(c.of); all[c.labels] != c.want {
			t.Errorf("%s: %v, want %v; there are %v", c.labels, all[c.labels], c.want, all)
		}
	}

	if err := g.Reload(routes(right).Listeners); err != nil {
		t.Fatal(err)
	}
	eventually(t, "forgotten", func() bool {
		return total(m.duration, "route", "/left/")+total(m.misses, "upstream", dead) == 0
	})
	if n := total(m.answers, "upstream", target); n != 5 {
		t.Errorf("%v answers of the target that stayed", n)
	}
	if n := total(m.duration, "route", "/right/"); n != 2 {
		t.Errorf("%v requests of the route that stayed", n)
	}
}
