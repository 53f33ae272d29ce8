package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
)

var (
	watchedDesc = prometheus.NewDesc("devpilot_deployer_reconcile_repositories",
		"Repositories whose branches are compared with Bitbucket: those whose last poll answered, and those whose last poll by this process failed.", []string{"state"}, nil)
	ageDesc = prometheus.NewDesc("devpilot_deployer_reconcile_age_seconds",
		"Time since this process last looked at any repository, 0 where there is none to look at.", nil, nil)
	overdueDesc = prometheus.NewDesc("devpilot_deployer_reconcile_overdue_seconds",
		"For how long the repository that has been due for longest has waited for its poll in this process.", nil, nil)
)

// standing counts polls, and tells how the reconciler stands.
type standing struct {
	r     *Reconciler
	polls *prometheus.CounterVec
}

func newStanding(r *Reconciler) *standing {
	m := &standing{r: r, polls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "devpilot_deployer_reconcile_polls_total", Help: "Comparisons of a repository's branches with Bitbucket, by result: answered or failed.",
	}, []string{"result"})}
	for _, result := range []string{"answered", "failed"} {
		m.polls.WithLabelValues(result)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *standing) Describe(ch chan<- *prometheus.Desc) {
	m.polls.Describe(ch)
	for _, d := range []*prometheus.Desc{watchedDesc, ageDesc, overdueDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It asks nobody and walks over nothing.
func (m *standing) Collect(ch chan<- prometheus.Metric) {
	m.polls.Collect(ch)
	r := m.r
	r.mu.Lock()
	watched, failing, looked := len(r.watched), len(r.failing), r.looked
	r.mu.Unlock()
	var age time.Duration
	if watched > 0 {
		age = max(r.cfg.Now().Sub(looked), 0)
	}
	ch <- prometheus.MustNewConstMetric(watchedDesc, prometheus.GaugeValue, float64(watched-failing), "answered")
	ch <- prometheus.MustNewConstMetric(watchedDesc, prometheus.GaugeValue, float64(failing), "failing")
	ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, age.Seconds())
	ch <- prometheus.MustNewConstMetric(overdueDesc, prometheus.GaugeValue, r.loop.Late().Seconds())
}

func (m *standing) poll(err error) {
	result := "answered"
	if err != nil {
		result = "failed"
	}
	m.polls.WithLabelValues(result).Inc()
}

// counted counts what came of pushes that a poll found.
func (r *Reconciler) counted(t *tally) {
	if r.cfg.Found == nil {
		return
	}
	for range t.made {
		r.cfg.Found(verdict.Deploys)
	}
	for range t.proposed {
		r.cfg.Found(verdict.Deciding)
	}
	for range t.turned {
		r.cfg.Found(verdict.Ignored)
	}
}
