package deployer_test

import (
	"testing"

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
