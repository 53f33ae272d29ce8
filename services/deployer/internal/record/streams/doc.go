// Package streams holds the streams that the deployer alone writes and reads: wake-ups of its workers,
// logs of deployments, and outcomes that webhook did not take at once, with their subjects. The streams
// that it shares with other services are in pkg/stream.
//
// Depends on pkg/stream.
package streams
