package ingress

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/tracing"
)

type metrics struct {
	answers     *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	leaderReads prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_webhook_deliveries_total", Help: "Requests to the webhooks' path by HTTP status and reason.",
		}, []string{"status", "reason"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "devpilot_webhook_ingest_seconds", Help: "Time from the request to its answer, by HTTP status.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 4, 7, 10},
		}, []string{"status"}),
		leaderReads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "devpilot_webhook_leader_reads_total", Help: "Reads from the store's leader before a 404 or 401.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.answers, m.latency, m.leaderReads)
	}
	return m
}

func (m *metrics) observe(ctx context.Context, a *answer, took time.Duration) {
	status := strconv.Itoa(a.status)
	m.answers.WithLabelValues(status, a.reason).Inc()
	tracing.Observe(ctx, m.latency.WithLabelValues(status), took)
}
