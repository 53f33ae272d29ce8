package mirror

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// forms are spellings of a pointer that git-lfs's own reader takes.
func forms(p string) map[string]string {
	return map[string]string{
		"as it is":       p,
		"CRLF":           strings.ReplaceAll(p, "\n", "\r\n"),
		"a leading line": "\n" + p,
		"leading blanks": "  \t\r\n" + p,
		"no last line":   strings.TrimSuffix(p, "\n"),
		"lines between":  strings.ReplaceAll(p, "\n", "\n\n"),
		"lines after":    p + "\n\n \n",
		"pre-release":    strings.Replace(p, "git-lfs.github.com", "hawser.github.com", 1),
		"first release":  strings.Replace(p, "https://git-lfs.github.com/spec/v1", "http://git-media.io/v/2", 1),
	}
}

// notForms are spellings that it does not take.
func notForms(p string) map[string]string {
	return map[string]string{
		"a byte order mark": "\ufeff" + p, "a word before": "see " + p, "a line after": p + "x y\n", "another order": "oid" + strings.SplitN(p, "oid", 2)[1] + strings.SplitN(p, "oid", 2)[0],
		"blanks in a line": strings.Replace(p, "\noid", "\n oid", 1), "a tab": strings.Replace(p, "oid ", "oid\t", 1), "version 2": strings.Replace(p, "spec/v1", "spec/v2", 1),
	}
}

func TestParsePointer_asGitLFSReadsThem(t *testing.T) {
	p := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n"
	for name, text := range forms(p) {
		if got, ok := parsePointer([]byte(text)); !ok || got.oid != strings.Repeat("ab", 32) || got.size != 12345 {
			t.Errorf("%s: %q is %+v", name, text, got)
		}
	}
	for name, text := range notForms(p) {
		if got, ok := parsePointer([]byte(text)); ok {
			t.Errorf("%s: %q is taken for %+v", name, text, got)
		}
	}
}

// TestLFS_spellings: a pointer is fetched however it is spelt, and what cannot be read is told of.
func TestLFS_spellings(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	good, bad := forms(lfs.Put("content")), notForms(lfs.Put("content"))
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

func TestParsePointer(t *testing.T) {
	oid := strings.Repeat("ab", 32)
	good := "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 12345\n"
	if p, ok := parsePointer([]byte(good)); !ok || p.oid != oid || p.size != 12345 {
		t.Fatalf("%+v %v", p, ok)
	}
	for _, bad := range []string{
		"", "version https://git-lfs.github.com/spec/v1\n", strings.Replace(good, "v1", "v2", 1), strings.Replace(good, oid, oid[:62], 1), strings.Replace(good, oid, strings.ToUpper(oid), 1),
		strings.Replace(good, oid, "../../../../../../etc/passwd", 1), strings.Replace(good, "12345", "-1", 1), strings.Replace(good, "12345", "+1", 1), strings.Replace(good, "12345", "99999999999999999999", 1),
		strings.Replace(good, "sha256:", "", 1), "x" + good, good + "more\n", strings.Replace(good, "oid", "ext-0-foo sha256:"+oid+"\noid", 1), good + strings.Repeat("\n", maxPointer),
		"oid sha256:" + oid + "\nversion https://git-lfs.github.com/spec/v1\nsize 1\n",
	} {
		if p, ok := parsePointer([]byte(bad)); ok {
			t.Errorf("%q is taken for %+v", bad, p)
		}
	}
}

func FuzzParsePointer(f *testing.F) {
	f.Add("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n")
	f.Fuzz(func(t *testing.T, text string) {
		if p, ok := parsePointer([]byte(text)); ok && (len(p.oid) != 64 || p.size < 0 || strings.ContainsAny(p.oid, "./")) {
			t.Fatalf("%+v", p)
		}
	})
}
