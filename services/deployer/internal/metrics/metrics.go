// Package metrics counts what deployments and git cost.
package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the deployer's own metrics; safe for concurrent use.
type Metrics struct {
	runs     *prometheus.CounterVec
	duration *prometheus.HistogramVec
	live     prometheus.Histogram
	git      *prometheus.HistogramVec
}

// New registers the metrics; reg may be nil.
func New(reg prometheus.Registerer, busy func() float64) (*Metrics, error) {
	m := &Metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_runs_total", Help: "Attempts of deployments, by how they ended.",
		}, []string{"result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "devpilot_deployer_run_seconds", Help: "Duration of attempts, by how they ended.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 16),
		}, []string{"result"}),
		live: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "devpilot_deployer_push_to_live_seconds", Help: "From the receipt of a push to its release being live.", Buckets: prometheus.ExponentialBuckets(0.1, 2, 16),
		}),
		git: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "devpilot_deployer_git_seconds", Help: "Duration of git runs.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 16),
		}, []string{"operation", "result"}),
	}
	if reg == nil {
		return m, nil
	}
	running := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "devpilot_deployer_running", Help: "Deployments that run in this process."}, busy)
	var errs []error
	for _, c := range []prometheus.Collector{m.runs, m.duration, m.live, m.git, running} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// Run counts the end of an attempt.
func (m *Metrics) Run(result string, took time.Duration) {
	m.runs.WithLabelValues(result).Inc()
	m.duration.WithLabelValues(result).Observe(took.Seconds())
}

// Live counts a push that went live.
func (m *Metrics) Live(sincePush time.Duration) { m.live.Observe(sincePush.Seconds()) }

// Git counts a run of git.
func (m *Metrics) Git(operation string, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.git.WithLabelValues(operation, result).Observe(took.Seconds())
}
