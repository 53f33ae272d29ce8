// Package rpc makes the gRPC servers and clients between our services.
//
// [NewServer] gives every server the same chain, outermost first: otel → request context → access
// log and metrics → error mapping → recovery → deadline guard → identity and allow list →
// validation → handler. One list makes the unary and the stream chain, so that streams are never
// thinner. [Dial] gives every client request id, trace, user and caller tokens, a deadline, and
// retries only where the proto says idempotency_level. In-memory connections (bufconn) pass through
// all of it.
//
// A [Policy] says for each method which services may call it and which role the user needs; a
// method without a rule, or a rule without a method, fails [CheckPolicy] at start.
//
// Depends on grpc, otelgrpc, prometheus/client_golang, and on pkg/apierr, pkg/identity, pkg/logs.
package rpc
