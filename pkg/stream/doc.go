// Package stream is how services use JetStream streams: the connection, the subjects and stream
// definitions, publishing with a deadline, and consuming with attempts counted by our own code.
// Everything here follows from what JetStream was measured to do (DESIGN.md#jetstream); the tests
// hold one case for each of these facts.
//
// The streams that one service alone uses are that service's (the inbox is webhook's; wake-ups, logs of
// deployments and outcomes on their way to webhook, by a call, are the deployer's). Two stand here, because two services that may not import each
// other must agree on the name, the subjects and the settings, and each of them makes the stream when it
// is the first to start:
//
//	push events     webhook publishes, the deployer consumes
//	change events   every owner publishes; webhook, the deployer and the gateway consume
//
// Dead letters stand here too: Consume itself writes them.
//
// It depends on nats.go, OpenTelemetry's propagation, pkg/apierr and pkg/logs. Package kv builds
// buckets on it.
package stream
