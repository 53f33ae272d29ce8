// Package repo is the service that lists Bitbucket's repositories, branches, tags and commits (DESIGN.md#services and DESIGN.md#listing).
// It keeps nothing that lasts: a snapshot of each workspace's repositories in
// Redis, with a copy in memory, and answers about branches for five seconds. Without Redis it is
// slower and as right.
//
// Read service.go for what it is made of, then internal/server, one file per RPC, then
// internal/catalog, which holds the rules. internal/account turns a workspace into calls to
// Bitbucket with tokens of the auth service; internal/rediscache is the Redis side.
package repo
