// Package tracing carries one trace from a delivery to the last line of its deployment, over all stores in between: what
// is stored remembers the trace in a traceparent (W3C), and who reads it goes on with that.
//
// Spans are made for what belongs to a trace that is recorded, and for nothing else: without one, [Start] is a look into
// the context, which takes no memory, and [Traceparent] is empty, so that nothing is stored.
//
// Depends on the OpenTelemetry API and, for exemplars, on Prometheus' client.
package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

var format = propagation.TraceContext{}

// About says what a span is about, as far as that is known. Never a URL, a name of a branch or a text of
// anybody: what is here leaves the installation.
type About struct {
	Workspace, App, Repository, Webhook string
	Deployment, Delivery                int32
	Hook                                string
	Stage                               string
}

func (a About) attributes() []attribute.KeyValue {
	var out []attribute.KeyValue
	for _, s := range [][2]string{
		{"devpilot.workspace", a.Workspace}, {"devpilot.app", a.App}, {"devpilot.repository", a.Repository}, {"devpilot.webhook", a.Webhook},
		{"devpilot.hook", a.Hook}, {"devpilot.stage", a.Stage},
	} {
		if s[1] != "" {
			out = append(out, attribute.String(s[0], s[1]))
		}
	}
	if a.Deployment != 0 {
		out = append(out, attribute.Int("devpilot.deployment", int(a.Deployment)))
	}
	if a.Delivery != 0 {
		out = append(out, attribute.Int("devpilot.delivery", int(a.Delivery)))
	}
	return out
}

// Span is one that may be recorded. The zero value is not.
type Span struct{ span trace.Span }

// Start begins a span where ctx belongs to a trace that is recorded; tracer may be nil. Otherwise it returns ctx and a
// span that does nothing. The caller ends it.
func Start(ctx context.Context, tracer trace.Tracer, name string, about About) (context.Context, Span) {
	if tracer == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, Span{}
	}
	ctx, span := tracer.Start(ctx, name, trace.WithAttributes(about.attributes()...))
	return ctx, Span{span}
}

// End ends the span. Of an error it keeps that there was one, and not its text.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, "failed")
	}
	s.span.End()
}

// Traceparent is what a record keeps of the trace of ctx; empty where none is recorded.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	format.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// Continue is ctx with the trace that a record keeps; ctx itself where it keeps none.
func Continue(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return format.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
