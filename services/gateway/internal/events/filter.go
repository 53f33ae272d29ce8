package events

import (
	"net/url"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
)

// The parameters of the stream.
const (
	paramLast    = "lastEventId"
	paramKind    = "kind"
	paramApp     = "app"
	paramInclude = "include"
)

// Kinds are the kinds of things that change. A test holds them against what the services tell.
func Kinds() []string {
	return []string{"app", "delivery", "deployment", "integration", "members", "repository", "webhook", "workspace"}
}

// What changes bring along for whoever asks for it.
const (
	includeObject = "object" // what changed, as its GET answers it
	includeApp    = "app"    // of a deployment, its app as well
)

// Inclusions are the values of include.
func Inclusions() []string { return []string{includeApp, includeObject} }

// included says what a client wants to have brought along.
type included struct{ object, app bool }

func newIncluded(query url.Values, faults *apierr.Faults) included {
	var in included
	for _, what := range query[paramInclude] {
		switch what {
		case includeObject:
			in.object = true
		case includeApp:
			in.app = true
		default:
			faults.Add(paramInclude, "is one of "+strings.Join(Inclusions(), ", "))
		}
	}
	return in
}

// filter says what a client wants to hear of.
type filter struct {
	kinds []string // none: all
	app   identity.Apps
}

func newFilter(query url.Values, faults *apierr.Faults) filter {
	var f filter
	for _, kind := range query[paramKind] {
		if !slices.Contains(Kinds(), kind) {
			faults.Add(paramKind, "is one of "+strings.Join(Kinds(), ", "))
			continue
		}
		f.kinds = append(f.kinds, kind)
	}
	if app := query.Get(paramApp); app != "" {
		f.app = identity.LimitedTo(app)
	}
	return f
}

// wants tells whether the client hears of a change: of an app's are the app and its deployments.
func (f filter) wants(c Change) bool {
	return (len(f.kinds) == 0 || slices.Contains(f.kinds, c.Kind)) && c.shownTo(f.app)
}
