// Package stream is how services use JetStream streams: the connection, the subjects and stream
// definitions, publishing with a deadline, and consuming with attempts counted by our own code.
// Everything here follows from what JetStream was measured to do (DESIGN.md#jetstream); the tests
// hold one case for each of these facts.
//
// It depends on nats.go, OpenTelemetry's propagation, pkg/apierr and pkg/logs. Package kv builds
// buckets on it.
package stream
