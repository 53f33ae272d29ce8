// Package testkit holds what tests of every module need: engines (embedded ones that start in
// milliseconds, and real processes), waiting for a condition with a deadline, and a logger whose
// output can be searched for secrets. It is for tests only: functions fail the test they are given
// instead of returning errors, and everything they start stops with the test.
//
// An engine that is missing fails the test; it does not skip it.
package testkit
