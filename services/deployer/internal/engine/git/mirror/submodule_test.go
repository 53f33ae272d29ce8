package mirror

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/submodule"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
)

// module is one entry of .gitmodules.
func module(name, path, address string) string {
	// In quotes: git takes what follows a # for a comment, and a backslash for the start of an escape.
	return fmt.Sprintf("[submodule %q]\n\tpath = %s\n\turl = %q\n", name, path, address)
}

// superCommit makes a commit with a .gitmodules and gitlinks (path of one segment to commit).
func superCommit(repo *gittest.Repo, branch, modules string, links map[string]string) string {
	entries := []gittest.Entry{gittest.E("100644", "index.html", "top"), gittest.E("100644", ".gitmodules", modules)}
	for p, commit := range links {
		entries = append(entries, gittest.E("160000", p, commit))
	}
	return repo.CommitTree(branch, repo.Tree(entries...), "with submodules")
}

func withSubmodules(branch string) Source {
	src := source(branch)
	src.Submodules = true
	return src
}

func TestSubmodules_areFetchedAtTheirCommits(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"gives commits by hash", "does not"} {
		t.Run(server, func(t *testing.T) {
			f := setUp(t, Limits{})
			inner, lib, theme, top := f.git.Repo("acme/inner"), f.git.Repo("acme/lib"), f.git.Repo("other/theme"), f.git.Repo("acme/web")
			in := commits(inner, "main", 2)
			lib1 := superCommit(lib, "main", module("in", "deep", "../inner.git"), map[string]string{"deep": in[0]})
			superCommit(lib, "main", "", nil) // the branch went on
			th := commits(theme, "release/1", 1)
			if server == "does not" {
				noHashes(f, lib)
				inner.Git("config", "uploadpack.allowAnySHA1InWant", "false")
				theme.Git("config", "uploadpack.allowAnySHA1InWant", "false")
			}
			site := f.git.URL
			superCommit(top, "main", module("lib", "lib", "../lib.git")+module("again", "lib2", "../../acme/lib")+
				module("theme", "theme", fmt.Sprintf("%s://jane@%s/other/theme.git/", site.Scheme, site.Host)),
				map[string]string{"lib": lib1, "lib2": lib1, "theme": th[0]})

			want := map[string]string{
				"index.html": "top", ".gitmodules": "", "lib/index.html": "top", "lib/.gitmodules": module("in", "deep", "../inner.git"), "lib/deep/f": "main0",
				"lib2/index.html": "top", "lib2/.gitmodules": module("in", "deep", "../inner.git"), "lib2/deep/f": "main0", "theme/f": "release/10",
			}
			var heard []string
			src := withSubmodules("main")
			src.SubmoduleWorkspaces = []string{"Other"}
			src.Progress = func(what string, done, all int64) { heard = append(heard, fmt.Sprint(what, done, "/", all)) }
			for range 2 {
				dir, _, err := f.fetchSource(src)
				if err != nil {
					t.Fatal(err)
				}
				got := filesIn(t, dir)
				want[".gitmodules"] = got[".gitmodules"]
				same(t, got, want)
			}
			if len(heard) != 10 || heard[len(heard)-1] != "submodules5/5" {
				t.Errorf("heard %v", heard)
			}
			// Without the option, their places are empty.
			dir, _, err := f.deploy("main")
			if err != nil {
				t.Fatal(err)
			}
			same(t, filesIn(t, dir), map[string]string{"index.html": "top", ".gitmodules": want[".gitmodules"]})
		})
	}
}

func TestSubmodules_lostAccessIsNoticed(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lib, top := f.git.Repo("acme/lib"), f.git.Repo("acme/web")
	hash := commits(lib, "main", 1)[0]
	superCommit(top, "main", module("lib", "lib", "../lib"), map[string]string{"lib": hash})
	if _, _, err := f.fetchSource(withSubmodules("main")); err != nil {
		t.Fatal(err)
	}
	f.git.Fail(func(r *http.Request) (int, string) {
		if strings.HasPrefix(r.URL.Path, "/acme/lib.git") {
			return 403, "no"
		}
		return 0, ""
	})
	_, _, err := f.fetchSource(withSubmodules("main"))
	e, ok := remote.AsError(err)
	if !ok || e.Reason != remote.ReasonSubmoduleRefused || !strings.Contains(e.Message, `"lib"`) || remote.IsGone(err) {
		t.Fatalf("%v", err)
	}
}

func TestSubmodules_trickery(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	site := f.git.URL
	lib := f.git.Repo("acme/lib")
	hash := commits(lib, "main", 1)[0]
	top := f.git.Repo("acme/web")
	other := &url.URL{Scheme: site.Scheme, Host: "localhost:" + site.Port(), Path: "/acme/lib"} // the same server under another name
	for i, bad := range []string{
		"--upload-pack=touch /tmp/pwned", "-u./evil", "ext::sh -c 'touch /tmp/pwned'", "file:///etc", "/etc", "ssh://git@evil.test/acme/lib", "ssh://jane@" + site.Host + "/acme/lib", "ssh://git@" + site.Host + "/acme/lib/../../x/y", "git@evil.test:acme/lib.git",
		"git@" + site.Hostname() + ".evil.test:acme/lib", "git@" + site.Hostname() + ":../../etc", "git@" + site.Hostname() + "/x:acme/lib", "git@-oProxyCommand=x:acme/lib", "jane@" + site.Hostname() + ":acme/lib",
		other.String(), "https://" + site.Host + "/acme/lib", "http://" + site.Host + ".evil.test/acme/lib", site.String() + "@evil.test/acme/lib", "http://x@evil.test\\@" + site.Host + "/a/b",
		site.String() + "/acme/lib?x=1", site.String() + "/acme/lib#x", site.String() + "/acme/%2e%2e/lib", site.String() + "/acme/../lib", site.String() + "/acme", site.String() + "/a/b/c",
		"../../../../etc/passwd", "../..", "./lib", "../a b", "../lib\\n", "", "//" + site.Host + "/acme/lib", "../../--upload-pack=x/y", "%0a" + site.String(), "data:,x",
	} {
		full, why := address.Submodule(site, "acme/web", bad)
		if why == "" {
			t.Errorf("%q is taken for %q", bad, full)
		}
		if !*deep && i%14 != 0 || strings.HasPrefix(bad, "-") { // git itself refuses the latter, see below
			continue
		}
		branch := fmt.Sprint("b", i)
		superCommit(top, branch, module("lib", "lib", bad), map[string]string{"lib": hash})
		_, _, err := f.fetchSource(withSubmodules(branch))
		if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonSubmoduleRefused && e.Reason != remote.ReasonTreeRefused || !strings.Contains(e.Message, `"lib"`) && e.Reason == remote.ReasonSubmoduleRefused {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"../lib", "../lib.git", "../lib/", "../../acme/lib.git", site.String() + "/acme/lib", site.String() + "/acme/lib.git", site.Scheme + "://jane:secret@" + site.Host + "/acme/lib",
		"git@" + site.Hostname() + ":acme/lib.git", "git@" + site.Hostname() + ":/acme/lib", "git@" + site.Host + ":acme/lib.git", "ssh://git@" + site.Host + "/acme/lib", "ssh://git@" + site.Hostname() + "/acme/lib.git",
		"SSH://git@" + site.Hostname() + ":22/acme/lib.git/", "git+ssh://git@" + site.Hostname() + "/acme/lib", "HTTP://" + site.Host + "/acme/lib"} {
		if full, why := address.Submodule(site, "acme/web", good); full != "acme/lib" {
			t.Errorf("%q: %q %s", good, full, why)
		}
	}
}

func TestSubmodules_refusals(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lib, top := f.git.Repo("acme/lib"), f.git.Repo("acme/web")
	hash := commits(lib, "main", 1)[0]
	loop := f.git.Repo("acme/loop")
	deep := hash
	for i := range submodule.MaxDepth + 1 {
		address := "../loop"
		if i == 0 {
			address = "../lib"
		}
		deep = superCommit(loop, "main", module("m", "m", address), map[string]string{"m": deep})
	}
	many, links := "", map[string]string{}
	for i := range submodule.MaxCount + 1 {
		p := fmt.Sprintf("m%03d", i)
		many += module(p, p, "../lib")
		links[p] = hash
	}
	one := map[string]string{"lib": hash}
	for name, c := range map[string]struct {
		modules string
		links   map[string]string
		says    string
	}{
		"not in .gitmodules": {module("x", "elsewhere", "../lib"), one, "does not say where"},
		"named twice":        {module("a", "lib", "../lib") + module("b", "lib", "../other"), one, "twice"},
		"no syntax":          {"[submodule \"lib\"\npath", one, ""},
		"another case":       {module("lib", "LIB", "../lib"), one, "does not say where"},
		"gone":               {module("lib", "lib", "../lib"), map[string]string{"lib": strings.Repeat("ab", 20)}, "not on Bitbucket any more"},
		"no such repository": {module("lib", "lib", "../nothing"), one, "cannot reach"},
		"too deep":           {module("lib", "lib", "../loop"), map[string]string{"lib": deep}, "deeper"},
		"too many":           {many, links, "more than 100"},
		"including a file":   {"[include]\n\tpath = /etc/passwd\n" + module("x", "x", "../lib"), one, "does not say where"},
	} {
		t.Run(name, func(t *testing.T) {
			branch := strings.ReplaceAll(name, " ", "-")
			superCommit(top, branch, c.modules, c.links)
			_, _, err := f.fetchSource(withSubmodules(branch))
			e, ok := remote.AsError(err)
			if !ok || !strings.Contains(e.Message, c.says) || e.Temporary {
				t.Fatalf("%v", err)
			}
			if e.Reason != remote.ReasonSubmoduleRefused && e.Reason != remote.ReasonCommitGone && e.Reason != remote.ReasonTreeRefused {
				t.Fatalf("reason %s", e.Reason)
			}
		})
	}
	// .gitmodules as a link to a file of the system.
	top.CommitTree("link", top.Tree(gittest.E("120000", ".gitmodules", "/etc/passwd"), gittest.E("160000", "lib", hash)), "link")
	if _, _, err := f.fetchSource(withSubmodules("link")); reason(err) != remote.ReasonSubmoduleRefused && reason(err) != remote.ReasonTreeRefused {
		t.Errorf("link: %v", err)
	}
}

// TestSubmodules_addressesOfTheSite: host names have no case, a port that goes without saying may be
// said, and http leads to https; never the other way round.
func TestSubmodules_addressesOfTheSite(t *testing.T) {
	site := &url.URL{Scheme: "https", Host: "bitbucket.org"}
	for _, good := range []string{
		"https://BitBucket.org/acme/lib.git", "HTTPS://bitbucket.org:443/acme/lib", "http://bitbucket.org/acme/lib.git", "http://Bitbucket.ORG:80/acme/lib",
		"git@bitbucket.org:acme/lib.git", "git@Bitbucket.Org:acme/lib", "ssh://git@BITBUCKET.org/acme/lib.git", "ssh://git@bitbucket.org:22/acme/lib.git", "https://jane@bitbucket.org/acme/lib.git",
	} {
		if full, why := address.Submodule(site, "acme/web", good); full != "acme/lib" {
			t.Errorf("%q: %q %s", good, full, why)
		}
	}
	for _, bad := range []string{
		"https://bitbucket.org:8443/acme/lib", "http://bitbucket.org:8080/acme/lib", "https://bitbucket.org.evil.test/acme/lib", "https://evil.test/acme/lib", "git@github.com:acme/lib.git", "git@bitbucket.organic:acme/lib",
		"ssh://root@bitbucket.org/acme/lib", "ssh://git:x@bitbucket.org/acme/lib", "git://bitbucket.org/acme/lib", "ftp://bitbucket.org/acme/lib",
	} {
		if full, why := address.Submodule(site, "acme/web", bad); why == "" {
			t.Errorf("%q is taken for %q", bad, full)
		}
	}
	if full, why := address.Submodule(&url.URL{Scheme: "http", Host: "bitbucket.org"}, "acme/web", "https://bitbucket.org/acme/lib"); why == "" {
		t.Errorf("https is fetched over http as %q", full)
	}
}

// TestSubmodules_ofOtherWorkspaces: whoever can push to one repository does not thereby read all that
// the account can, also not by way of a submodule's own submodules.
func TestSubmodules_ofOtherWorkspaces(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	site := f.git.URL.String()
	victim, lib, top := f.git.Repo("other/victim"), f.git.Repo("acme/lib"), f.git.Repo("acme/web")
	secret := victim.Commit("main", "x", map[string]string{"secret": "s"})
	nested := superCommit(lib, "main", module("v", "v", "../../other/victim"), map[string]string{"v": secret})
	place := map[string]string{"lib": secret}
	for name, url := range map[string]string{"relative": "../../other/victim", "absolute": site + "/other/victim.git", "ssh": "git@" + f.git.URL.Hostname() + ":other/victim", "another case": "../../OTHER/victim"} {
		superCommit(top, name[:3], module("lib", "lib", url), place)
	}
	superCommit(top, "nested", module("lib", "lib", "../lib"), map[string]string{"lib": nested})
	for _, branch := range []string{"rel", "abs", "ssh", "ano", "nested"} {
		for _, allowed := range [][]string{nil, {"another", "other2", "other/other", "acme"}} {
			src := withSubmodules(branch)
			src.SubmoduleWorkspaces = allowed
			_, _, err := f.fetchSource(src)
			e, ok := remote.AsError(err)
			if !ok || e.Reason != remote.ReasonSubmoduleRefused || e.Temporary || !strings.Contains(e.Message, "another Bitbucket workspace") || !strings.Contains(e.Message, "submoduleWorkspaces") {
				t.Errorf("%s with %q: %v", branch, allowed, err)
			}
		}
		for _, r := range f.git.Requests() {
			if strings.Contains(strings.ToLower(r), "/other/") {
				t.Fatalf("%s: it was asked for: %s", branch, r)
			}
		}
	}
	for _, allowed := range []string{"other", "OTHER", "other/victim", "*"} {
		src := withSubmodules("nested")
		src.SubmoduleWorkspaces = []string{allowed}
		dir, _, err := f.fetchSource(src)
		if err != nil || filesIn(t, dir)["lib/v/secret"] != "s" {
			t.Errorf("%s: %v", allowed, err)
		}
	}
	for s, ok := range map[string]bool{"*": true, "acme": true, "acme/web": true, "{5d3e}": true, "": false, "a b": false, "acme/*": false, "**": false, "acme/a/b": false, "https://bitbucket.org/acme": false} {
		if address.ValidSubmoduleSource(s) != ok {
			t.Errorf("%q: %v", s, !ok)
		}
	}
}

// TestSubmodules_gitsOwnSettings: what .gitmodules says of how a submodule is updated is taken as git
// takes it.
func TestSubmodules_gitsOwnSettings(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lib, top := f.git.Repo("acme/lib"), f.git.Repo("acme/web")
	hashes := commits(lib, "main", 2)
	old := map[string]string{"lib": hashes[0]}
	only := map[string]string{"lib/f": "main0", "index.html": "top"}
	for more, want := range map[string]map[string]string{
		"branch = main":                          only,
		"branch = gone":                          only,
		"ignore = all":                           only,
		"shallow = true":                         only,
		"shallow = false":                        only,
		"fetchRecurseSubmodules = false":         only,
		"update = checkout":                      only,
		"update = rebase":                        only,
		"update = none":                          {"index.html": "top"},
		"update = none\n\turl = https://x.test/": {"index.html": "top"},
		"update = none\n\turl = ../../a/b":       {"index.html": "top"},
	} {
		modules := module("lib", "lib", "../lib") + "\t" + more + "\n"
		superCommit(top, "main", modules, old)
		dir, _, err := f.fetchSource(withSubmodules("main"))
		if err != nil {
			t.Errorf("%s: %v", more, err)
			continue
		}
		got := filesIn(t, dir)
		delete(got, ".gitmodules")
		same(t, got, want)
		if info, err := os.Stat(filepath.Join(dir, "lib")); err != nil || !info.IsDir() {
			t.Errorf("%s: its place: %v", more, err)
		}
	}
	many, links := "", map[string]string{}
	for i := range submodule.MaxCount + 1 {
		p := fmt.Sprintf("m%03d", i)
		many += module(p, p, "../lib") + "\tupdate = none\n"
		links[p] = hashes[0]
	}
	superCommit(top, "many", many, links)
	if _, _, err := f.fetchSource(withSubmodules("many")); err != nil {
		t.Errorf("none of them is fetched: %v", err)
	}
	for _, bad := range []string{"update = !touch /tmp/pwned", "update = sometimes"} {
		superCommit(top, "main", module("lib", "lib", "../lib")+"\t"+bad+"\n", old)
		if _, _, err := f.fetchSource(withSubmodules("main")); reason(err) != remote.ReasonSubmoduleRefused {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
