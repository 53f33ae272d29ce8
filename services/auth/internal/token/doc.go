// Package token hands out access tokens and keeps them fresh: DESIGN.md#a-token-that-never-races and DESIGN.md#refusals.
//
// [Manager] answers callers; its files are the steps, in their order: issue.go, flight.go, attempt.go,
// store.go, schedule.go; rejected.go is for new tokens that are rejected. A refresh runs in a flight of its own, one per integration and process,
// which takes the lease in the record, asks Bitbucket and stores the answer by the rules of package
// rotation; callers wait for flights and never own them. [Keeper] renews integrations without
// being asked: ahead of expiry while they are in use, weekly otherwise, after failures at their retry
// times. [Index] is the watched copy of all schedules from which both know which are due and how the
// OAuth consumer stands.
//
// It depends on packages rotation (the rules), status (the words) and, through the interfaces it
// declares, on the stores and Bitbucket's token endpoint.
package token
