// Package ops is what an operator sees of a process: the ops listener with /livez, /readyz,
// /metrics and /debug/pprof, the metrics registry, and tracing.
//
// /livez asks nothing: it answers while the process can answer at all. /readyz asks the checks
// registered with [Readiness], each for at most a second; a check asks the process's own stores
// and never another service, or one sick service takes all others out of the balancer.
//
// The listener belongs on a private address: it has no authentication.
//
// Depends on prometheus/client_golang and the OpenTelemetry SDK; on pkg/logs.
package ops
