package tracing

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Observe notes a duration in seconds and, where ctx belongs to a trace that is recorded, that trace as its exemplar: from
// a slow bar of a histogram one comes to what was slow. Scrapers see it where they ask for OpenMetrics.
func Observe(ctx context.Context, o prometheus.Observer, took time.Duration) {
	at := trace.SpanContextFromContext(ctx)
	if e, ok := o.(prometheus.ExemplarObserver); ok && at.IsSampled() {
		e.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": at.TraceID().String()})
		return
	}
	o.Observe(took.Seconds())
}
