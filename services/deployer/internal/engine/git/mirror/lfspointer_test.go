package mirror

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// TestLFS_spellings: a pointer is fetched however it is spelt, and what cannot be read is told of.
func TestLFS_spellings(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	good, bad := gittest.PointerForms(lfs.Put("content")), gittest.NotPointerForms(lfs.Put("content"))
	want := map[string]string{".gitattributes": declareAll, "plain": "declared and no pointer", "nothing": "", "zero": ""}
	files := map[string]string{"plain": want["plain"], "nothing": "", "zero": strings.Replace(lfs.Put("x"), "size 1", "size 0", 1)}
	for name, text := range good {
		files["good/"+name], want["good/"+name] = text, "content"
	}
	for name, text := range bad {
		files["bad/"+name], want["bad/"+name] = text, text
	}
	lfsCommit(f.git.Repo("acme/web"), "main", files)
	src := withLFS("main")
	var told []string
	src.Notice = func(text string) { told = append(told, text) }
	dir, _, err := f.fetchSource(src)
	must(t, err)
	same(t, filesIn(t, dir), want)
	if len(told) != 1 || !strings.Contains(told[0], `"bad/`) || !strings.Contains(told[0], "6 more") {
		t.Errorf("told: %q", told)
	}
}

// TestLFS_onlyWhatIsDeclared: a file is LFS's where git's attributes say so: those of any directory,
// by macros, without limits of ours on lines, the last word having it; and nowhere else.
func TestLFS_onlyWhatIsDeclared(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	repo := f.git.Repo("acme/web")
	p := lfs.Put("content")
	attributes := map[string]string{
		".gitattributes":     "[attr]big filter=lfs -text\n*.bin big\n*.psd filter=lfs\n*.gz filter=gzip\n" + strings.Repeat("x", 3000) + " filter=lfs\n\"quo ted\" filter=lfs\n",
		"raw/.gitattributes": "*.bin !filter\n*.psd -filter\n*.one filter=lfs\n",
	}
	declared := []string{"a.bin", "b.psd", "dir/deep/a.bin", "raw/x.one", "raw/in/x.one", "quo ted"}
	other := []string{"docs/pointer.txt", "a.bin.txt", "x.gz", "raw/a.bin", "raw/b.psd", "x.one", "xfilter=lfs"}
	files, want := map[string]string{}, map[string]string{}
	for path, text := range attributes {
		files[path], want[path] = text, text
	}
	for _, path := range declared {
		files[path], want[path] = p, "content"
	}
	for _, path := range other {
		files[path], want[path] = p, p
	}
	repo.Commit("main", "x", files)
	dir, _, err := f.fetchSource(withLFS("main"))
	must(t, err)
	same(t, filesIn(t, dir), want)

	has := func(branch string) bool {
		s, err := f.mirrors.Fetch(t.Context(), source(branch))
		must(t, err)
		defer s.Close()
		has, err := s.HasLFSPointers(t.Context())
		must(t, err)
		return has
	}
	repo.Commit("deep", "x", map[string]string{"site/.gitattributes": "*.png filter=lfs\n", "site/a.png": p})
	repo.Commit("none", "x", map[string]string{".gitattributes": "* text=auto\n", "site/a.png": p})
	repo.Commit("other", "x", map[string]string{".gitattributes": "*.jpg filter=lfs\n", "site/a.png": p})
	if !has("deep") || has("none") || has("other") {
		t.Errorf("pointers are seen: deep %v, none %v, other %v", has("deep"), has("none"), has("other"))
	}
	n := lfs.Batches()
	for _, branch := range []string{"none", "other"} {
		dir, _, err := f.fetchSource(withLFS(branch))
		if err != nil || filesIn(t, dir)["site/a.png"] != p || lfs.Batches() != n {
			t.Errorf("%s: %v, %d questions", branch, err, lfs.Batches()-n)
		}
	}
	// A link is no file of attributes (as for git), and a directory of that name harms nobody.
	repo.CommitTree("link", repo.Tree(gittest.E("120000", ".gitattributes", "attributes"), gittest.E("100644", "attributes", declareAll), gittest.E("100644", "f", p)), "x")
	repo.CommitTree("dir", repo.Tree(gittest.E("040000", ".gitattributes", repo.Tree(gittest.E("100644", ".gitattributes", declareAll))), gittest.E("100644", "f", p)), "x")
	repo.Set("unsorted", repo.Object("commit", "tree "+rawTree(repo, "f", p, ".gitattributes", declareAll)+"\nauthor "+janeThen+"\ncommitter "+janeThen+"\n\nx"))
	for branch, content := range map[string]string{"link": p, "dir": p, "unsorted": "content"} {
		dir, _, err := f.fetchSource(withLFS(branch))
		if err != nil || filesIn(t, dir)["f"] != content {
			t.Errorf("%s: %v", branch, err)
		}
	}
}

// TestLFS_extensionsAreRefused: a pointer with an extension stands for what only a program of its
// author's can make.
func TestLFS_extensionsAreRefused(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	p := f.git.LFS().Put("content")
	for i, at := range []string{"\noid", "\nsize"} {
		branch := []string{"one", "two"}[i]
		lfsCommit(f.git.Repo("acme/web"), branch, map[string]string{"a": strings.Replace(p, at, "\next-0-foo sha256:"+strings.Repeat("ab", 32)+at, 1)})
		_, _, err := f.fetchSource(withLFS(branch))
		if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonLFSFailed || e.Temporary || !strings.Contains(e.Message, "extension") {
			t.Errorf("%v", err)
		}
	}
	repo := f.git.Repo("acme/web")
	repo.Commit("not-declared", "x", map[string]string{"a": strings.Replace(p, "\noid", "\next-0-foo sha256:x\noid", 1)})
	if _, _, err := f.fetchSource(withLFS("not-declared")); err != nil {
		t.Errorf("nothing declares it: %v", err)
	}
	if got := slices.Sorted(slices.Values(f.git.Requests())); slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "lfs") }) {
		t.Errorf("LFS was asked: %q", got)
	}
}
