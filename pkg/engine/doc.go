// Package engine holds the embedded engines: a NATS server with JetStream on disk and a Redis
// (miniredis). They let the all-in-one process run with nothing beside it, and tests run against
// the real thing. Only services/allinone and pkg/testkit may import it; service binaries talk to
// engines of their own (DESIGN.md#services).
//
// It depends on nats-server and miniredis, and of ours on pkg/logs only.
package engine
