// Package metrics counts what deployments and git cost.
package metrics

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
)

// Metrics are the deployer's own metrics; safe for concurrent use.
type Metrics struct {
	runs     *prometheus.CounterVec
	duration *prometheus.HistogramVec
	live     prometheus.Histogram
	git      *prometheus.HistogramVec
	pushes   *prometheus.CounterVec
	ended    *prometheus.CounterVec
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
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_pushes_total", Help: "Pushes, for each app that they are about, by who decided (delivery, worker, poll) and what came of it (deploys, ignored, repeated, deciding). Those by poll were told of by no delivery.",
		}, []string{"by", "verdict"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_deployments_ended_total", Help: "Deployments that ended, by state: completed, failed, cancelled or superseded.",
		}, []string{"state"}),
	}
	m.start()
	if reg == nil {
		return m, nil
	}
	running := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "devpilot_deployer_running", Help: "Deployments that run in this process."}, busy)
	var errs []error
	for _, c := range []prometheus.Collector{m.runs, m.duration, m.live, m.git, m.pushes, m.ended, running} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// start makes the series that a rate is taken of before anything has happened.
func (m *Metrics) start() {
	for by, verdicts := range map[string][]string{
		verdict.Delivery: {verdict.Deploys, verdict.Ignored, verdict.Repeated, verdict.Deciding},
		verdict.Worker:   {verdict.Deploys, verdict.Ignored, verdict.Repeated},
		verdict.Poll:     {verdict.Deploys, verdict.Ignored, verdict.Deciding},
	} {
		for _, v := range verdicts {
			m.pushes.WithLabelValues(by, v)
		}
	}
	for _, state := range []string{"completed", "failed", "cancelled", "superseded"} {
		m.ended.WithLabelValues(state)
	}
}

// Push counts a verdict about a push; the words are those of package verdict.
func (m *Metrics) Push(by, what string) { m.pushes.WithLabelValues(by, what).Inc() }

// PushBy is Push of one who decides.
func (m *Metrics) PushBy(by string) func(what string) {
	return func(what string) { m.Push(by, what) }
}

// Ended counts a deployment that ended in a state, as DeploymentState words it.
func (m *Metrics) Ended(state string) { m.ended.WithLabelValues(strings.ToLower(state)).Inc() }

// Run counts the end of an attempt.
func (m *Metrics) Run(ctx context.Context, result string, took time.Duration) {
	m.runs.WithLabelValues(result).Inc()
	tracing.Observe(ctx, m.duration.WithLabelValues(result), took)
}

// Live counts a push that went live.
func (m *Metrics) Live(ctx context.Context, sincePush time.Duration) {
	tracing.Observe(ctx, m.live, sincePush)
}

// Git counts a run of git.
func (m *Metrics) Git(operation string, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.git.WithLabelValues(operation, result).Observe(took.Seconds())
}
