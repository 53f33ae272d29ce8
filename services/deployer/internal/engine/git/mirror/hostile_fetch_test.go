package mirror

import (
	"crypto/sha1" // what git's packs end with
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func itoa(i int) string { return strconv.Itoa(i) }

// answerPack has the server say, in version 2 of the protocol, that it has one branch, and send a
// body as the pack with it.
func answerPack(f *fixture, hash string, body func() string) {
	f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			return false
		}
		if strings.HasSuffix(r.URL.Path, "/info/refs") {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = w.Write([]byte(gittest.Pkt("# service=git-upload-pack\n") + "0000" + gittest.Pkt("version 2\n") + gittest.Pkt("ls-refs\n") + gittest.Pkt("fetch=shallow\n") + gittest.Pkt("object-format=sha1\n") + "0000"))
			return true
		}
		asked, err := io.ReadAll(r.Body)
		if err != nil {
			return true
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		if strings.Contains(string(asked), "command=ls-refs") {
			_, _ = w.Write([]byte(gittest.Pkt(hash+" refs/heads/main\n") + "0000"))
			return true
		}
		f.packs.Add(1)
		_, _ = w.Write([]byte(gittest.Pkt("shallow-info\n") + gittest.Pkt("shallow "+hash+"\n") + "0001" + gittest.Pkt("packfile\n")))
		for rest := body(); len(rest) > 0; {
			n := min(len(rest), 60_000)
			_, _ = w.Write([]byte(gittest.Pkt("\x01" + rest[:n])))
			rest = rest[n:]
		}
		_, _ = w.Write([]byte("0000"))
		return true
	})
}

func packOf(objects int, body string) string {
	p := "PACK\x00\x00\x00\x02" + string([]byte{byte(objects >> 24), byte(objects >> 16), byte(objects >> 8), byte(objects)}) + body
	sum := sha1.Sum([]byte(p)) // what git's packs end with
	return p + string(sum[:])
}

// outside lists everything beside the cache directory that a hostile repository could have reached.
func outside(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			out[p] = d.Type().String()
		}
		return err
	}))
	return out
}

// onlyDeep are tricks that the same code sees through as others that are always played.
var onlyDeep = []string{
	"submodule: option as path", "submodule: name leads out, \\\\", "submodule: absolute path", "submodule: directory", "submodule: ssh", "submodule: update command",
	"submodule: place is .GIT", "submodule: place is git~1",
	"pack: other version", "pack: empty", "pack: delta of nothing", "pack: wrong sum", "pack: garbage", "answer: nothing",
}

// TestHostile_fetch plays one trick after the other on the same mirror (those of onlyDeep with
// -mirror.deep). Each ends in a clear failure,
// in bounded time; nothing beside the cache directory is touched, no process is left, and the
// mirror's configuration is what it was.
func TestHostile_fetch(t *testing.T) {
	branch := func(name string) func(*fixture) Source {
		return func(*fixture) Source { return source(name) }
	}
	tag := func(name string) func(*fixture) Source {
		return func(*fixture) Source { s := source(""); s.Tag = name; return s }
	}
	commit := func(hash string) func(*fixture) Source {
		return func(*fixture) Source { return commitSource("main", hash, true) }
	}
	named := func(name string) func(*fixture) Source {
		return func(*fixture) Source { s := source("main"); s.FullName = name; return s }
	}
	modules := func(text string) func(*fixture) Source {
		return func(f *fixture) Source {
			lib := commits(f.git.Repo("acme/lib"), "main", 1)[0]
			superCommit(f.git.Repo("acme/web"), "main", text, map[string]string{"lib": lib})
			return withSubmodules("main")
		}
	}
	gitlinkAt := func(mode, path string) func(*fixture) Source {
		return func(f *fixture) Source {
			repo := f.git.Repo("acme/web")
			repo.CommitTree("main", repo.Tree(gittest.E("100644", ".gitmodules", module("lib", path, "../lib")), gittest.E(mode, path, strings.Repeat("1", 40))), "x")
			return withSubmodules("main")
		}
	}
	bogus := func(body func() string) func(*fixture) Source {
		return func(f *fixture) Source {
			answerPack(f, strings.Repeat("1", 40), body)
			return source("main")
		}
	}
	shared := setUp(t, Limits{StallTime: 2 * time.Second, FetchTime: 20 * time.Second})
	shared.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	refused, gone, unavailable := string(apierr.ReasonBranchNotFound), string(apierr.ReasonRepositoryNotFound), string(apierr.ReasonBitbucketUnavailable)
	for name, c := range map[string]struct {
		make    func(*fixture) Source
		reasons []string
	}{
		"branch: option":             {branch("--upload-pack=touch${IFS}pwned"), []string{refused}},
		"branch: option with spaces": {branch("--upload-pack=touch pwned"), []string{refused}},
		"branch: short option":       {branch("-upwned"), []string{refused}},
		"branch: refspec":            {branch("main:refs/heads/x"), []string{refused}},
		"branch: pattern":            {branch("*"), []string{refused}},
		"branch: line":               {branch("main\nrefs/heads/x"), []string{refused}},
		"branch: out":                {branch("../../../x"), []string{refused}},
		"branch: reflog":             {branch("main@{1}"), []string{refused}},
		"tag: option":                {tag("--exec=x"), []string{remote.ReasonTagNotFound}},
		"tag: out":                   {tag("../heads/main"), []string{remote.ReasonTagNotFound}},
		"commit: option":             {commit("--upload-pack=x"), []string{remote.ReasonCommitGone}},
		"commit: name":               {commit("refs/heads/main"), []string{remote.ReasonCommitGone}},
		"commit: short":              {commit("abcd"), []string{remote.ReasonCommitGone}},
		"repository: option":         {named("--upload-pack=x/y"), []string{gone}},
		"repository: out":            {named("../../etc"), []string{gone}},
		"repository: protocol":       {named("ext::sh/x"), []string{gone}},

		"submodule: option as address":    {modules(module("lib", "lib", "--upload-pack=touch pwned")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}}, // CVE-2018-17456
		"submodule: option as path":       {modules(module("lib", "--upload-pack=x", "../lib")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},
		"submodule: name leads out":       {modules(module("../../x", "lib", "../lib")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}}, // CVE-2018-11235
		"submodule: name leads out, \\\\": {modules(module(`..\..\x`, "lib", "../lib")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},
		"submodule: path leads out":       {modules(module("lib", "../../lib", "../lib")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},
		"submodule: path is .git":         {modules(module("lib", ".git/hooks", "../lib")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},
		"submodule: absolute path":        {modules(module("lib", "/tmp/lib", "../lib")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},
		"submodule: path with return":     {modules("[submodule \"lib\"]\n\tpath = \"lib\\r\"\n\turl = ../lib\n"), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}}, // CVE-2025-48384
		"submodule: ext":                  {modules(module("lib", "lib", "ext::sh -c touch% pwned")), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},
		"submodule: file":                 {modules(module("lib", "lib", "file:///etc")), []string{remote.ReasonSubmoduleRefused}},
		"submodule: directory":            {modules(module("lib", "lib", "/etc")), []string{remote.ReasonSubmoduleRefused}},
		"submodule: ssh":                  {modules(module("lib", "lib", "ssh://-oProxyCommand=touch${IFS}pwned/x")), []string{remote.ReasonSubmoduleRefused}},                                          // CVE-2017-1000117
		"submodule: new line in address":  {modules("[submodule \"lib\"]\n\tpath = lib\n\turl = \"https://x/\\nhost=evil.test\"\n"), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}}, // CVE-2020-5260
		"submodule: update command":       {modules(module("lib", "lib", "../../../../x") + "\tupdate = !touch pwned\n"), []string{remote.ReasonTreeRefused, remote.ReasonSubmoduleRefused}},            // CVE-2019-19604
		"submodule: place is .git":        {gitlinkAt("160000", ".git"), []string{remote.ReasonTreeRefused, remote.ReasonGitFailed}},
		"submodule: place is .GIT":        {gitlinkAt("160000", ".GIT"), []string{remote.ReasonTreeRefused, remote.ReasonGitFailed}},
		"submodule: place is git~1":       {gitlinkAt("160000", "git~1"), []string{remote.ReasonTreeRefused, remote.ReasonGitFailed}},
		"submodule: place is ..":          {gitlinkAt("160000", ".."), []string{remote.ReasonTreeRefused, remote.ReasonGitFailed}},

		"pack: nothing":          {bogus(func() string { return "" }), nil},
		"pack: text":             {bogus(func() string { return "<html>no pack</html>" }), nil},
		"pack: other version":    {bogus(func() string { return "PACK\x00\x00\x00\x09\x00\x00\x00\x00" }), nil},
		"pack: empty":            {bogus(func() string { return packOf(0, "") }), nil},
		"pack: broken stream":    {bogus(func() string { return packOf(1, "\x33garbage that is not deflated") }), nil},
		"pack: endless count":    {bogus(func() string { return packOf(1<<31-1, "") }), nil},
		"pack: huge object":      {bogus(func() string { return packOf(1, "\xb3\xff\xff\xff\xff\xff\xff\x7f") }), nil},
		"pack: delta of nothing": {bogus(func() string { return packOf(1, "\x74"+strings.Repeat("\x11", 20)+"x\x9c\x03\x00\x00\x00\x00\x01") }), nil},
		"pack: wrong sum":        {bogus(func() string { return packOf(0, "")[:12] + strings.Repeat("x", 20) }), nil},
		"pack: garbage":          {bogus(func() string { return noise(300_000) }), nil},
		"pack: another than was asked for": {func(f *fixture) Source {
			other := f.git.Repo("acme/other")
			other.Commit("main", "x", map[string]string{"f": "1"})
			answerPack(f, strings.Repeat("1", 40), func() string { return other.Input(other.Head("main")+"\n", "pack-objects", "--revs", "--stdout", "-q") })
			return source("main")
		}, nil},

		"answer: a page": {func(f *fixture) Source {
			f.git.Fail(func(*http.Request) (int, string) { return 200, "<html>\n<body>\nwelcome\n</html>\n" })
			return source("main")
		}, []string{unavailable}},
		"answer: a page of one line": {func(f *fixture) Source {
			f.git.Fail(func(*http.Request) (int, string) { return 200, "<html>welcome</html>" })
			return source("main")
		}, []string{unavailable}},
		"answer: nothing": {func(f *fixture) Source {
			f.git.Fail(func(*http.Request) (int, string) { return 200, " " })
			return source("main")
		}, []string{unavailable}},
		"answer: bad packet": {func(f *fixture) Source {
			f.git.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				_, _ = w.Write([]byte("zzzz"))
				return true
			})
			return source("main")
		}, nil},
		"answer: hostile ref names": {func(f *fixture) Source {
			hash := f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
			f.git.Advertise(func(ref func(string, string)) {
				for _, n := range []string{"refs/heads/../../config", "../../x", "refs/heads/--upload-pack=x", "HEAD", "refs/heads/a.lock", "/etc/passwd"} {
					ref(hash, n)
				}
			})
			return source("main")
		}, []string{refused, unavailable, remote.ReasonGitFailed}},
		"answer: 100,000 refs without the one": {func(f *fixture) Source {
			hash := strings.Repeat("1", 40)
			f.git.Advertise(func(ref func(string, string)) {
				for i := range 100_000 {
					ref(hash, "refs/heads/b"+itoa(i))
				}
			})
			return source("main")
		}, []string{refused}},
	} {
		if !*deep && slices.Contains(onlyDeep, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f := *shared
			f.t = t
			f.git.Intercept(nil)
			f.git.Fail(nil)
			f.packs.Store(0)
			src := c.make(&f)
			beside := t.TempDir()
			t.Chdir(beside)
			begin := time.Now()
			dir, _, err := f.fetchSource(src)
			e, ok := remote.AsError(err)
			if !ok || e.Message == "" {
				t.Fatalf("%q was fetched, or fails unclearly: %v", dir, err)
			}
			if c.reasons != nil && !slices.Contains(c.reasons, e.Reason) {
				t.Errorf("reason %s: %v", e.Reason, err)
			}
			if strings.HasPrefix(name, "pack: ") && f.packs.Load() == 0 {
				t.Error("no pack was ever sent")
			}
			if d := time.Since(begin); d > 2*time.Minute {
				t.Errorf("took %v", d)
			}
			if got := outside(t, beside); len(got) != 1 {
				t.Errorf("beside it: %v", got)
			}
			if got := outside(t, filepath.Join(f.dir, "scratch")); len(got) != 1 {
				t.Errorf("in the home directory: %v", got)
			}
			if left := gitProcesses(t, f.dir); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			f.sameConfig()
		})
	}
}

// sameConfig fails when a mirror's configuration is not what git init made, or when a mirror has a
// hook or another program of its own.
func (f *fixture) sameConfig() {
	f.t.Helper()
	const want = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
	all, err := filepath.Glob(filepath.Join(f.dir, "mirrors", "*", "*", "git"))
	must(f.t, err)
	for _, git := range all {
		got, err := os.ReadFile(filepath.Join(git, "config"))
		if err != nil || string(got) != want {
			f.t.Errorf("%s: %q %v", git, got, err)
		}
		for _, none := range []string{"hooks", "info/attributes", "objects/info/alternates", "config.worktree"} {
			if _, err := os.Lstat(filepath.Join(git, none)); !errors.Is(err, os.ErrNotExist) {
				f.t.Errorf("%s/%s: %v", git, none, err)
			}
		}
	}
}

// TestHostile_redirects has the site send git elsewhere, at each step: nobody follows, and nobody
// else ever sees the credential.
func TestHostile_redirects(t *testing.T) {
	shared := setUp(t, Limits{})
	for i, status := range []int{301, 302, 307} {
		for j, step := range []string{"/info/refs", "/git-upload-pack", "/objects/batch"} {
			if !*deep && i != j && status != 307 {
				continue // 307 keeps method and body, and is the one to fear
			}
			t.Run(fmt.Sprint(status, step), func(t *testing.T) {
				f := *shared
				f.t = t
				f.git.Intercept(nil)
				var visits, credentials atomic.Int32
				evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					visits.Add(1)
					if r.Header.Get("Authorization") != "" {
						credentials.Add(1)
					}
					w.Header().Set("WWW-Authenticate", `Basic realm="Bitbucket.org HTTP"`)
					w.WriteHeader(http.StatusUnauthorized)
				}))
				defer evil.Close()
				lfs := f.git.LFS()
				lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"f": lfs.Put("content")})
				f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, step) {
						return false
					}
					http.Redirect(w, r, evil.URL+r.URL.String(), status)
					return true
				})
				_, _, err := f.fetchSource(withLFS("main"))
				if !remote.Explained(err) {
					t.Fatalf("%v", err)
				}
				if visits.Load() != 0 || credentials.Load() != 0 {
					t.Fatalf("%d visits elsewhere, %d with a credential", visits.Load(), credentials.Load())
				}
			})
		}
	}
}

// TestHostile_environment has variables in our own environment that would make git run programs, go
// elsewhere or tell secrets; git sees none of them.
func TestHostile_environment(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	beside := t.TempDir()
	pwned := filepath.Join(beside, "pwned")
	template := filepath.Join(beside, "template", "hooks")
	must(t, os.MkdirAll(template, 0o700))
	for _, hook := range []string{"reference-transaction", "post-checkout", "post-index-change"} {
		must(t, os.WriteFile(filepath.Join(template, hook), []byte("#!/bin/sh\ntouch "+pwned+"\n"), 0o700)) // a hook has to be executable
	}
	config := filepath.Join(beside, "config")
	must(t, os.WriteFile(config, []byte("[core]\n\tfsmonitor = touch "+pwned+"\n\thooksPath = "+template+"\n[init]\n\ttemplateDir = "+filepath.Dir(template)+"\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http\n"), 0o600))
	for k, v := range map[string]string{
		"GIT_CONFIG_GLOBAL": config, "GIT_CONFIG_SYSTEM": config, "GIT_CONFIG_PARAMETERS": "'core.hooksPath=" + template + "'", "GIT_TEMPLATE_DIR": filepath.Dir(template),
		"GIT_DIR": beside, "GIT_TRACE": filepath.Join(beside, "trace"), "GIT_TRACE_CURL": filepath.Join(beside, "curl"), "GIT_SSH_COMMAND": "touch " + pwned, "GIT_ASKPASS": "/bin/false",
		"GIT_EXTERNAL_DIFF": "touch " + pwned, "GIT_PROXY_COMMAND": "touch " + pwned, "GIT_ALTERNATE_OBJECT_DIRECTORIES": beside, "XDG_CONFIG_HOME": beside, "GIT_ALLOW_PROTOCOL": "ext:file:http", "PAGER": "touch " + pwned,
	} {
		t.Setenv(k, v)
	}
	before := outside(t, beside)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	same(t, outside(t, beside), before)
}
