package deployer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// everywhere reads all pages of a workspace's history.
func (b *bench) everywhere(req *deployerv1.ListWorkspaceDeploymentsRequest) (names []string, all []*deployerv1.Deployment) {
	b.t.Helper()
	req = proto.CloneOf(req)
	for {
		req.Workspace = workspace
		resp, err := b.client.ListWorkspaceDeployments(b.member, req)
		if err != nil {
			b.t.Fatal(err)
		}
		if n := len(resp.GetDeployments()); req.GetPageSize() != 0 && n > int(req.GetPageSize()) {
			b.t.Fatalf("a page of %d", n)
		}
		for _, d := range resp.GetDeployments() {
			names = append(names, fmt.Sprintf("%s/%d", d.GetApp(), d.GetNumber()))
		}
		all = append(all, resp.GetDeployments()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return names, all
		}
	}
}

// The deployments of all apps are one history, newest first, whatever page it is read by.
func TestWorkspaceDeployments_areOneHistory(t *testing.T) {
	// Nobody serves the server: what is asked for waits, and newer ones supersede it.
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	for _, app := range []string{"a", "b", "c", "empty"} {
		b.create(app, web(false))
	}
	var made []string
	for _, app := range strings.Split("a b a a c b a b c c a", " ") {
		d, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: app})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, fmt.Sprintf("%s/%d", app, d.GetDeployment().GetNumber()))
	}
	want := slices.Clone(made)
	slices.Reverse(want)
	for _, size := range []int32{0, 1, 2, 3, 11, 200} {
		if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{PageSize: size}); !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v", size, got, want)
		}
	}
	_, all := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{})
	pending := deployerv1.Deployment_PENDING
	if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{States: []deployerv1.Deployment_State{pending, deployerv1.Deployment_FAILED}, PageSize: 2}); !slices.Equal(got, []string{"a/5", "c/3", "b/3"}) {
		t.Errorf("those that wait: %v", got)
	}
	if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{States: []deployerv1.Deployment_State{pending, deployerv1.Deployment_SUPERSEDED}}); !slices.Equal(got, want) {
		t.Errorf("in any of two states: %v", got)
	}
	if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{Branch: "dev"}); len(got) != 0 {
		t.Errorf("of another branch: %v", got)
	}
	// From the fourth newest to before the second newest.
	if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{After: all[3].GetCreateTime(), Before: all[1].GetCreateTime(), PageSize: 1}); !slices.Equal(got, want[2:4]) {
		t.Errorf("of a time: %v, want %v", got, want[2:4])
	}
	if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{After: timestamppb.New(all[0].GetCreateTime().AsTime().Add(1))}); len(got) != 0 {
		t.Errorf("after the newest: %v", got)
	}

	// What comes meanwhile moves nothing, and what is gone leaves no gap.
	first, err := b.client.ListWorkspaceDeployments(b.member, &deployerv1.ListWorkspaceDeploymentsRequest{Workspace: workspace, PageSize: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"b", "empty"} {
		if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: app}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "c"}); err != nil {
		t.Fatal(err)
	}
	left := slices.DeleteFunc(slices.Clone(want[4:]), func(name string) bool { return strings.HasPrefix(name, "c/") })
	if got, _ := b.everywhere(&deployerv1.ListWorkspaceDeploymentsRequest{PageSize: 4, PageToken: first.GetNextPageToken()}); !slices.Equal(got, left) {
		t.Errorf("the rest: %v, want %v", got, left)
	}

	// A token is for its own question, and a workspace sees its own.
	for _, req := range []*deployerv1.ListWorkspaceDeploymentsRequest{
		{PageToken: first.GetNextPageToken(), Branch: "main"},
		{PageToken: first.GetNextPageToken(), States: []deployerv1.Deployment_State{pending}},
		{PageToken: "made-up"},
	} {
		req.Workspace = workspace
		_, err := b.client.ListWorkspaceDeployments(b.member, req)
		b.wantReason(err, apierr.ReasonPageTokenInvalid)
	}
	stranger := testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: "other", Role: identity.RoleOwner})
	if _, err := b.client.ListWorkspaceDeployments(stranger, &deployerv1.ListWorkspaceDeploymentsRequest{Workspace: workspace}); err == nil {
		t.Error("another workspace's owner reads the history")
	}
	_, err = b.client.ListWorkspaceDeployments(stranger, &deployerv1.ListWorkspaceDeploymentsRequest{Workspace: "other", PageToken: first.GetNextPageToken()})
	b.wantReason(err, apierr.ReasonPageTokenInvalid)
	if resp, err := b.client.ListWorkspaceDeployments(stranger, &deployerv1.ListWorkspaceDeploymentsRequest{Workspace: "other"}); err != nil || len(resp.GetDeployments()) != 0 {
		t.Errorf("of an empty workspace: %v, %v", resp, err)
	}
}
