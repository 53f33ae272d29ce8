package bitbucket

import (
	"context"
	"time"
)

// Resource is one of the groups of calls that Bitbucket counts apart (bitbucket.md section 4.9).
type Resource string

// The resources of REST calls.
const (
	ResourceRepositories Resource = "repositories" // /2.0/repositories/*: 1,000 per rolling hour
	ResourceHooks        Resource = "hooks"        // webhook data: 1,000 per rolling hour
	ResourceOther        Resource = "other"        // user, workspaces, permissions: no figure is published
)

// Priority says who waits for the answer.
type Priority int

// The priorities. Interactive calls may spend the whole budget, background ones leave a share of it
// to people.
const (
	Interactive Priority = iota
	Background
)

// String is the priority in lower case.
func (p Priority) String() string {
	if p == Background {
		return "background"
	}
	return "interactive"
}

// Budget shares the calls that Bitbucket allows the OAuth consumer between all replicas and
// tenants. It is asked before every request; it must be safe for concurrent use and answer quickly,
// also when its own store is gone.
type Budget interface {
	// Take spends one call. It returns 0 when the call may be made now, else how long to wait until
	// it is worth asking again; nothing is spent then.
	Take(ctx context.Context, r Resource, p Priority) (wait time.Duration)
	// Exhausted tells that Bitbucket itself answered 429, so that the others hold back as well.
	// wait is 0 when Bitbucket did not say for how long.
	Exhausted(ctx context.Context, r Resource, wait time.Duration)
}

// noBudget allows everything.
type noBudget struct{}

func (noBudget) Take(context.Context, Resource, Priority) time.Duration { return 0 }
func (noBudget) Exhausted(context.Context, Resource, time.Duration)     {}

// Route is the kind of a call: the label of metrics and what the meaning of 403 and 404 hangs on.
type Route string

// The routes.
const (
	RouteToken        Route = "token"
	RouteUser         Route = "user"
	RouteWorkspaces   Route = "workspaces"
	RouteRepositories Route = "repositories"
	RoutePermissions  Route = "permissions"
	RouteRepository   Route = "repository"
	RouteBranches     Route = "branches"
	RouteBranch       Route = "branch"
	RouteHooks        Route = "hooks"
	RouteStatuses     Route = "statuses"
)

// resource is the group in which Bitbucket counts the route. Statuses, branches and the listing are
// in the repositories group (bitbucket.md sections 4.9 and 9.2).
func (r Route) resource() Resource {
	switch r {
	case RouteRepositories, RouteRepository, RouteBranches, RouteBranch, RouteStatuses:
		return ResourceRepositories
	case RouteHooks:
		return ResourceHooks
	case RouteToken, RouteUser, RouteWorkspaces, RoutePermissions:
		return ResourceOther
	}
	return ResourceOther
}
