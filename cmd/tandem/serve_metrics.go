package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
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
