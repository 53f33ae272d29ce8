package repo_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
)

// The token that auth hands to repo opens all that the account reaches: repo itself leaves out what is
// outside, wherever it is asked for it.
func TestNarrowedWorkspace_seesNothingElse(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	all := s.list(r)
	here, there := all.GetRepositories()[0], (*repov1.Repository)(nil)
	for _, x := range all.GetRepositories() {
		if x.GetBitbucketWorkspaceId() != here.GetBitbucketWorkspaceId() {
			there = x
		}
	}
	if there == nil {
		t.Fatal("the sample has one Bitbucket workspace only")
	}
	s.auth.narrow(here.GetBitbucketWorkspaceId())

	check := func(r *replica, when string) {
		t.Helper()
		list := s.list(r)
		for _, x := range list.GetRepositories() {
			if x.GetBitbucketWorkspaceId() != here.GetBitbucketWorkspaceId() {
				t.Errorf("%s: listed %s", when, x.GetFullName())
			}
		}
		if !slices.Contains(names(list), here.GetFullName()) {
			t.Errorf("%s: %s is not listed", when, here.GetFullName())
		}
		for _, q := range []string{there.GetFullName(), s.emulator.SiteURL() + "/" + there.GetFullName()} {
			if got := s.list(r, query(q)); len(got.GetRepositories()) != 0 || !slices.ContainsFunc(got.GetPartialFailures(), func(f *repov1.PartialFailure) bool {
				return f.GetReason() == string(apierr.ReasonWorkspaceExcluded)
			}) {
				t.Errorf("%s: pasted %s: %v, %v", when, q, names(got), got.GetPartialFailures())
			}
		}
		_, err := r.GetRepository(s.ctx(), &repov1.GetRepositoryRequest{Workspace: workspace, Repository: there.GetId()})
		if !apierr.Has(err, apierr.ReasonWorkspaceExcluded) || strings.Contains(apierr.From(err).Message(), there.GetFullName()) {
			t.Errorf("%s: read: %v", when, err)
		}
		if _, err = r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: there.GetId()}); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
			t.Errorf("%s: branches: %v", when, err)
		}
		if _, err = r.deployer.GetBranch(t.Context(), &repov1.GetBranchRequest{Workspace: workspace, Repository: there.GetId(), Branch: there.GetMainBranch()}); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
			t.Errorf("%s: a branch: %v", when, err)
		}
		if _, err = r.ListTags(s.ctx(), &repov1.ListTagsRequest{Workspace: workspace, Repository: there.GetId()}); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
			t.Errorf("%s: tags: %v", when, err)
		}
		if _, err = r.ListCommits(s.ctx(), &repov1.ListCommitsRequest{Workspace: workspace, Repository: there.GetId()}); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
			t.Errorf("%s: commits: %v", when, err)
		}
		if _, err = r.deployer.ResolveCommit(t.Context(), &repov1.ResolveCommitRequest{Workspace: workspace, Repository: there.GetId(), Commit: "abcdef0", Branch: there.GetMainBranch()}); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
			t.Errorf("%s: a commit: %v", when, err)
		}
		if _, err = r.GetRepository(s.ctx(), &repov1.GetRepositoryRequest{Workspace: workspace, Repository: here.GetId()}); err != nil {
			t.Errorf("%s: inside: %v", when, err)
		}
	}
	check(r, "with a list from before")
	check(s.replica(), "in another process")

	// It goes by where the repository is now, not by what it was called.
	out, _, _ := strings.Cut(there.GetFullName(), "/")
	s.do(s.control.TransferRepository(t.Context(), here.GetFullName(), out))
	if _, err := r.GetRepository(s.ctx(), &repov1.GetRepositoryRequest{Workspace: workspace, Repository: here.GetId()}); err == nil {
		t.Error("transferred out, and still read")
	}
	s.auth.narrow()
	if diff := cmp.Diff(all.GetTotalSize(), s.list(r).GetTotalSize()); diff != "" {
		t.Errorf("widened again:\n%s", diff)
	}
}

func TestListBitbucketWorkspaces_showsAdminsWhatIsExcluded(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	acme := emulator.SeededUUID("workspace", "acme")
	s.auth.narrow(acme)
	resp, err := r.ListBitbucketWorkspaces(s.as(identity.RoleAdmin, workspace), &repov1.ListBitbucketWorkspacesRequest{Workspace: workspace})
	if err != nil || len(resp.GetBitbucketWorkspaces()) < 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	for _, w := range resp.GetBitbucketWorkspaces() {
		if w.GetExcluded() != (w.GetId() != acme) {
			t.Errorf("%s (%s): excluded %v", w.GetSlug(), w.GetId(), w.GetExcluded())
		}
	}
	if _, err := r.ListBitbucketWorkspaces(s.ctx(), &repov1.ListBitbucketWorkspacesRequest{Workspace: workspace}); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("a member: %v", err)
	}
}
