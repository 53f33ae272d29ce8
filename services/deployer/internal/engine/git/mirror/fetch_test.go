package mirror

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func TestFetch_checksOutTheHeadAndFollowsIt(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"index.html": "one", "a/b/c.txt": "deep", "a/b.txt": "beside", "näme with space.txt": "x", "empty": "", "crlf.txt": "a\r\nb\r\n"}
	first := repo.Commit("main", "First\n\nwith a body", files)
	dir, head, err := f.deploy("main")
	if err != nil {
		t.Fatal(err)
	}
	if head.Hash != first || head.Message != "First\n\nwith a body" || head.AuthorName != "Jane Developer" || head.AuthorEmail != "jane@example.test" || head.Time.IsZero() {
		t.Fatalf("head: %+v, want %s", head, first)
	}
	same(t, filesIn(t, dir), files)

	files["index.html"] = "two"
	delete(files, "empty")
	second := repo.Commit("main", "Second", files)
	dir, head, err = f.deploy("main")
	if err != nil || head.Hash != second {
		t.Fatalf("second: %v %v", head.Hash, err)
	}
	same(t, filesIn(t, dir), files)

	repo.Set("main", first) // forced back
	if _, head, err = f.deploy("main"); err != nil || head.Hash != first {
		t.Fatalf("forced: %v %v", head.Hash, err)
	}
}

func TestFetch_branchesThatNestDoNotCollide(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("feature", "a", map[string]string{"f": "1"})
	if _, _, err := f.deploy("feature"); err != nil {
		t.Fatal(err)
	}
	repo.Delete("feature")
	repo.Commit("feature/login", "b", map[string]string{"f": "2"})
	if dir, _, err := f.deploy("feature/login"); err != nil || filesIn(t, dir)["f"] != "2" {
		t.Fatal(err)
	}
}

func TestFetch_modesLinksAndSubmodules(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	sub := repo.Tree(gittest.E("100644", "x", "x"), gittest.E("120000", "up", "../run.sh"))
	repo.CommitTree("main", repo.Tree(
		gittest.E("100755", "run.sh", "#!/bin/sh\n"), gittest.E("040000", "dir", sub), gittest.E("120000", "latest", "dir/x"),
		gittest.E("120000", "nowhere", "not/there"), gittest.E("160000", "lib", strings.Repeat("1", 40)),
	), "links")
	dir, _, err := f.deploy("main")
	if err != nil {
		t.Fatal(err)
	}
	same(t, filesIn(t, dir), map[string]string{"run.sh": "#!/bin/sh\n", "dir/x": "x", "dir/up": "-> ../run.sh", "latest": "-> dir/x", "nowhere": "-> not/there"})
	info, err := os.Stat(filepath.Join(dir, "run.sh"))
	if err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Fatalf("run.sh: %v %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "lib")); err != nil || !info.IsDir() {
		t.Fatalf("submodule's place: %v", err)
	}
}

func TestFetch_reasons(t *testing.T) {
	const (
		noAccess = "The requested repository either does not exist or you do not have access. If you believe this repository exists and you have access, make sure you're authenticated."
		always   = true
	)
	answer := func(status int, text string) func(*http.Request) (int, string) {
		return func(*http.Request) (int, string) { return status, text }
	}
	for _, c := range []struct {
		name      string
		branch    string
		fail      func(*http.Request) (int, string)
		reason    apierr.Reason
		temporary bool
		gone      bool
	}{
		{"no such branch", "nope", nil, apierr.ReasonBranchNotFound, false, false},
		{"IP allow-list", "main", answer(403, "To access this repository, an admin must whitelist your IP."), apierr.ReasonAccessRestricted, false, false},
		{"two-step", "main", answer(403, "To access this repository, enable two-step authentication."), apierr.ReasonAccessRestricted, false, false},
		{"no permission", "main", answer(403, noAccess), apierr.ReasonRepositoryNotFound, false, always},
		{"not found", "main", answer(404, "You may not have access to this repository or it no longer exists in this workspace."), apierr.ReasonRepositoryNotFound, false, always},
		{"scope", "main", answer(403, "Your credentials lack one or more required privilege scopes."), apierr.ReasonScopeMissing, false, false},
		{"rate", "main", answer(429, "Rate limit for this resource has been exceeded"), apierr.ReasonBitbucketRateLimited, true, false},
		{"down", "main", answer(503, "<html>"), apierr.ReasonBitbucketUnavailable, true, false},
		{"internal timeout", "main", answer(555, ""), apierr.ReasonBitbucketUnavailable, true, false},
		{"redirect", "main", answer(302, ""), apierr.ReasonBitbucketUnavailable, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := setUp(t, Limits{})
			f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
			f.git.Fail(c.fail)
			_, _, err := f.deploy(c.branch)
			var e *remote.Error
			if !errors.As(err, &e) || e.Reason != string(c.reason) || e.Temporary != c.temporary || remote.IsGone(err) != c.gone || e.Message == "" {
				t.Fatalf("got %#v (%v)", e, err)
			}
			if strings.Contains(err.Error()+e.Message, token) {
				t.Fatal("the token is in the error")
			}
		})
	}
}

func TestFetch_emptyRepositoryHasNoBranch(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web")
	if _, _, err := f.deploy("main"); reason(err) != string(apierr.ReasonBranchNotFound) {
		t.Fatal(err)
	}
}

func TestFetch_rejectedTokenIsRenewedOnce(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	f.tokens.List = []string{"old-token-000000000000", token}
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	if len(f.tokens.Rejected) != 1 || f.tokens.Rejected[0] != "old-token-000000000000" {
		t.Fatalf("rejected: %d", len(f.tokens.Rejected))
	}
	f.git.Accept("another")
	f.tokens.List, f.tokens.Rejected = []string{"one", "two", "three", "four", "five"}, nil
	if _, _, err := f.deploy("main"); reason(err) != string(apierr.ReasonTokenExpired) {
		t.Fatalf("one 401 after the other: %v", err)
	}
	if len(f.tokens.Rejected) != remote.MaxTokens-1 {
		t.Fatalf("%d renewals", len(f.tokens.Rejected))
	}
}

func TestFetch_tokenTroubleIsTemporary(t *testing.T) {
	f := setUp(t, Limits{})
	f.tokens.Err = apierr.New(apierr.ReasonReconnectRequired, "Connect again.")
	_, _, err := f.deploy("main")
	var e *remote.Error
	if !errors.As(err, &e) || e.Reason != string(apierr.ReasonReconnectRequired) || !e.Temporary {
		t.Fatal(err)
	}
}

func TestFetch_hostileNamesAreNoOptions(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	for _, branch := range []string{"--upload-pack=touch pwned", "-x", "--help"} {
		if strings.ContainsAny(branch, " ") {
			if _, _, err := f.deploy(branch); reason(err) != string(apierr.ReasonBranchNotFound) {
				t.Errorf("%q: %v", branch, err)
			}
			continue
		}
		hash := repo.Commit("tmp", "x", map[string]string{"f": branch})
		repo.Set(branch, hash)
		if dir, _, err := f.deploy(branch); err != nil || filesIn(t, dir)["f"] != branch {
			t.Errorf("%q: %v", branch, err)
		}
		heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: named(branch, "*", "nope")})
		if err != nil || len(heads.Branches) != 1 || heads.Branches[branch] != hash {
			t.Errorf("heads of %q: %v %v", branch, heads, err)
		}
	}
	for _, name := range []string{"--upload-pack=x/y", "acme/../web", "acme", "acme/we b", "../x", "a/b/c", "https://evil.test/x", "-x/y"} {
		src := source("main")
		src.FullName = name
		if s, err := f.mirrors.Fetch(t.Context(), src); reason(err) != string(apierr.ReasonRepositoryNotFound) {
			t.Errorf("%q: %v %v", name, s, err)
		}
	}
	if len(f.git.Requests()) == 0 {
		t.Fatal("the server saw nothing at all")
	}
}

func TestFetch_manyAtOnceShareOneMirror(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": "main"})
	repo.Commit("dev", "x", map[string]string{"f": "dev"})
	var wg sync.WaitGroup
	for i := range 6 {
		branch := []string{"main", "dev"}[i%2]
		wg.Go(func() {
			dir, _, err := f.deploy(branch)
			if err != nil || filesIn(t, dir)["f"] != branch {
				t.Errorf("%s: %v", branch, err)
			}
		})
	}
	wg.Wait()
}
