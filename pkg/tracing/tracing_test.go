package tracing_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/tracing"
)

const kept = "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01"

func TestStart_goesOnWithWhatARecordKeeps(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("x")
	ctx := tracing.Continue(t.Context(), kept)
	if got := tracing.Traceparent(ctx); got != kept {
		t.Errorf("%q", got)
	}
	ctx, span := tracing.Start(ctx, tracer, "fetch", tracing.About{Workspace: "acme", Deployment: 7})
	_, inner := tracing.Start(ctx, tracer, "checkout", tracing.About{})
	inner.End(nil)
	span.End(errors.New("https://user:token@bitbucket.org"))
	ended := spans.Ended()
	if len(ended) != 2 || ended[1].SpanContext().TraceID().String() != kept[3:35] || ended[1].Parent().SpanID().String() != kept[36:52] || ended[0].Parent().SpanID() != ended[1].SpanContext().SpanID() {
		t.Fatalf("%v", ended)
	}
	if s := ended[1].Status(); s.Description != "failed" || len(ended[1].Events()) != 0 {
		t.Errorf("an error's text may hold anything, and leaves the installation: %+v", s)
	}
}

// A duration is noted with the trace that is recorded, and without one as it ever was.
func TestObserve_namesTheTrace(t *testing.T) {
	for parent, want := range map[string]string{kept: kept[3:35], "": "", strings.TrimSuffix(kept, "1") + "0": ""} {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", Buckets: []float64{1, 10}})
		tracing.Observe(tracing.Continue(t.Context(), parent), h, 2*time.Second)
		var m dto.Metric
		if err := h.Write(&m); err != nil {
			t.Fatal(err)
		}
		got := m.GetHistogram()
		if got.GetSampleSum() != 2 || got.GetSampleCount() != 1 {
			t.Errorf("noted %v", got)
		}
		var exemplar string
		for _, label := range got.GetBucket()[1].GetExemplar().GetLabel() {
			exemplar += label.GetValue()
		}
		if exemplar != want {
			t.Errorf("of %q the exemplar is %q", parent, exemplar)
		}
	}
}

// Without a trace that is recorded a span costs nothing, and nothing is stored of it.
func TestStart_costsNothingWithoutATrace(t *testing.T) {
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("x")
	ctx, _ := tracer.Start(context.Background(), "not recorded")
	if !trace.SpanContextFromContext(ctx).IsValid() || tracing.Traceparent(ctx) != "" {
		t.Errorf("stored: %q", tracing.Traceparent(ctx))
	}
	for name, ctx := range map[string]context.Context{"no trace": context.Background(), "not recorded": ctx} {
		if n := testing.AllocsPerRun(100, func() {
			got, span := tracing.Start(tracing.Continue(ctx, ""), tracer, "fetch", tracing.About{Workspace: "acme", App: "web", Deployment: 3})
			if got != ctx {
				t.Error("another context")
			}
			span.End(nil)
			_ = tracing.Traceparent(got)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
