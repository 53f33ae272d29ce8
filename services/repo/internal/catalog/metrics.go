package catalog

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	fetches  *prometheus.CounterVec
	duration prometheus.Histogram
	served   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_repo_fetches_total",
			Help: "Walks over all Bitbucket workspaces of an account, by outcome: complete, partial or failed.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "devpilot_repo_fetch_duration_seconds",
			Help:    "Time of one walk over all Bitbucket workspaces of an account.",
			Buckets: []float64{.1, .25, .5, 1, 2, 4, 8, 15, 30, 60, 120},
		}),
		served: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_repo_lists_total",
			Help: "Listings of repositories by where the answer came from: fresh, stale, fetched, partial or live.",
		}, []string{"source"}),
	}
	m.fetches = register(reg, m.fetches)
	m.duration = register(reg, m.duration)
	m.served = register(reg, m.served)
	return m
}

// register adds a collector, or returns the one that is already there: two replicas in one test
// process may share a registry.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var dup prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &dup) {
		if there, ok := dup.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}
