// Package catalog knows a workspace's Bitbucket repositories and their branches (design.md section
// 5, "Listing").
//
// The list of repositories is a [Snapshot]: the walk over all Bitbucket workspaces of the account
// (walk.go), kept in memory and in a [Store] (snapshots.go), searched and paged in memory
// (search.go). What is older than [Config.Revalidate] is renewed in the background when somebody
// opens the list; everything else is live: one repository (repository.go) and branches
// (branches.go).
//
// It depends on pkg/bitbucket for the calls and on pkg/apierr for its errors. It knows neither gRPC
// nor Redis.
package catalog
