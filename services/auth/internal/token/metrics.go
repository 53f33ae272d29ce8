package token

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Metrics counts what happens to tokens. Make it with NewMetrics; one per registry.
type Metrics struct {
	refreshes *prometheus.CounterVec
	issued    *prometheus.CounterVec
	probes    *prometheus.CounterVec
	takeovers prometheus.Counter
}

// results of a refresh, as the metric names them.
const (
	resultStored      = "stored"
	resultSpare       = "kept_as_spare"
	resultDropped     = "dropped"
	resultRefused     = "refused"
	resultGivenUp     = "given_up"
	resultUnavailable = "unavailable"
	resultRateLimited = "rate_limited"
	resultOvertaken   = "overtaken"
)

// NewMetrics registers the metrics; reg may be nil. The gauges show all integrations, on every
// replica alike: take the maximum, not the sum.
func NewMetrics(reg prometheus.Registerer, index *Index) (*Metrics, error) {
	m := &Metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_auth_refreshes_total",
			Help: "Token refreshes by result: stored, kept_as_spare, dropped, refused, given_up, unavailable, rate_limited, overtaken.",
		}, []string{"result"}),
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_auth_tokens_issued_total",
			Help: "Access tokens asked for, by result: ok, or the reason of the refusal.",
		}, []string{"result"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_auth_probes_total",
			Help: "Questions after a 401 whether Bitbucket accepts the token elsewhere, by answer: accepted, rejected, undecided, held_back (by our own budget of calls).",
		}, []string{"verdict"}),
		takeovers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "devpilot_auth_lease_takeovers_total",
			Help: "Leases taken over from a process that was silent for too long.",
		}),
	}
	for _, v := range []verdict{undecided, accepted, rejected, heldBack} {
		m.probes.WithLabelValues(v.String()) // there from the start, at 0
	}
	for _, result := range []string{resultStored, resultSpare, resultDropped, resultRefused, resultGivenUp, resultUnavailable, resultRateLimited, resultOvertaken} {
		m.refreshes.WithLabelValues(result)
	}
	if reg == nil {
		return m, nil
	}
	all := []prometheus.Collector{m.refreshes, m.issued, m.probes, m.takeovers}
	for state, name := range map[authstorev1.Schedule_State]string{
		authstorev1.Schedule_CONNECTED:          "CONNECTED",
		authstorev1.Schedule_REFRESH_FAILING:    "REFRESH_FAILING",
		authstorev1.Schedule_RECONNECT_REQUIRED: "RECONNECT_REQUIRED",
	} {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_auth_integrations", Help: "Integrations by state, the same on every replica.",
			ConstLabels: prometheus.Labels{"state": name},
		}, func() float64 { return float64(index.Count()[state]) }))
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the token metrics: %w", err)
	}
	return m, nil
}
