package deployer_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// git is asked with the token of today, and says in words when it may not.
func TestProveGit(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	resp, err := b.client.ProveGit(b.admin, &deployerv1.ProveGitRequest{Workspace: workspace, App: "web"})
	if err != nil || resp.GetBranches() != 1 || resp.GetRepositoryFullName() == "" {
		t.Errorf("%v, %v", resp, err)
	}
	_, err = b.client.ProveGit(b.admin, &deployerv1.ProveGitRequest{Workspace: workspace, App: "none"})
	b.wantReason(err, apierr.ReasonAppNotFound)
	_, err = b.client.ProveGit(b.member, &deployerv1.ProveGitRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonPermissionDenied)
	b.world.do(func() { b.world.lent = []string{elsewhere} })
	_, err = b.client.ProveGit(b.admin, &deployerv1.ProveGitRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonWorkspaceExcluded)
}

// A commit status is written to what is live, where the app shows its deployments at Bitbucket; where none can be
// written, it is said why.
func TestProveStatus_saysWhereNoneCanBeWritten(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	skipped := func(want string) {
		t.Helper()
		resp, err := b.client.ProveStatus(b.admin, &deployerv1.ProveStatusRequest{Workspace: workspace, App: "web"})
		if err != nil || !strings.Contains(resp.GetSkipped(), want) {
			t.Errorf("%v, %v, want %q", resp, err, want)
		}
	}
	skipped("Nothing of the app is live yet")
	if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	skipped("Set DEVPILOT_PUBLIC_URL")
	if _, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{
		Workspace: workspace, AppId: "web", App: &deployerv1.App{CommitStatus: proto.Bool(false)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"commit_status"}},
	}); err != nil {
		t.Fatal(err)
	}
	skipped("its commit statuses are off")
	_, err := b.client.ProveStatus(b.admin, &deployerv1.ProveStatusRequest{Workspace: workspace, App: "none"})
	b.wantReason(err, apierr.ReasonAppNotFound)
	_, err = b.client.ProveStatus(b.member, &deployerv1.ProveStatusRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonPermissionDenied)
}
