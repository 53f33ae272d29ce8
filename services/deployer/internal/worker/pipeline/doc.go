// Package pipeline runs deployments: it answers wake-ups, claims the app's lane, takes the
// deployment through its stages and switches the release (DESIGN.md#source-control).
//
// Whatever happens to a worker, the lane's epoch decides: every step that others can see (the
// lane's record, the epoch file, the log) is made on the condition that the attempt is still the
// newest. A worker that finds itself replaced leaves everything to its successor.
//
// Depends on internal/record/lane, internal/engine/release and internal/engine/git/mirror by the interfaces in deps.go.
package pipeline
