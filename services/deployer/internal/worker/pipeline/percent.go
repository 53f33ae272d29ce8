package pipeline

import (
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// hookShare is what a hook counts for in the progress: more than fetching and checking out together,
// for what builds runs in hooks and takes the longest.
const hookShare = 80

// fetchPart is which part of a stage's own work fetching counts as, as its inverse; checking out is the rest.
const fetchPart = 7

// span is between which percentages a stage lies, and where in between its own work ends and its
// hooks begin.
func (a *attempt) span(id deployerv1.Deployment_Stage) (from, own, till int32) {
	var all, before, work, hooks int32
	for _, s := range plan() {
		h := int32(0)
		for _, hook := range settings.At(a.settings.Hooks, s.id) {
			if hook.Active {
				h += hookShare
			}
		}
		if s.id == id {
			before, work, hooks = all, s.share, h
		}
		all += s.share + h
	}
	return 100 * before / all, 100 * (before + work) / all, 100 * (before + work + hooks) / all
}

// fetched is how far a deployment is whose source is fetched, and checkedOut one whose files are there.
func (a *attempt) fetched() (fetched, checkedOut int32) {
	from, own, _ := a.span(deployerv1.Deployment_SOURCE_CONTROL)
	return from + (own-from)/fetchPart, own
}
