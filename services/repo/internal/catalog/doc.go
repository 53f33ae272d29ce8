// Package catalog knows a workspace's Bitbucket repositories and their branches (DESIGN.md#listing).
//
// The list of repositories is a [Snapshot]: the walk over all Bitbucket workspaces of the account
// (walk.go), kept in memory (memory.go) and in a [Store], searched and paged in memory
// (snapshot.go, listing.go). What is older than [Config.Revalidate] is renewed in the background when somebody
// opens the list; everything else is live: one repository (repository.go) and branches
// (branches.go).
//
// It depends on pkg/bitbucket for the calls and on pkg/apierr for its errors. It knows neither gRPC
// nor Redis.
package catalog
