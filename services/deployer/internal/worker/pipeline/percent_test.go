package pipeline

import (
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestSpan_stagesFollowEachOtherAndABuildIsMostOfTheProgress(t *testing.T) {
	build := codeconfig.Hook{Name: "build", Stage: deployerv1.Deployment_POST_SETUP.String(), Active: true}
	off := codeconfig.Hook{Name: "off", Stage: deployerv1.Deployment_POST_SETUP.String()}
	for name, hooks := range map[string][]codeconfig.Hook{
		"none": nil, "one": {build}, "one switched off": {off}, "three": {build, build, off, build},
	} {
		a := &attempt{settings: codeconfig.Settings{Hooks: hooks}}
		end := int32(0)
		for _, s := range plan() {
			from, own, till := a.span(s.id)
			if from != end || own < from || till < own {
				t.Errorf("%s: %s lies at %d, %d, %d after %d", name, s.id, from, own, till, end)
			}
			end = till
		}
		if end != 100 {
			t.Errorf("%s: it ends at %d", name, end)
		}
		_, begin, till := a.span(deployerv1.Deployment_POST_SETUP)
		if name != "none" && name != "one switched off" && (begin > 50 || till-begin < 35) {
			t.Errorf("%s: %d %% when its build begins, %d when it is done", name, begin, till)
		}
	}
}
