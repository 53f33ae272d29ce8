package ops

import (
	"context"
	"fmt"
	"os"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// tracingOn tells whether OpenTelemetry's own variables name who traces are sent to.
func tracingOn() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// NewTracing makes the tracer provider of a service. Spans are exported by OTLP over gRPC only where
// OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set (sampling as OTEL_TRACES_SAMPLER and
// OTEL_TRACES_SAMPLER_ARG say: all, where they do not); otherwise none is recorded, but trace ids are still made and
// passed on, so that logs of one request belong together. Call Shutdown on the provider to flush.
func NewTracing(ctx context.Context, service, version string) (*sdktrace.TracerProvider, error) {
	if !tracingOn() {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), nil
	}
	exporter, err := otlptracegrpc.New(ctx) // connects in the background
	if err != nil {
		return nil, fmt.Errorf("ops: trace exporter: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "devpilot-"+service), attribute.String("service.version", version),
	), resource.WithFromEnv()) // what the operator says comes last
	if err != nil {
		return nil, fmt.Errorf("ops: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about)), nil
}
