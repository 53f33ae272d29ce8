package deployer_test

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// listed walks all pages of a question.
func (b *bench) listed(req *deployerv1.ListAppsRequest) (ids []string, first *deployerv1.ListAppsResponse) {
	b.t.Helper()
	req.Workspace = workspace
	for {
		resp, err := b.client.ListApps(b.member, req)
		if err != nil {
			b.t.Fatal(err)
		}
		if first == nil {
			first = resp
		}
		for _, a := range resp.GetApps() {
			ids = append(ids, a.GetId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return ids, first
		}
	}
}

// What needs somebody comes first however many apps there are, and what is looked for is found without the rest.
func TestListApps_byNeedAndByText(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	for _, id := range []string{"alpha", "beta", "my-alpha", "omega"} {
		b.create(id, web(false))
	}
	b.deployed("beta", deployerv1.Deployment_COMPLETED)
	for size := range int32(6) {
		ids, first := b.listed(&deployerv1.ListAppsRequest{OrderBy: "need", PageSize: size})
		if !slices.Equal(ids, []string{"alpha", "my-alpha", "omega", "beta"}) {
			t.Errorf("pages of %d: %v", size, ids)
		}
		needs := map[deployerv1.App_Need]int32{}
		for _, n := range first.GetNeeds() {
			needs[n.GetNeed()] = n.GetApps()
		}
		if len(needs) != 2 || needs[deployerv1.App_BEHIND] != 3 || needs[deployerv1.App_IN_SYNC] != 1 {
			t.Errorf("pages of %d: %v", size, first.GetNeeds())
		}
	}
	for name, c := range map[string]struct {
		req  *deployerv1.ListAppsRequest
		want []string
	}{
		"one need":                  {&deployerv1.ListAppsRequest{Need: deployerv1.App_IN_SYNC}, []string{"beta"}},
		"no app has it":             {&deployerv1.ListAppsRequest{Need: deployerv1.App_FAILING, OrderBy: "need"}, nil},
		"part of an id":             {&deployerv1.ListAppsRequest{Query: " ALPHA ", PageSize: 1}, []string{"alpha", "my-alpha"}},
		"beginning first":           {&deployerv1.ListAppsRequest{Query: "a", OrderBy: "match", PageSize: 1}, []string{"alpha", "beta", "my-alpha", "omega"}},
		"beginning first of others": {&deployerv1.ListAppsRequest{Query: "om", OrderBy: "match"}, []string{"omega"}},
		"repository":                {&deployerv1.ListAppsRequest{Query: "acme/web", Need: deployerv1.App_BEHIND}, []string{"alpha", "my-alpha", "omega"}},
		"branch":                    {&deployerv1.ListAppsRequest{Query: "main", OrderBy: "need"}, []string{"alpha", "my-alpha", "omega", "beta"}},
		"words, in any order":       {&deployerv1.ListAppsRequest{Query: "main ALPHA", OrderBy: "need", PageSize: 1}, []string{"alpha", "my-alpha"}},
		"word that ids begin with":  {&deployerv1.ListAppsRequest{Query: "My main", OrderBy: "match"}, []string{"my-alpha"}},
		"a need and filters":        {&deployerv1.ListAppsRequest{Need: deployerv1.App_IN_SYNC, OrderBy: "need", AutoDeploy: new(false), LatestStates: []deployerv1.Deployment_State{deployerv1.Deployment_COMPLETED}}, []string{"beta"}},
		"a need and one filter":     {&deployerv1.ListAppsRequest{Need: deployerv1.App_IN_SYNC, OrderBy: "need", AutoDeploy: new(true)}, nil},
		"a state and the order":     {&deployerv1.ListAppsRequest{SyncStates: []deployerv1.Sync_State{deployerv1.Sync_BEHIND}, OrderBy: "need", PageSize: 2}, []string{"alpha", "my-alpha", "omega"}},
		"nothing":                   {&deployerv1.ListAppsRequest{Query: "nothing of the kind"}, nil},
	} {
		if ids, _ := b.listed(c.req); !slices.Equal(ids, c.want) {
			t.Errorf("%s: %v, want %v", name, ids, c.want)
		}
	}
}

func TestListApps_refusals(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	for _, id := range []string{"a", "b"} {
		b.create(id, web(false))
	}
	first, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, OrderBy: "need", PageSize: 1})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	for name, c := range map[string]struct {
		req    *deployerv1.ListAppsRequest
		reason apierr.Reason
	}{
		"order":                     {&deployerv1.ListAppsRequest{OrderBy: "name"}, apierr.ReasonInvalidArgument},
		"a long search":             {&deployerv1.ListAppsRequest{Query: strings.Repeat("x", 201)}, apierr.ReasonInvalidArgument},
		"a token of another order":  {&deployerv1.ListAppsRequest{PageToken: first.GetNextPageToken()}, apierr.ReasonPageTokenInvalid},
		"a token of another need":   {&deployerv1.ListAppsRequest{OrderBy: "need", Need: deployerv1.App_BEHIND, PageToken: first.GetNextPageToken()}, apierr.ReasonPageTokenInvalid},
		"a token of another search": {&deployerv1.ListAppsRequest{OrderBy: "need", Query: "a", PageToken: first.GetNextPageToken()}, apierr.ReasonPageTokenInvalid},
	} {
		c.req.Workspace = workspace
		if _, err := b.client.ListApps(b.member, c.req); !apierr.Has(err, c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
