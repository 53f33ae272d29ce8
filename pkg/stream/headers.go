package stream

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"

	"devpilot.io/bitbucket/pkg/logs"
)

// HeaderRequestID carries the id of the request that caused a message.
const HeaderRequestID = "Devpilot-Request-Id"

// traceContext is the W3C format; naming it here keeps messages readable by any service, whatever
// the process-wide propagator is.
var traceContext = propagation.TraceContext{}

// WithRequestID returns a context whose request id InjectHeaders writes. It is the id that pkg/rpc
// and the log lines use too.
func WithRequestID(ctx context.Context, id string) context.Context {
	return logs.WithRequestID(ctx, id)
}

// RequestID is the request id of ctx, or empty.
func RequestID(ctx context.Context) string { return logs.RequestID(ctx) }

// InjectHeaders writes the trace context and the request id of ctx into h.
func InjectHeaders(ctx context.Context, h nats.Header) {
	traceContext.Inject(ctx, propagation.HeaderCarrier(h))
	if id := RequestID(ctx); id != "" {
		h.Set(HeaderRequestID, id)
	}
}

// ExtractContext returns ctx with the trace context and the request id that h carries.
func ExtractContext(ctx context.Context, h nats.Header) context.Context {
	if h == nil {
		return ctx
	}
	ctx = traceContext.Extract(ctx, propagation.HeaderCarrier(h))
	if id := h.Get(HeaderRequestID); id != "" {
		ctx = WithRequestID(ctx, id)
	}
	return ctx
}
