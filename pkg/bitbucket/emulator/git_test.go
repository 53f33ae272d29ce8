package emulator_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func (f *fixture) remote(fullName string) string { return f.server.SiteURL() + "/" + fullName + ".git" }

func TestGit_cloneAndFetchWithATokenOf2700Characters(t *testing.T) {
	t.Parallel()
	f := start(t)
	g := newGitHelper(t, "x-token-auth", f.tokens("jane-dev", "repository").AccessToken)
	dir := g.clone(f.remote("acme/web"))
	refs, err := f.control.Refs(t.Context(), "acme/web")
	f.must(err)
	if head := g.run(dir, "rev-parse", "HEAD"); head != refs["refs/heads/main"] {
		t.Errorf("HEAD is %s, want %s", head, refs["refs/heads/main"])
	}
	if branches := g.run(dir, "branch", "--remotes", "--format=%(refname:lstrip=3)"); !strings.Contains(branches, "feature/login") {
		t.Errorf("branches: %s", branches)
	}
	// The suffix .git is optional; slugs are in any case.
	g.run(dir, "ls-remote", f.server.SiteURL()+"/acme/web")
	g.run(dir, "ls-remote", f.server.SiteURL()+"/ACME/Web.git")
	// The credential is nowhere in what git wrote.
	config, err := os.ReadFile(filepath.Join(dir, ".git", "config"))
	f.must(err)
	if strings.Contains(string(config), "x-token-auth") {
		t.Errorf("config: %s", config)
	}
}

func TestGit_protocolVersionsPartialAndShallow(t *testing.T) {
	t.Parallel()
	f := start(t)
	g := newGit(t, "x-token-auth", f.tokens("jane-dev").AccessToken)
	g.env = append(g.env, "GIT_TRACE_PACKET=1")
	for version, marker := range map[string]string{"0": "", "2": "< version 2"} {
		out := g.run(g.home, "-c", "protocol.version="+version, "ls-remote", f.remote("acme/web"))
		if marker != "" && !strings.Contains(out, marker) {
			t.Errorf("version %s: %s", version, out)
		}
		if !strings.Contains(out, "refs/heads/main") {
			t.Errorf("version %s lists no branches", version)
		}
	}
	g.env = g.env[:len(g.env)-1]
	shallow := g.clone(f.remote("acme/web"), "--depth=1")
	if count := g.run(shallow, "rev-list", "--count", "HEAD"); count != "1" {
		t.Errorf("shallow clone has %s commits", count)
	}
	partial := g.clone(f.remote("acme/web"), "--filter=blob:none", "--no-checkout")
	if missing := g.run(partial, "rev-list", "--objects", "--missing=print", "--all"); !strings.Contains(missing, "?") {
		t.Error("a blob-less clone has all blobs")
	}
}

func TestGit_anyCommitCanBeFetchedUnlessSwitchedOff(t *testing.T) {
	t.Parallel()
	f := start(t)
	before, err := f.control.Refs(t.Context(), "acme/web")
	f.must(err)
	f.push("acme/web", emulator.RefChange{Branch: "feature/login", From: "main"})
	orphaned := before["refs/heads/feature/login"]
	g := newGit(t, "x-token-auth", f.tokens("jane-dev").AccessToken)
	dir := g.clone(f.remote("acme/web"))
	g.run(dir, "fetch", "--quiet", "origin", orphaned)
	f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.RefuseAnySHA1 = true }))
	other := g.clone(f.remote("acme/web"))
	if out, err := g.try(other, "-c", "protocol.version=0", "fetch", "origin", orphaned); err == nil {
		t.Errorf("fetched an unreachable commit: %s", out)
	}
}

func TestGit_refusalsInTheTextsOfSection8(t *testing.T) {
	t.Parallel()
	f := start(t)
	good := f.tokens("jane-dev").AccessToken
	expired := f.tokens("jane-dev")
	_, err := f.control.ExpireTokens(t.Context(), expired.GrantID)
	f.must(err)
	for _, tc := range []struct {
		name, user, password, repository, service string
		status                                    int
		text                                      string
	}{
		{"no credentials", "", "", "acme/web", "git-upload-pack", 401, ""},
		{"garbage token", "x-token-auth", "garbage", "acme/web", "git-upload-pack", 401, ""},
		{"expired token", "x-token-auth", expired.AccessToken, "acme/web", "git-upload-pack", 401, ""},
		{"wrong password", "jane-dev", "wrong", "acme/web", "git-upload-pack", 401, ""},
		{"token under another user name", "jane-dev", good, "acme/web", "git-upload-pack", 401, ""},
		{"no repository scope", "x-token-auth", f.tokens("jane-dev", "account").AccessToken, "acme/web", "git-upload-pack", 403, "Your credentials lack one or more required privilege scopes."},
		{"push without write scope", "x-token-auth", good, "acme/web", "git-receive-pack", 403, "Your credentials lack one or more required privilege scopes."},
		{"no access", "x-token-auth", good, "acme/payroll", "git-upload-pack", 403, "The requested repository either does not exist or you do not have access. If you believe this repository exists and you have access, make sure you're authenticated."},
		{"no such repository", "x-token-auth", good, "acme/nothing", "git-upload-pack", 404, noRepository},
		{"push with read permission", "jane-dev", "jane-dev-password", "acme/legacy", "git-receive-pack", 403, "Access denied. You must have write or admin access."},
		{"anonymous push to public", "", "", "acme/docs", "git-receive-pack", 401, ""},
		{"dumb protocol", "x-token-auth", good, "acme/web", "", 403, "Only the smart protocol is served."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.remote(tc.repository)+"/info/refs?service="+tc.service, nil)
			f.must(err)
			if tc.user != "" {
				request.SetBasicAuth(tc.user, tc.password)
			}
			a := f.send(request).want(t, tc.status)
			if tc.text != "" && string(a.raw) != tc.text {
				t.Errorf("got %s", a.raw)
			}
			if tc.status == 401 && a.Header.Get("WWW-Authenticate") != `Basic realm="Bitbucket.org HTTP"` {
				t.Errorf("WWW-Authenticate: %q", a.Header.Get("WWW-Authenticate"))
			}
		})
	}
	newGitConfig(t, "").run(t.TempDir(), "ls-remote", f.remote("acme/docs"))
}

func TestGit_pushAsPersonWithEachKindOfName(t *testing.T) {
	t.Parallel()
	f := start(t)
	g := newGitHelper(t, "jane-dev", "jane-dev-password")
	dir := g.clone(f.remote("acme/web"))
	g.write(dir, "index.html", "pushed")
	g.run(dir, "commit", "--quiet", "--all", "--message", "Say hello")
	g.run(dir, "push", "--quiet")
	refs := must(f.control.Refs(t.Context(), "acme/web"))(t)
	if refs["refs/heads/main"] != g.run(dir, "rev-parse", "HEAD") {
		t.Error("the push is not there")
	}
	for user, password := range map[string]string{
		"jane@example.test": "jane-dev-password", "x-bitbucket-api-token-auth": "jane-dev-password",
		"x-token-auth": f.tokens("jane-dev", "repository:write").AccessToken,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.remote("acme/web")+"/info/refs?service=git-receive-pack", nil)
		f.must(err)
		request.SetBasicAuth(user, password)
		f.send(request).want(t, 200)
	}
}

// TestGit_largePushComesChunked pushes more than git's http.postBuffer, so git sends a chunked body.
func TestGit_largePushComesChunked(t *testing.T) {
	t.Parallel()
	f := start(t)
	g := newGit(t, "jane-dev", "jane-dev-password")
	dir := g.clone(f.remote("acme/web"))
	noise := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{1})
	if _, err := random.Read(noise); err != nil {
		t.Fatal(err)
	}
	g.write(dir, "noise.bin", string(noise))
	g.run(dir, "add", ".")
	g.run(dir, "commit", "--quiet", "--message", "Noise")
	g.run(dir, "push", "--quiet")
	refs, err := f.control.Refs(t.Context(), "acme/web")
	f.must(err)
	if refs["refs/heads/main"] != g.run(dir, "rev-parse", "HEAD") {
		t.Error("the push is not there")
	}
}

func TestGit_gzippedRequestBody(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, err := io.WriteString(zip, "0014command=ls-refs\n0000")
	f.must(err)
	f.must(zip.Close())
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.remote("acme/web")+"/git-upload-pack", &packed)
	f.must(err)
	request.SetBasicAuth("x-token-auth", token)
	request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Git-Protocol", "version=2")
	if a := f.send(request).want(t, 200); !bytes.Contains(a.raw, []byte("refs/heads/main")) {
		t.Errorf("got %q", a.raw)
	}
}

func TestGit_emptyRepositoryCloneAndFirstPush(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	g := newGit(t, "jane-dev", "jane-dev-password")
	dir := g.clone(f.remote("acme/empty"))
	g.write(dir, "a.txt", "a")
	g.run(dir, "add", ".")
	g.run(dir, "commit", "--quiet", "--message", "First")
	g.run(dir, "push", "--quiet", "origin", "HEAD:refs/heads/trunk")
	if a := f.call("GET", "/repositories/acme/empty", token, nil); a.at("mainbranch", "name") != "trunk" {
		t.Errorf("main branch: %v", a.json["mainbranch"])
	}
	if again := g.clone(f.remote("acme/empty")); g.run(again, "rev-parse", "--abbrev-ref", "HEAD") != "trunk" {
		t.Error("HEAD does not follow the main branch")
	}
	// The main branch may be deleted; its name stays (BITBUCKET.md#default-branch).
	g.run(dir, "push", "--quiet", "origin", ":refs/heads/trunk")
	if a := f.call("GET", "/repositories/acme/empty", token, nil); a.at("mainbranch", "name") != "trunk" {
		t.Errorf("main branch after deletion: %v", a.json["mainbranch"])
	}
	f.call("GET", "/repositories/acme/empty/refs/branches/trunk", token, nil).want(t, 404)
}

func TestGit_renamedRepositoryKeepsItsData(t *testing.T) {
	t.Parallel()
	f := start(t)
	g := newGit(t, "x-token-auth", f.tokens("jane-dev").AccessToken)
	before := g.run(g.home, "ls-remote", f.remote("acme/web"))
	f.must(f.control.RenameRepository(t.Context(), "acme/web", "website"))
	if after := g.run(g.home, "ls-remote", f.remote("acme/website")); after != before {
		t.Errorf("refs differ:\n%s\n%s", before, after)
	}
	if _, err := g.try(g.home, "ls-remote", f.remote("acme/web")); err == nil {
		t.Error("the old name still works")
	}
}
