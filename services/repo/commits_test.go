package repo_test

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func (s *stack) commits(r *replica, req *repov1.ListCommitsRequest) *repov1.ListCommitsResponse {
	s.t.Helper()
	req.Workspace, req.Repository = workspace, webID
	resp, err := r.ListCommits(s.ctx(), req)
	s.do(err)
	return resp
}

func subjects(list []*repov1.BranchCommit) []string {
	var all []string
	for _, c := range list {
		all = append(all, strings.TrimSpace(c.GetMessage()))
	}
	return all
}

func TestListCommits_pagesStandStillWhilePeoplePush(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	for n := range 5 {
		_, err := s.control.Commit(t.Context(), "acme/web", "feature/login", fmt.Sprintf("Number %d\n", n), map[string]string{"n": fmt.Sprint(n)})
		s.do(err)
	}
	refs, err := s.control.Refs(t.Context(), "acme/web")
	s.do(err)
	var all []*repov1.BranchCommit
	token := ""
	for page := 0; ; page++ {
		resp := s.commits(r, &repov1.ListCommitsRequest{Branch: "feature/login", PageSize: 2, PageToken: token})
		if resp.GetBranch() != "feature/login" || len(resp.GetCommits()) > 2 {
			t.Fatalf("page %d = %v", page, resp)
		}
		all = append(all, resp.GetCommits()...)
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
		_, err = s.control.Commit(t.Context(), "acme/web", "feature/login", "Meanwhile\n", map[string]string{"m": fmt.Sprint(page)})
		s.do(err)
	}
	got := subjects(all)
	if want := []string{"Number 4", "Number 3", "Number 2", "Number 1", "Number 0", "Add a login page"}; len(got) < 7 || cmp.Diff(want, got[:6]) != "" {
		t.Errorf("history = %q", got)
	}
	first := all[0]
	if first.GetHash() != refs["refs/heads/feature/login"] || first.GetAuthorName() == "" || first.GetTime() == nil ||
		first.GetUrl() != s.emulator.SiteURL()+"/acme/web/commits/"+first.GetHash() {
		t.Errorf("commit = %v", first)
	}
	if hashes := hashesOf(all); len(slices.Compact(slices.Sorted(slices.Values(hashes)))) != len(hashes) {
		t.Errorf("a commit is listed twice: %q", got)
	}
	// The main branch where none is named; a token is of its own list.
	if resp := s.commits(r, &repov1.ListCommitsRequest{}); resp.GetBranch() != "main" || resp.GetCommits()[0].GetHash() != refs["refs/heads/main"] {
		t.Errorf("without a branch: %v", resp)
	}
	paged := s.commits(r, &repov1.ListCommitsRequest{Branch: "feature/login", PageSize: 1})
	for what, c := range map[string]struct {
		req    *repov1.ListCommitsRequest
		reason apierr.Reason
	}{
		"another branch's token": {&repov1.ListCommitsRequest{Repository: webID, Branch: "main", PageToken: paged.GetNextPageToken()}, apierr.ReasonPageTokenInvalid},
		"no such branch":         {&repov1.ListCommitsRequest{Repository: webID, Branch: "gone"}, apierr.ReasonBranchNotFound},
		"no name of a branch":    {&repov1.ListCommitsRequest{Repository: webID, Branch: "a..b"}, apierr.ReasonInvalidArgument},
	} {
		c.req.Workspace = workspace
		if _, err := r.ListCommits(s.ctx(), c.req); !apierr.Has(err, c.reason) {
			t.Errorf("%s: %v, want %s", what, err, c.reason)
		}
	}
	empty, err := r.ListCommits(s.ctx(), &repov1.ListCommitsRequest{Workspace: workspace, Repository: emulator.SeededUUID("repository", "acme/empty")})
	if err != nil || len(empty.GetCommits()) != 0 || empty.GetBranch() != "" {
		t.Errorf("an empty repository: %v, %v", empty, err)
	}
}

func hashesOf(list []*repov1.BranchCommit) []string {
	var all []string
	for _, c := range list {
		all = append(all, c.GetHash())
	}
	return all
}

func TestListCommits_equalQuestionsShareAnAnswerForFiveSeconds(t *testing.T) {
	s := newStack(t, "sample")
	one, two := s.replica(), s.replica()
	s.list(one)
	s.resetCalls()
	for range 3 {
		s.commits(one, &repov1.ListCommitsRequest{Branch: "main"})
		s.commits(two, &repov1.ListCommitsRequest{Branch: "main"})
	}
	if total, routes := s.calls(); total != 3 { // the repository, the branch, its history
		t.Errorf("%d calls: %v", total, routes)
	}
	s.clock.advance(5 * time.Second)
	s.commits(two, &repov1.ListCommitsRequest{Branch: "main"})
	if total, _ := s.calls(); total != 6 {
		t.Errorf("after five seconds: %d calls", total)
	}
}

func TestListTags_newestFirst(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	tags := func(query, token string, size int32) *repov1.ListTagsResponse {
		t.Helper()
		resp, err := r.ListTags(s.ctx(), &repov1.ListTagsRequest{Workspace: workspace, Repository: webID, Query: query, PageToken: token, PageSize: size})
		s.do(err)
		return resp
	}
	before := len(tags("", "", 0).GetTags())
	hash, err := s.control.Commit(t.Context(), "acme/web", "main", "Release\n", map[string]string{"v": "2"})
	s.do(err)
	_, err = s.control.Push(t.Context(), "acme/web", "", emulator.RefChange{Tag: "v9/light", From: "main"}, emulator.RefChange{Tag: "v9/annotated", From: "main", Annotation: "Nine"},
		emulator.RefChange{Tag: "main", From: "feature/login"})
	s.do(err)
	s.clock.advance(5 * time.Second)
	resp := tags("", "", 0)
	if len(resp.GetTags()) != before+3 || int(resp.GetTotalSize()) != before+3 {
		t.Fatalf("tags = %v", resp)
	}
	for n, name := range []string{"v9/annotated", "v9/light"} {
		if got := resp.GetTags()[n]; got.GetName() != name || got.GetCommit().GetHash() != hash || got.GetCommit().GetMessage() != "Release\n" {
			t.Errorf("tag %d = %v", n, got)
		}
	}
	first := tags("V9", "", 1)
	second := tags("V9", first.GetNextPageToken(), 1)
	if first.GetTotalSize() != 2 || first.GetTags()[0].GetName() != "v9/annotated" || second.GetTags()[0].GetName() != "v9/light" || second.GetNextPageToken() != "" {
		t.Errorf("paged search: %v, %v", first, second)
	}
	if _, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: webID, PageToken: first.GetNextPageToken()}); !apierr.Has(err, apierr.ReasonPageTokenInvalid) {
		t.Errorf("a tag's token lists branches: %v", err)
	}
}

func TestResolveCommit_whatAPersonMayName(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	old, err := s.control.Commit(t.Context(), "acme/web", "main", "Old\n\nwith a body\n", map[string]string{"a": "1"})
	s.do(err)
	_, err = s.control.Commit(t.Context(), "acme/web", "main", "New\n", map[string]string{"a": "2"})
	s.do(err)
	refs, err := s.control.Refs(t.Context(), "acme/web")
	s.do(err)
	login := refs["refs/heads/feature/login"]
	_, err = s.control.Push(t.Context(), "acme/web", "", emulator.RefChange{Tag: "v9", From: "feature/login", Annotation: "Nine"})
	s.do(err)
	resolve := func(req *repov1.ResolveCommitRequest) (*repov1.BranchCommit, error) {
		req.Workspace, req.Repository = workspace, webID
		resp, err := r.deployer.ResolveCommit(t.Context(), req)
		return resp.GetCommit(), err
	}
	for _, beginning := range []string{old, old[:7], old[:12]} {
		got, err := resolve(&repov1.ResolveCommitRequest{Commit: beginning, Branch: "main"})
		if err != nil || got.GetHash() != old || got.GetMessage() != "Old\n\nwith a body\n" || got.GetAuthorName() == "" {
			t.Errorf("%s = %v, %v", beginning, got, err)
		}
	}
	if got, err := resolve(&repov1.ResolveCommitRequest{Tag: "v9"}); err != nil || got.GetHash() != login {
		t.Errorf("v9 = %v, %v", got, err)
	}
	for what, c := range map[string]struct {
		req    *repov1.ResolveCommitRequest
		reason apierr.Reason
	}{
		"of another branch":    {&repov1.ResolveCommitRequest{Commit: login, Branch: "main"}, apierr.ReasonCommitNotInBranch},
		"no such commit":       {&repov1.ResolveCommitRequest{Commit: strings.Repeat("0", 40), Branch: "main"}, apierr.ReasonCommitNotFound},
		"no such beginning":    {&repov1.ResolveCommitRequest{Commit: "0000000", Branch: "main"}, apierr.ReasonCommitNotFound},
		"no such branch":       {&repov1.ResolveCommitRequest{Commit: old, Branch: "gone"}, apierr.ReasonBranchNotFound},
		"no such tag":          {&repov1.ResolveCommitRequest{Tag: "v10"}, apierr.ReasonTagNotFound},
		"a branch is no tag":   {&repov1.ResolveCommitRequest{Tag: "main"}, apierr.ReasonTagNotFound},
		"no name of a tag":     {&repov1.ResolveCommitRequest{Tag: "../main"}, apierr.ReasonTagNotFound},
		"six digits":           {&repov1.ResolveCommitRequest{Commit: old[:6], Branch: "main"}, apierr.ReasonInvalidArgument},
		"what git understands": {&repov1.ResolveCommitRequest{Commit: "HEAD~1", Branch: "main"}, apierr.ReasonInvalidArgument},
	} {
		if _, err := resolve(c.req); !apierr.Has(err, c.reason) {
			t.Errorf("%s: %v, want %s", what, err, c.reason)
		}
	}
	if _, err := r.ResolveCommit(s.ctx(), &repov1.ResolveCommitRequest{Workspace: workspace, Repository: webID, Tag: "v9"}); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("the gateway may resolve: %v", err)
	}
}

// git runs git in a directory, and returns what it prints.
func git(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=Jane", "-c", "user.email=jane@example.test"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(cmd.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// twins makes two commits on a parent whose hashes begin with the same seven digits.
func twins(t *testing.T, dir, parent string) (one, two string) {
	t.Helper()
	tree := git(t, dir, "", "rev-parse", parent+"^{tree}")
	body := func(n int) string {
		return fmt.Sprintf("tree %s\nparent %s\nauthor Jane <jane@example.test> 1770000000 +0000\ncommitter Jane <jane@example.test> 1770000000 +0000\n\nTwin %d\n", tree, parent, n)
	}
	seen := map[string]int{}
	for n := 0; ; n++ {
		text := body(n)
		sum := sha1.Sum(fmt.Appendf(nil, "commit %d\x00%s", len(text), text)) //nolint:gosec // git's
		beginning := hex.EncodeToString(sum[:])[:7]
		if m, twice := seen[beginning]; twice {
			return git(t, dir, body(m), "hash-object", "-t", "commit", "-w", "--stdin"), git(t, dir, text, "hash-object", "-t", "commit", "-w", "--stdin")
		}
		seen[beginning] = n
	}
}

func TestResolveCommit_aBeginningThatTwoCommitsHaveIsRefused(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	dir := t.TempDir()
	remote := strings.Replace(s.emulator.SiteURL(), "://", "://jane-dev:jane-dev-password@", 1) + "/acme/web.git"
	git(t, dir, "", "clone", "--quiet", remote, ".")
	one, two := twins(t, dir, git(t, dir, "", "rev-parse", "HEAD"))
	if one == two || one[:7] != two[:7] {
		t.Fatalf("%s and %s are no twins", one, two)
	}
	merge := git(t, dir, "", "commit-tree", "-p", one, "-p", two, "-m", "Both", one+"^{tree}")
	git(t, dir, "", "push", "--quiet", "origin", merge+":refs/heads/main")
	resolve := func(commit string) (string, error) {
		resp, err := r.deployer.ResolveCommit(t.Context(), &repov1.ResolveCommitRequest{Workspace: workspace, Repository: webID, Commit: commit, Branch: "main"})
		return resp.GetCommit().GetHash(), err
	}
	if got, err := resolve(one[:7]); !apierr.Has(err, apierr.ReasonCommitAmbiguous) {
		t.Errorf("%s, %v", got, err)
	}
	for _, hash := range []string{one, two} {
		if got, err := resolve(hash); err != nil || got != hash {
			t.Errorf("%s = %s, %v", hash, got, err)
		}
	}
}
