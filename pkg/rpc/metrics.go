package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"devpilot.io/bitbucket/pkg/tracing"
)

// buckets reach from a cached answer to the longest deadline.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// serverMetrics counts the calls that a service serves.
type serverMetrics struct {
	service  string
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
}

func newServerMetrics(reg prometheus.Registerer, service string) (*serverMetrics, error) {
	m := &serverMetrics{
		service: service,
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "devpilot_rpc_server_duration_seconds", Help: "Time to serve an RPC, by method and gRPC code.", Buckets: buckets,
		}, []string{"service", "method", "code"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_rpc_server_in_flight", Help: "RPCs being served.",
		}, []string{"service", "method"}),
	}
	var err error
	if m.duration, err = register(reg, m.duration); err != nil {
		return nil, err
	}
	m.inFlight, err = register(reg, m.inFlight)
	return m, err
}

// begin counts a call in; the returned function counts it out.
func (m *serverMetrics) begin(ctx context.Context, method string) func(codes.Code, time.Duration) {
	g := m.inFlight.WithLabelValues(m.service, method)
	g.Inc()
	return func(c codes.Code, d time.Duration) {
		g.Dec()
		tracing.Observe(ctx, m.duration.WithLabelValues(m.service, method, c.String()), d)
	}
}

// clientMetrics counts the calls that a service makes.
type clientMetrics struct {
	service  string
	duration *prometheus.HistogramVec
}

func newClientMetrics(reg prometheus.Registerer, service string) (*clientMetrics, error) {
	d, err := register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "devpilot_rpc_client_duration_seconds", Help: "Time until an RPC to another service was answered, retries included, by method and gRPC code.", Buckets: buckets,
	}, []string{"service", "method", "code"}))
	return &clientMetrics{service: service, duration: d}, err
}

func (m *clientMetrics) observe(ctx context.Context, method string, c codes.Code, d time.Duration) {
	tracing.Observe(ctx, m.duration.WithLabelValues(m.service, method, c.String()), d)
}

// register registers a collector, or returns the one that is registered under its name: the five
// services of one process share a registry, told apart by the label service. A nil registerer
// keeps the collector unregistered.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	if reg == nil {
		return c, nil
	}
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if have, ok := already.ExistingCollector.(C); ok {
			return have, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("rpc: register metrics: %w", err)
	}
	return c, nil
}
