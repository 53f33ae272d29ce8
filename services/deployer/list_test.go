package deployer_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// shown is an app as a member sees it.
func (b *bench) shown(id string) *deployerv1.App {
	b.t.Helper()
	resp, err := b.client.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: id})
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.GetApp()
}

// ids asks for all pages of a list, two apps each, and holds the total of each page against all of them.
func (b *bench) ids(req *deployerv1.ListAppsRequest) string {
	b.t.Helper()
	req.Workspace, req.PageSize, req.PageToken = workspace, 2, ""
	var ids []string
	var totals []int32
	for {
		resp, err := b.client.ListApps(b.member, req)
		if err != nil {
			b.t.Fatalf("%v: %v", req, err)
		}
		for _, a := range resp.GetApps() {
			ids = append(ids, a.GetId())
		}
		totals = append(totals, resp.GetTotal())
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	for _, total := range totals {
		if int(total) != len(ids) {
			b.t.Errorf("%v: totals %v of %d", req, totals, len(ids))
		}
	}
	return strings.Join(ids, " ")
}

// The list is searched, filtered and ordered over all pages, and says how many there are.
func TestListApps_searchFilterAndOrder(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.repo.Commit("Next", "first", map[string]string{"index.html": "1"})
	for _, id := range []string{"delta", "alpha", "echo", "bravo", "charlie"} {
		app := web(id == "alpha" || id == "echo")
		if id == "bravo" {
			app.Branch = "Next"
		}
		b.create(id, app)
	}
	for _, id := range []string{"charlie", "alpha"} {
		d, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: id})
		if err != nil {
			t.Fatal(err)
		}
		b.await(id, d.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED)
	}
	_, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{
		Workspace: workspace, AppId: "echo", App: &deployerv1.App{Retention: 3}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"retention"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		req  *deployerv1.ListAppsRequest
		want string
	}{
		{"nothing said", &deployerv1.ListAppsRequest{}, "alpha bravo charlie delta echo"},
		{"by id", &deployerv1.ListAppsRequest{OrderBy: "id"}, "alpha bravo charlie delta echo"},
		{"a part of an id", &deployerv1.ListAppsRequest{Query: "LPH"}, "alpha"},
		{"a branch, in any case", &deployerv1.ListAppsRequest{Query: "next"}, "bravo"},
		{"the repository's name", &deployerv1.ListAppsRequest{Query: "ACME/"}, "alpha bravo charlie delta echo"},
		{"several words", &deployerv1.ListAppsRequest{Query: "acme main  l"}, "alpha charlie delta"},
		{"nothing found", &deployerv1.ListAppsRequest{Query: "zulu"}, ""},
		{"a branch", &deployerv1.ListAppsRequest{Branch: "Next"}, "bravo"},
		{"a branch, exactly", &deployerv1.ListAppsRequest{Branch: "next"}, ""},
		{"a repository", &deployerv1.ListAppsRequest{Repository: repoID}, "alpha bravo charlie delta echo"},
		{"another repository", &deployerv1.ListAppsRequest{Repository: "00000000-0000-0000-0000-000000000000"}, ""},
		{"auto-deploy on", &deployerv1.ListAppsRequest{AutoDeploy: new(true)}, "alpha echo"},
		{"auto-deploy off", &deployerv1.ListAppsRequest{AutoDeploy: new(false)}, "bravo charlie delta"},
		{"latest completed", &deployerv1.ListAppsRequest{LatestStates: []deployerv1.Deployment_State{deployerv1.Deployment_COMPLETED, deployerv1.Deployment_FAILED}}, "alpha charlie"},
		{"latest failed", &deployerv1.ListAppsRequest{LatestStates: []deployerv1.Deployment_State{deployerv1.Deployment_FAILED}}, ""},
		{"newest deployment first", &deployerv1.ListAppsRequest{OrderBy: "deployTime"}, "alpha charlie bravo delta echo"},
		{"last change first", &deployerv1.ListAppsRequest{OrderBy: "updateTime"}, "echo charlie bravo alpha delta"},
		{"several", &deployerv1.ListAppsRequest{OrderBy: "deployTime", AutoDeploy: new(false), Query: "main"}, "charlie delta"},
	} {
		if got := b.ids(c.req); got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
	var want []string
	for _, id := range []string{"alpha", "bravo", "charlie", "delta", "echo"} {
		if b.shown(id).GetSync().GetState() == deployerv1.Sync_IN_SYNC {
			want = append(want, id)
		}
	}
	if got := b.ids(&deployerv1.ListAppsRequest{SyncStates: []deployerv1.Sync_State{deployerv1.Sync_IN_SYNC}}); got != strings.Join(want, " ") || len(want) == 0 || len(want) == 5 {
		t.Errorf("in sync: %q, not %q", got, want)
	}
	_, err = b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, OrderBy: "size"})
	b.wantReason(err, apierr.ReasonInvalidArgument)
	first, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 1, OrderBy: "updateTime"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 1, PageToken: first.GetNextPageToken()})
	b.wantReason(err, apierr.ReasonPageTokenInvalid)
}

// The basic view has no hooks and variables; without a word all is there, as it always was.
func TestListApps_basicViewHasNoHooksAndVariables(t *testing.T) {
	b := newBench(t)
	app := web(false)
	app.Hooks = []*deployerv1.DeploymentHook{{Name: "build", Stage: deployerv1.Deployment_POST_SETUP, Command: "true"}}
	app.Variables = []*deployerv1.Variable{{Name: "MODE", Value: "quick"}}
	b.create("web", app)
	for view, want := range map[deployerv1.ListAppsRequest_View]int{
		deployerv1.ListAppsRequest_VIEW_UNSPECIFIED: 1, deployerv1.ListAppsRequest_FULL: 1, deployerv1.ListAppsRequest_BASIC: 0,
	} {
		for _, query := range []string{"", "web"} {
			resp, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, View: view, Query: query})
			if err != nil || len(resp.GetApps()) != 1 {
				t.Fatalf("%s: %v %v", view, resp, err)
			}
			a := resp.GetApps()[0]
			if len(a.GetHooks()) != want || len(a.GetVariables()) != want || a.GetBranch() != "main" || a.GetEtag() == "" {
				t.Errorf("%s: %v", view, a)
			}
		}
	}
	if a := b.shown("web"); len(a.GetHooks()) != 1 || len(a.GetVariables()) != 1 {
		t.Errorf("the app itself: %v", a)
	}
}
