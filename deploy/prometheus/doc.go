// Package prometheus holds the alerts to the metrics that there are, to their runbooks, and to what they promise: its
// tests fire each alert with Prometheus' own engine.
package prometheus
