package mirror

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// rawTree stores a tree of files in exactly this order: name, content, name, content …
func rawTree(repo *gittest.Repo, files ...string) string {
	var body strings.Builder
	for i := 0; i < len(files); i += 2 {
		id, _ := hex.DecodeString(repo.Blob(files[i+1]))
		fmt.Fprintf(&body, "100644 %s\x00%s", files[i], id)
	}
	return repo.Object("tree", body.String())
}

const janeThen = "Jane Developer <jane@example.test> 1700000000 +0000"

// TestUntidy_whatGitCloneTakesIsDeployed has objects that git's own check refuses and git clone takes,
// since nobody is harmed by them.
func TestUntidy_whatGitCloneTakesIsDeployed(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := rawTree(repo, "index.html", "1", "about.html", "2")
	tidy := rawTree(repo, "about.html", "2", "index.html", "1")
	sub := func(tree string) string {
		id, _ := hex.DecodeString(tree)
		return repo.Object("tree", "40000 site\x00"+string(id))
	}
	commit := func(tree, head, message string) string {
		return repo.Object("commit", "tree "+tree+"\n"+head+"\n"+message)
	}
	people := "author " + janeThen + "\ncommitter " + janeThen + "\n"
	const anything = "\x00"
	plain := map[string]string{"index.html": "1", "about.html": "2"}
	for name, c := range map[string]struct {
		hash string
		want map[string]string
		says string
	}{
		"a tree that is not sorted":      {commit(files, people, "m"), plain, "m"},
		"one below":                      {commit(sub(files), people, "m"), map[string]string{"site/index.html": "1", "site/about.html": "2"}, "m"},
		"NUL in the message":             {commit(tidy, people, "one\x00two"), plain, "one"},
		"NUL in a name":                  {commit(tidy, "author J\x00ane <jane@example.test> 1700000000 +0000\ncommitter "+janeThen+"\n", "m"), plain, "m"},
		"no author":                      {commit(tidy, "", "m"), plain, "m"},
		"no end of the head":             {repo.Object("commit", "tree "+tidy+"\n"+strings.TrimSuffix(people, "\n")), plain, anything},
		"a long line of .gitattributes":  {commit(rawTree(repo, ".gitattributes", strings.Repeat("x", 3000)+" text\n"), people, "m"), map[string]string{".gitattributes": strings.Repeat("x", 3000) + " text\n"}, "m"},
		"a .gitmodules that git refuses": {commit(rawTree(repo, ".gitmodules", module("../../x", "-p", "-u")), people, "m"), map[string]string{".gitmodules": module("../../x", "-p", "-u")}, "m"},
		"a .gitmodules that is none":     {commit(rawTree(repo, ".gitmodules", "[submodule"), people, "m"), map[string]string{".gitmodules": "[submodule"}, "m"},
		"a path as a name":               {commit(rawTree(repo, "a/b", "x"), people, "m"), map[string]string{"a/b": "x"}, "m"},
		"a signature of no form":         {commit(tidy, people+"gpgsig x\n", "m"), plain, "m"},
	} {
		t.Run(name, func(t *testing.T) {
			branch := strings.ReplaceAll(name, " ", "-")
			repo.Set(branch, c.hash)
			for _, full := range []bool{false, true} {
				src := source(branch)
				src.FullHistory = full
				s, err := f.mirrors.Fetch(t.Context(), src)
				must(t, err)
				defer s.Close()
				dir, err := f.checkOut(s)
				must(t, err)
				same(t, filesIn(t, dir), c.want)
				if got := s.Head(); got.Hash != c.hash || c.says != anything && got.Message != c.says {
					t.Errorf("%+v", got)
				}
				for path, content := range c.want {
					if got, err := s.ReadFile(t.Context(), path, 1<<20); path != "a/b" && (err != nil || string(got) != content) {
						t.Errorf("%s is %q: %v", path, got, err)
					}
				}
				if full {
					root, err := os.OpenRoot(dir)
					must(t, err)
					must(t, s.WriteGit(t.Context(), root))
					must(t, root.Close())
				}
			}
			f.logs.MustNotContain(t, "made anew")
		})
	}
}

// TestUntidy_unreadableObjects: what git cannot read either is refused for good, in true words, and
// the mirror stays. The server sends them as they are: one that reads them itself would refuse first.
func TestUntidy_unreadableObjects(t *testing.T) {
	t.Parallel()
	people := "author " + janeThen + "\ncommitter " + janeThen + "\n\nm"
	id := strings.Repeat("\x11", 20)
	for name, c := range map[string]struct{ tree, says string }{
		"short":      {"100644 a\x00\x11\x22", "too-short tree"},
		"odd mode":   {"1x0644 a\x00" + id, "malformed mode"},
		"empty name": {"100644 \x00" + id, "empty filename"},
	} {
		for how, send := range map[string]bool{"sent": true, "refused by the server": false} {
			t.Run(name+" "+how, func(t *testing.T) {
				f := setUp(t, Limits{})
				repo := f.git.Repo("acme/web")
				tree := repo.Object("tree", c.tree)
				hash := repo.Object("commit", "tree "+tree+"\n"+people)
				repo.Set("main", hash)
				if send {
					answerPack(f, hash, func() string { return repo.Input(hash+"\n"+tree+"\n", "pack-objects", "--stdout", "-q") })
				}
				for range 2 {
					_, _, err := f.deploy("main")
					if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonTreeRefused || e.Temporary || !strings.Contains(e.Message, c.says) {
						t.Fatalf("%v", err)
					}
				}
				f.logs.MustNotContain(t, "made anew")
			})
		}
	}
}
