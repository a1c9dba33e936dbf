package main

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// buildInfo is a gauge that is always 1 and tells what runs.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tandem_build_info", Help: "Always 1; the labels tell version, commit and Go version.",
	}, []string{"version", "commit", "go"})
	v, c := buildVersion()
	g.WithLabelValues(v, c, runtime.Version()).Set(1)
	return g
}

// pairsAbsent answers routes to pairs, which this version does not serve yet.
func pairsAbsent() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Respond(w, r, problem.Problem{
			Status: http.StatusNotImplemented, Code: "pairs_absent", Detail: "This version of Tandem does not serve pairs.",
		})
	})
}
