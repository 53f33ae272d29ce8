package bitbucket

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Resource is one of the groups of calls that Bitbucket counts apart (BITBUCKET.md#budgets).
type Resource string

// The resources of REST calls.
const (
	ResourceRepositories Resource = "repositories" // /2.0/repositories/*: 1,000 per rolling hour
	ResourceHooks        Resource = "hooks"        // webhook data: 1,000 per rolling hour
	ResourceOther        Resource = "other"        // user, workspaces, permissions: out of the same 1,000 as repositories
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

// Call is what a Budget is asked about: the group of calls, and what Bitbucket may limit by itself.
type Call struct {
	Resource Resource
	Route    Route
	// Object is what the call is about, such as a repository; "" for the account or the consumer.
	Object string
}

// DefaultHold is how long a call is held back after a 429 that does not say for how long. It is
// short: Bitbucket's limits let some calls through all the time, and asking again costs one.
const DefaultHold = 20 * time.Second

// Budget shares the calls that Bitbucket allows the OAuth consumer between all replicas and
// tenants. It is asked before every request; it must be safe for concurrent use and answer quickly,
// also when its own store is gone.
type Budget interface {
	// Take spends one call, for the connection of a workspace; "" for none. It returns 0 when the call
	// may be made now, else how long to wait until it is worth asking again; nothing is spent then.
	Take(ctx context.Context, c Call, p Priority, workspace string) (wait time.Duration)
	// Exhausted tells that Bitbucket itself answered 429 to the call, so that the others hold it
	// back as well, and more calls where 429s to different ones say so ([Held]). wait is 0 when
	// Bitbucket did not say for how long; the latest answer to a call counts.
	Exhausted(ctx context.Context, c Call, wait time.Duration)
}

// A Meter is a Budget that counts whose calls were made. It must answer quickly, as a Budget must.
type Meter interface {
	// Made counts a call that is made now, for the connection of a workspace; "" for none.
	Made(ctx context.Context, c Call, p Priority, workspace string)
}

// Held tells until when a call is held back by 429s to calls of its resource: refused holds until
// when each of them said to wait. It is the zero time when the call may be made.
//
// A 429 is about the route and object that it answered, until another one says more (BITBUCKET.md#budgets):
// the route of two objects holds the route, two routes of one object hold the object,
// and together they hold the resource. A wider hold lasts as long as what it was concluded from.
func Held(c Call, refused map[Call]time.Time, now time.Time) (until time.Time) {
	latest := slices.SortedFunc(maps.Keys(refused), func(a, b Call) int { return refused[b].Compare(refused[a]) })
	routes, objects := map[Route]bool{}, map[string]bool{}
	sameRoute, sameObject := map[string]bool{}, map[Route]bool{}
	for _, r := range latest { // the shortest of those that are needed decides
		if r.Resource != c.Resource {
			continue
		}
		if until = refused[r]; !until.After(now) {
			break
		}
		routes[r.Route], objects[r.Object] = true, true
		if r.Route == c.Route {
			sameRoute[r.Object] = true
		}
		if r.Object == c.Object {
			sameObject[r.Route] = true
		}
		if r == c || len(sameRoute) > 1 || len(sameObject) > 1 || len(routes) > 1 && len(objects) > 1 {
			return until
		}
	}
	return time.Time{}
}

// noBudget allows everything.
type noBudget struct{}

func (noBudget) Take(context.Context, Call, Priority, string) time.Duration { return 0 }
func (noBudget) Exhausted(context.Context, Call, time.Duration)             {}

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
	RouteTags         Route = "tags"
	RouteTag          Route = "tag"
	RouteCommits      Route = "commits"
	RouteCommit       Route = "commit"
	RouteSource       Route = "source"
	RouteHooks        Route = "hooks"
	RouteStatuses     Route = "statuses"
)

// resource is the group in which Bitbucket counts the route. Statuses, branches and the listing are
// in the repositories group (BITBUCKET.md#budgets and BITBUCKET.md#build-statuses).
func (r Route) resource() Resource {
	switch r {
	case RouteRepositories, RouteRepository, RouteBranches, RouteBranch, RouteTags, RouteTag, RouteCommits, RouteCommit, RouteSource, RouteStatuses:
		return ResourceRepositories
	case RouteHooks:
		return ResourceHooks
	case RouteToken, RouteUser, RouteWorkspaces, RoutePermissions:
		return ResourceOther
	}
	return ResourceOther
}
