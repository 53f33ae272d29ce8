package repo_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

var webID = emulator.SeededUUID("repository", "acme/web")

func TestListRepositories_pastedAddresses(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	site := s.emulator.SiteURL()
	host := strings.TrimPrefix(site, "http://")
	for _, q := range []string{
		site + "/acme/web", site + "/acme/web.git", site + "/acme/web/src/main/README.md", "git clone http://jane-dev@" + host + "/acme/web.git",
		"ssh://git@127.0.0.1/acme/web.git", "git@127.0.0.1:acme/web.git", host + "/acme/web", "ACME/Web.git",
	} {
		s.clock.advance(6 * time.Second) // each asks anew
		resp := s.list(r, query(q))
		if diff := cmp.Diff([]string{"acme/web"}, names(resp)); diff != "" || resp.GetTotalSize() != 1 {
			t.Errorf("query %q:\n%s", q, diff)
		}
		if len(resp.GetRepositories()) == 1 && resp.GetRepositories()[0].GetPermission() != repov1.Repository_ADMIN {
			t.Errorf("query %q: permission %s", q, resp.GetRepositories()[0].GetPermission())
		}
	}
	if _, routes := s.calls(); routes["GET /2.0/user/workspaces"] != 0 {
		t.Errorf("a pasted address walked all workspaces: %v", routes)
	}
	resp := s.list(r, query(site+"/acme/payroll"))
	if len(names(resp)) != 0 || !strings.Contains(messageOf(t, resp), "acme/payroll") {
		t.Errorf("one that cannot be reached: %v, %v", names(resp), resp.GetPartialFailures())
	}
	if diff := cmp.Diff([]string{"acme REPOSITORY_NOT_FOUND"}, reasons(resp)); diff != "" {
		t.Error(diff)
	}
	if resp := s.list(r, query("https://bitbucket.org/acme/web")); len(names(resp)) != 0 {
		t.Errorf("another site's address found %v", names(resp))
	}
}

func TestListRepositories_fullNameIsLookedUpWhereTheListLacksIt(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	// Public, without a grant: not in the list of role=member.
	_, err := s.control.PutWorkspace(t.Context(), "open", emulator.Workspace{Name: "Open"})
	s.do(err)
	_, err = s.control.PutRepository(t.Context(), "open/source", emulator.RepositoryInput{Public: true, Seed: "site"})
	s.do(err)
	if resp := s.list(r, query("open/source")); !slices.Equal(names(resp), []string{"open/source"}) ||
		resp.GetRepositories()[0].GetPermission() != repov1.Repository_PERMISSION_UNSPECIFIED {
		t.Errorf("public repository: %v", resp)
	}
	// One that the list has is brought up to date.
	s.do(s.control.SetPermission(t.Context(), "acme/web", "jane-dev", "read"))
	if resp := s.list(r, query("acme/web")); resp.GetRepositories()[0].GetPermission() != repov1.Repository_READ {
		t.Errorf("permission = %s", resp.GetRepositories()[0].GetPermission())
	}
	s.do(s.control.DeleteRepository(t.Context(), "acme/api"))
	if resp := s.list(r, query("acme/api")); len(names(resp)) != 0 || len(resp.GetPartialFailures()) != 1 {
		t.Errorf("deleted repository: %v", resp)
	}
	// The beginning of a name is a search: no call for each letter.
	s.resetCalls()
	for _, q := range []string{"a", "acme/", "acme/d", "acme/do", "acme/doc"} {
		if resp := s.list(r, query(q)); !slices.Contains(names(resp), "acme/docs") {
			t.Errorf("query %q: %v", q, names(resp))
		}
	}
	if n, routes := s.calls(); n != 0 {
		t.Errorf("typing made %d calls: %v", n, routes)
	}
	// Equal questions share an answer for a moment.
	for range 3 {
		s.list(r, query("acme/docs"))
	}
	if _, routes := s.calls(); routes["GET /2.0/repositories/{workspace}/{repository}"] != 1 {
		t.Errorf("three equal questions: %v", routes)
	}
}

func (s *stack) get(r *replica, id string) (*repov1.Repository, error) {
	resp, err := r.GetRepository(s.ctx(), &repov1.GetRepositoryRequest{Workspace: workspace, Repository: id})
	return resp.GetRepository(), err
}

func TestGetRepository_isLive(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	for _, id := range []string{webID, "{" + strings.ToUpper(webID) + "}"} {
		got, err := s.get(r, id)
		if err != nil || got.GetFullName() != "acme/web" || got.GetId() != webID || got.GetPermission() != repov1.Repository_ADMIN {
			t.Errorf("GetRepository(%q) = %v, %v", id, got, err)
		}
	}
	if got, err := r.deployer.GetRepository(t.Context(), &repov1.GetRepositoryRequest{Workspace: workspace, Repository: webID}); err != nil || got.GetRepository().GetFullName() != "acme/web" {
		t.Errorf("as the deployer: %v, %v", got, err)
	}
	s.list(r) // from here on the list knows where the repository is
	s.do(s.control.SetPermission(t.Context(), "acme/web", "jane-dev", "write"))
	if got, err := s.get(r, webID); err != nil || got.GetPermission() != repov1.Repository_WRITE {
		t.Errorf("permission = %v, %v", got, err)
	}
	s.do(s.control.RenameRepository(t.Context(), "acme/web", "website"))
	if got, err := s.get(r, webID); err != nil || got.GetFullName() != "acme/website" {
		t.Errorf("after a rename: %v, %v", got, err)
	}
	s.do(s.control.TransferRepository(t.Context(), "acme/website", "jane-dev"))
	if got, err := s.get(r, webID); err != nil || got.GetFullName() != "jane-dev/website" {
		t.Errorf("after a transfer: %v, %v", got, err)
	}
}

// TestGetRepository_nothingIsFound: an outage that answers 404 to everything says nothing about a repository.
func TestGetRepository_nothingIsFound(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	s.inject(emulator.Fault{Route: "api", Status: 404, Body: `{"type":"error","error":{"message":"Resource not found"}}`})
	if _, err := s.get(r, webID); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
		t.Errorf("GetRepository: err = %v", err)
	}
	if _, err := r.deployer.GetBranch(t.Context(), &repov1.GetBranchRequest{Workspace: workspace, Repository: webID, Branch: "main"}); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
		t.Errorf("GetBranch: err = %v", err)
	}
}

func TestGetRepository_notReachable(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	for _, id := range []string{emulator.SeededUUID("repository", "acme/payroll"), "00000000-0000-4000-8000-000000000000"} {
		_, err := s.get(r, id)
		if e := apierr.From(err); e.Reason() != apierr.ReasonRepositoryNotFound || !errors.Is(err, apierr.NotFound) {
			t.Errorf("GetRepository(%s): err = %v", id, err)
		}
	}
	s.list(r)
	s.do(s.control.SetPermission(t.Context(), "acme/web", "jane-dev", "none"))
	_, err := s.get(r, webID)
	if e := apierr.From(err); e.Reason() != apierr.ReasonRepositoryNotFound || !strings.Contains(e.Message(), "acme/web") {
		t.Errorf("after losing access: err = %v", err)
	}
	for _, id := range []string{"acme/web", "web", "..", strings.Repeat("a", 36)} {
		if _, err := s.get(r, id); !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("GetRepository(%q): err = %v", id, err)
		}
	}
	s.inject(emulator.Fault{Kind: emulator.FaultRateLimitedReset, Route: "api"})
	_, err = s.get(r, emulator.SeededUUID("repository", "acme/docs"))
	if e := apierr.From(err); e.Reason() != apierr.ReasonBitbucketRateLimited || e.RetryAfter() < 700*time.Second {
		t.Errorf("limited: err = %v", err)
	}
}

func TestGetRepository_whereUUIDAloneIsNotEnough(t *testing.T) {
	s := newStack(t, "sample")
	// Finding a repository by its UUID with empty braces for the workspace is not documented.
	s.inject(emulator.Fault{Path: "/2.0/repositories/%7B%7D/", Status: 404, Body: `{"type":"error","error":{"message":"No workspace with identifier '{}'."}}`})
	r := s.replica()
	if got, err := s.get(r, webID); err != nil || got.GetFullName() != "acme/web" {
		t.Errorf("GetRepository = %v, %v", got, err)
	}
	b, err := r.deployer.GetBranch(t.Context(), &repov1.GetBranchRequest{Workspace: workspace, Repository: webID, Branch: "main"})
	if err != nil || b.GetBranch().GetName() != "main" {
		t.Errorf("GetBranch = %v, %v", b, err)
	}
}

func (s *stack) branches(r *replica, id string, change ...func(*repov1.ListBranchesRequest)) *repov1.ListBranchesResponse {
	s.t.Helper()
	req := &repov1.ListBranchesRequest{Workspace: workspace, Repository: id}
	for _, c := range change {
		c(req)
	}
	resp, err := r.ListBranches(s.ctx(), req)
	s.do(err)
	return resp
}

func branchNames(resp *repov1.ListBranchesResponse) []string {
	var all []string
	for _, b := range resp.GetBranches() {
		all = append(all, b.GetName())
	}
	return all
}

func search(q string) func(*repov1.ListBranchesRequest) {
	return func(r *repov1.ListBranchesRequest) { r.Query = q }
}

func TestListBranches_defaultFirstThenNewest(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	resp := s.branches(r, webID)
	want := []string{"main", "feature/login", "develop", "release/1.0"}
	if diff := cmp.Diff(want, branchNames(resp)); diff != "" || resp.GetTotalSize() != 4 {
		t.Errorf("branches (-want +got):\n%s", diff)
	}
	main, login := resp.GetBranches()[0], resp.GetBranches()[1]
	if !main.GetDefault() || login.GetDefault() {
		t.Error("main is not the default, or another one is")
	}
	refs, err := s.control.Refs(t.Context(), "acme/web")
	s.do(err)
	c := login.GetCommit()
	if c.GetHash() != refs["refs/heads/feature/login"] || !strings.HasPrefix(c.GetMessage(), "Add a login page") || c.GetAuthorName() == "" ||
		c.GetAuthorEmail() == "" || !c.GetTime().AsTime().Equal(time.Date(2026, 3, 2, 13, 0, 0, 0, time.UTC)) ||
		c.GetUrl() != s.emulator.SiteURL()+"/acme/web/commits/"+c.GetHash() {
		t.Errorf("commit = %v", c)
	}
	for q, want := range map[string][]string{"LOG": {"feature/login"}, "e": {"feature/login", "develop", "release/1.0"}, "nothing": nil, " main ": {"main"}} {
		if diff := cmp.Diff(want, branchNames(s.branches(r, webID, search(q)))); diff != "" {
			t.Errorf("query %q:\n%s", q, diff)
		}
	}
	if resp := s.branches(r, emulator.SeededUUID("repository", "acme/empty")); len(resp.GetBranches()) != 0 || resp.GetTotalSize() != 0 {
		t.Errorf("an empty repository has %v", resp)
	}
}

func TestListBranches_equalQuestionsShareAnAnswerForFiveSeconds(t *testing.T) {
	s := newStack(t, "sample")
	one, two := s.replica(), s.replica()
	const route = "GET /2.0/repositories/{workspace}/{repository}/refs/branches"
	before := s.branches(one, webID)
	hash, err := s.control.Commit(t.Context(), "acme/web", "develop", "Newer\n", map[string]string{"a": "b"})
	s.do(err)
	for _, r := range []*replica{one, two} {
		if got := s.branches(r, webID); !got.GetFetchTime().AsTime().Equal(before.GetFetchTime().AsTime()) {
			t.Error("an equal question was asked again")
		}
		s.branches(r, webID, search("dev")) // searched in the answer that is there
	}
	if _, routes := s.calls(); routes[route] != 1 {
		t.Errorf("calls = %v, want one", routes)
	}
	s.clock.advance(5 * time.Second)
	after := s.branches(two, webID)
	if diff := cmp.Diff([]string{"main", "develop", "feature/login", "release/1.0"}, branchNames(after)); diff != "" {
		t.Errorf("after five seconds:\n%s", diff)
	}
	if after.GetBranches()[1].GetCommit().GetHash() != hash {
		t.Error("the head is not the new one")
	}
	// Another question is another answer.
	s.clock.advance(5 * time.Second)
	s.resetCalls()
	s.branches(one, webID, search("dev"))
	s.branches(one, webID, search("DEV"))
	s.branches(one, webID, search("log"))
	if _, routes := s.calls(); routes[route] != 2 {
		t.Errorf("calls = %v, want two", routes)
	}
}

func TestListBranches_many(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	var changes []emulator.RefChange
	want := []string{"main"}
	for i := range 350 {
		name := fmt.Sprintf("topic/%03d", i)
		changes = append(changes, emulator.RefChange{Branch: name, From: "main", Commits: []emulator.CommitSpec{{
			Message: "Topic", Files: map[string]string{"topic": name}, Time: time.Date(2026, 4, 1, 0, 0, 1000-i, 0, time.UTC),
		}}})
		want = append(want, name)
	}
	_, err := s.control.Push(t.Context(), "acme/web", "jane-dev", changes...)
	s.do(err)
	var got []string
	for token, pages := "", 0; ; pages++ {
		resp := s.branches(r, webID, func(r *repov1.ListBranchesRequest) { r.PageSize, r.PageToken = 100, token })
		got = append(got, branchNames(resp)...)
		if resp.GetTotalSize() != 354 {
			t.Errorf("total = %d", resp.GetTotalSize())
		}
		if token = resp.GetNextPageToken(); token == "" || pages > 10 {
			break
		}
	}
	want = append(want, "feature/login", "develop", "release/1.0")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("branches (-want +got):\n%s", diff)
	}
}

func TestListBranches_errors(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	for id, want := range map[string]apierr.Reason{
		emulator.SeededUUID("repository", "acme/payroll"): apierr.ReasonRepositoryNotFound,
		"not-an-id": apierr.ReasonInvalidArgument,
	} {
		if _, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: id}); !apierr.Has(err, want) {
			t.Errorf("%s: err = %v", id, err)
		}
	}
	if _, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: webID, PageSize: -1}); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("page size -1: err = %v", err)
	}
	s.inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Route: "GET /2.0/repositories/{workspace}/{repository}/refs/branches", Times: 1})
	if _, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: webID}); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
		t.Errorf("502: err = %v", err)
	}
	if got := branchNames(s.branches(r, webID)); len(got) != 4 {
		t.Errorf("a failure was shared: %v", got)
	}
}

func TestGetBranch_isLive(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	get := func(id, name string) (*repov1.Branch, error) {
		resp, err := r.deployer.GetBranch(t.Context(), &repov1.GetBranchRequest{Workspace: workspace, Repository: id, Branch: name})
		return resp.GetBranch(), err
	}
	for range 2 { // without a list, then with one
		for _, name := range []string{"main", "feature/login"} {
			hash, err := s.control.Commit(t.Context(), "acme/web", name, "Again\n", map[string]string{"at": time.Now().String()})
			s.do(err)
			got, err := get(webID, name)
			if err != nil || got.GetCommit().GetHash() != hash || got.GetName() != name || got.GetDefault() != (name == "main") ||
				got.GetCommit().GetUrl() != s.emulator.SiteURL()+"/acme/web/commits/"+hash {
				t.Errorf("GetBranch(%s) = %v, %v; want head %s", name, got, err, hash)
			}
		}
		for name, want := range map[string]apierr.Reason{"Main": apierr.ReasonBranchNotFound, "nothing": apierr.ReasonBranchNotFound, "../hooks": apierr.ReasonBranchNotFound, "": apierr.ReasonInvalidArgument} {
			_, err := get(webID, name)
			if e := apierr.From(err); e.Reason() != want || (want == apierr.ReasonBranchNotFound && !strings.Contains(e.Message(), "acme/web")) {
				t.Errorf("GetBranch(%q): err = %v", name, err)
			}
		}
		if _, err := get(emulator.SeededUUID("repository", "acme/payroll"), "main"); !apierr.Has(err, apierr.ReasonRepositoryNotFound) {
			t.Errorf("unreachable repository: err = %v", err)
		}
		s.list(r)
	}
	s.do(s.control.TransferRepository(t.Context(), "acme/web", "jane-dev"))
	if got, err := get(webID, "main"); err != nil || !strings.Contains(got.GetCommit().GetUrl(), "/jane-dev/web/") {
		t.Errorf("after a transfer: %v, %v", got, err)
	}
}

// An app that is about to be saved costs two calls: the repository and its branch.
func TestGetHead_theRepositoryAndItsBranch(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	refs, err := s.control.Refs(t.Context(), "acme/web")
	s.do(err)
	head := func(branch string) *repov1.GetHeadResponse {
		t.Helper()
		resp, err := r.deployer.GetHead(t.Context(), &repov1.GetHeadRequest{Workspace: workspace, Repository: webID, Branch: branch})
		if err != nil || resp.GetRepository().GetFullName() != "acme/web" || resp.GetRepository().GetBitbucketWorkspaceId() == "" {
			t.Fatalf("branch %q: %v, %v", branch, resp, err)
		}
		return resp
	}
	for _, listed := range []bool{false, true} {
		if listed {
			s.list(r)
		}
		s.resetCalls()
		if resp := head("main"); resp.GetHash() != refs["refs/heads/main"] {
			t.Errorf("main is at %q", resp.GetHash())
		}
		if total, routes := s.calls(); total != 2 {
			t.Errorf("listed %v: %d calls: %v", listed, total, routes)
		}
	}
	if resp := head("gone"); resp.Hash == nil || resp.GetHash() != "" {
		t.Errorf("no such branch: %v", resp.Hash)
	}
	if resp := head(""); resp.Hash != nil {
		t.Errorf("no branch asked for: %v", resp.Hash)
	}
	s.inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Route: "/2.0/repositories/{workspace}/{repository}/refs/branches/{branch...}"})
	if resp := head("main"); resp.Hash != nil {
		t.Errorf("a branch that Bitbucket does not tell: %v", resp.Hash)
	}
	if _, err := r.deployer.GetHead(t.Context(), &repov1.GetHeadRequest{Workspace: workspace, Repository: emulator.SeededUUID("repository", "nobody/has"), Branch: "main"}); !apierr.Has(err, apierr.ReasonRepositoryNotFound) {
		t.Errorf("no such repository: %v", err)
	}
}
