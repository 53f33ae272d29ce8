package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// spared is a pristine copy of a branch's head.
type spared struct {
	dir  string
	root *os.Root
	list []byte
}

func going(context.Context) error { return nil }

func openDir(t *testing.T, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// spare copies the branch, small as it may be.
func (f *fixture) spare(branch string) spared {
	f.t.Helper()
	s, err := f.mirrors.Fetch(f.t.Context(), source(branch))
	must(f.t, err)
	defer s.Close()
	_, err = s.Checkout(f.t.Context(), openDir(f.t, f.t.TempDir()), nil)
	must(f.t, err)
	dir := f.t.TempDir()
	sp := spared{dir: dir, root: openDir(f.t, dir)}
	sp.list, err = s.Copy(f.t.Context(), sp.root, going)
	must(f.t, err)
	return sp
}

// update makes a copy the tree of a branch.
func (f *fixture) update(branch string, sp spared) (tree.Stats, error) {
	f.t.Helper()
	s, err := f.mirrors.Fetch(f.t.Context(), source(branch))
	must(f.t, err)
	defer s.Close()
	return s.Update(f.t.Context(), sp.root, sp.list, nil)
}

// on is the head of a branch, read where the server has it.
func (f *fixture) on(repo *gittest.Repo, branch string) *Snapshot {
	s := f.mirrors.open(&repository{git: repo.Dir}, nil)
	s.Commit = repo.Head(branch)
	s.commit = Commit{Hash: s.Commit}
	return s
}

// modes is a tree with its directories and with what may be run.
func modes(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := filesIn(t, dir)
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, p)
		out[rel] += " " + info.Mode().String()
		return err
	}))
	return out
}

// TestUpdate_isTheSameAsACheckout changes copies of random trees into other random trees: files,
// programs, links, submodules and directories that come, go and take one another's places. With
// -mirror.deep there are many more of them.
func TestUpdate_isTheSameAsACheckout(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	random := rand.New(rand.NewPCG(3, 5))
	updated, kept := 0, 0
	rounds := 10
	if *deep {
		rounds = 200
	}
	for i := range rounds {
		repo.Input(randomTree(random, "old", i)+"\n"+randomTree(random, "new", i), "fast-import", "--quiet", "--force")
		old, next := f.on(repo, "old"), f.on(repo, "new")
		_, err := old.Checkout(t.Context(), openDir(t, t.TempDir()), nil)
		must(t, err)
		sp := spared{dir: t.TempDir()}
		sp.root = openDir(t, sp.dir)
		sp.list, err = old.Copy(t.Context(), sp.root, going)
		must(t, err)
		st, err := next.Update(t.Context(), sp.root, sp.list, nil)
		if errors.Is(err, tree.ErrPristine) {
			continue // too different
		}
		must(t, err)
		updated++
		kept += st.Kept
		whole := t.TempDir()
		_, err = next.Checkout(t.Context(), openDir(t, whole), nil)
		must(t, err)
		same(t, modes(t, sp.dir), modes(t, whole))
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
	if updated < 3 || kept == 0 {
		t.Fatalf("%d copies were changed, %d files kept: too few to mean anything", updated, kept)
	}
}

// randomTree is input of fast-import: most files are the same in all trees, so that copies are of
// use.
func randomTree(random *rand.Rand, branch string, round int) string {
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/%s\ncommitter Jane Developer <jane@example.test> 17000%05d +0000\ndata 0\n", branch, round)
	file := func(mode, p, content string) {
		fmt.Fprintf(&in, "M %s inline %s\ndata %d\n%s\n", mode, p, len(content), content)
	}
	for i := range 20 {
		file("100644", fmt.Sprintf("still/%d/f%d", i%3, i), fmt.Sprint(i))
	}
	for _, p := range []string{"a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/f/g"} {
		// A later entry takes the place of an earlier one, also of a directory.
		switch random.IntN(8) {
		case 0:
			file("100644", p, fmt.Sprint(random.IntN(3)))
		case 1:
			file("100755", p, fmt.Sprint(random.IntN(3)))
		case 2:
			file("120000", p, []string{"still", "nowhere", "still/0/f0"}[random.IntN(3)])
		case 3:
			fmt.Fprintf(&in, "M 160000 %s %s\n", strings.Repeat("1", 40), p)
		case 4:
			file("100644", p+"/x", "1")
			file("100644", p+"/y/z", "2")
		case 5:
			file("100755", p+"/x", "1")
		}
	}
	return in.String()
}

// TestUpdate_directoryBecomesALink: what is written below it later must not go where it points.
func TestUpdate_directoryBecomesALink(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	still := map[string]string{"target/a": "mine", "target/b": "mine", "1": "1", "2": "2", "3": "3", "4": "4"}
	plus := func(more ...gittest.Entry) string {
		inner := repo.Tree(gittest.E("100644", "a", "mine"), gittest.E("100644", "b", "mine"))
		all := []gittest.Entry{gittest.E(tree.ModeTree, "target", inner)}
		for _, n := range []string{"1", "2", "3", "4"} {
			all = append(all, gittest.E("100644", n, n))
		}
		return repo.Tree(append(all, more...)...)
	}
	directory := plus(gittest.E(tree.ModeTree, "d", repo.Tree(gittest.E("100644", "a", "theirs"))))
	link := plus(gittest.E("120000", "d", "target"))

	repo.CommitTree("main", directory, "a directory")
	sp := f.spare("main")
	repo.CommitTree("main", link, "a link")
	_, err := f.update("main", sp)
	must(t, err)
	want := map[string]string{"d": "-> target"}
	for p, c := range still {
		want[p] = c
	}
	same(t, filesIn(t, sp.dir), want)

	sp = f.spare("main")
	repo.CommitTree("main", directory, "a directory again")
	_, err = f.update("main", sp)
	must(t, err)
	want["d/a"] = "theirs"
	delete(want, "d")
	same(t, filesIn(t, sp.dir), want) // target/a among them, as it was

	sp = f.spare("main")
	repo.CommitTree("main", plus(gittest.E("120000", "d", "../../x")), "a link out")
	y := newYard(t)
	if _, err = f.update("main", sp); reason(err) != remote.ReasonTreeRefused {
		t.Fatal(err)
	}
	y.untouched()
	same(t, filesIn(t, sp.dir), want)
}

// TestUpdate_touchedCopiesAreNotUsed: whatever was done to a copy shows.
func TestUpdate_touchedCopiesAreNotUsed(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"a": "1", "b": "2", "c": "3", "d/a": "4", "d/b": "5"})
	f.git.Repo("acme/web").Commit("another", "x", map[string]string{"z": "1"})
	another := f.spare("another").list
	snap, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer snap.Close()
	_, err = snap.Checkout(t.Context(), openDir(t, t.TempDir()), nil)
	must(t, err)
	for name, touch := range map[string]func(t *testing.T, sp *spared){
		"written": func(t *testing.T, sp *spared) { must(t, os.WriteFile(filepath.Join(sp.dir, "a"), []byte("X"), 0o644)) },
		"written and dated back": func(t *testing.T, sp *spared) {
			p := filepath.Join(sp.dir, "a")
			info, err := os.Stat(p)
			must(t, err)
			must(t, os.WriteFile(p, []byte("X"), 0o644))
			must(t, os.Chtimes(p, info.ModTime(), info.ModTime()))
		},
		"mode":    func(t *testing.T, sp *spared) { must(t, os.Chmod(filepath.Join(sp.dir, "d", "a"), 0o600)) },
		"added":   func(t *testing.T, sp *spared) { must(t, os.WriteFile(filepath.Join(sp.dir, "d", "new"), nil, 0o644)) },
		"removed": func(t *testing.T, sp *spared) { must(t, os.Remove(filepath.Join(sp.dir, "b"))) },
		"linked": func(t *testing.T, sp *spared) {
			must(t, os.Link(filepath.Join(sp.dir, "b"), filepath.Join(t.TempDir(), "b")))
		},
		"replaced": func(t *testing.T, sp *spared) {
			must(t, os.Remove(filepath.Join(sp.dir, "b")))
			must(t, os.WriteFile(filepath.Join(sp.dir, "b"), []byte("2"), 0o644))
		},
		"truncated":        func(t *testing.T, sp *spared) { must(t, os.Truncate(filepath.Join(sp.dir, "d", "b"), 0)) },
		"manifest cut":     func(_ *testing.T, sp *spared) { sp.list = sp.list[:len(sp.list)-10] },
		"manifest changed": func(_ *testing.T, sp *spared) { sp.list[len(sp.list)/2] ^= 1 },
		"no manifest":      func(_ *testing.T, sp *spared) { sp.list = nil },
		"another one's":    func(_ *testing.T, sp *spared) { sp.list = another },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sp := spared{dir: dir, root: openDir(t, dir)}
			var err error
			sp.list, err = snap.Copy(t.Context(), sp.root, going)
			must(t, err)
			touch(t, &sp)
			if _, err := snap.Update(t.Context(), sp.root, sp.list, nil); !errors.Is(err, tree.ErrPristine) {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestUpdate_needsNoObjectOfTheOldCommit: the mirror may have been made anew since.
func TestUpdate_needsNoObjectOfTheOldCommit(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"a": "1", "b": "2", "c": "3", "gone": "4"}
	repo.Commit("main", "one", files)
	sp := f.spare("main")
	must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
	delete(files, "gone")
	files["a"] = "changed"
	repo.Commit("main", "two", files)
	st, err := f.update("main", sp)
	must(t, err)
	if st.Kept != 2 || st.Files != 3 {
		t.Fatalf("%+v", st)
	}
	same(t, filesIn(t, sp.dir), files)
}

// TestUpdate_replacedContentIsNotThePointer: with LFS on or off the same object is another file.
func TestUpdate_replacedContentIsNotThePointer(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"a": "1", "b": "2", "c": "3", "big": "pointer"})
	sp := f.spare("main")
	s, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer s.Close()
	content := "the content that the pointer points to"
	s.Replace = map[string]tree.Replacement{"big": {Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}}
	st, err := s.Update(t.Context(), sp.root, sp.list, nil)
	must(t, err)
	if st.Kept != 3 || st.Bytes != int64(3+len(content)) {
		t.Fatalf("%+v", st)
	}
	same(t, filesIn(t, sp.dir), map[string]string{"a": "1", "b": "2", "c": "3", "big": content})

	// shorter, and longer, than it was said to be
	for _, wrong := range []string{"short", content + "more"} {
		s.Replace["big"] = tree.Replacement{Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(wrong)), nil }}
		s.Tree = tree.Tree{Git: s.Git, GitDir: s.GitDir, Commit: s.Commit, Limits: s.Limits, Replace: s.Replace} // not listed yet
		if _, err := s.Checkout(t.Context(), openDir(t, t.TempDir()), nil); !errors.Is(err, program.ErrDamaged) {
			t.Fatalf("%q: %v", wrong, err)
		}
	}
}

// TestCopier_isALuxury: large trees, small ones, a short disk and a lost mirror have none.
func TestCopier_isALuxury(t *testing.T) {
	f := setUp(t, Limits{SpareBytes: 9 << 20, FreeBytes: 1 << 30})
	free := uint64(10 << 30)
	f.mirrors.cfg.FreeDisk = func(string) (uint64, error) { return free, nil }
	repo := f.git.Repo("acme/web")
	copier := func(files map[string]string) tree.Copier {
		repo.Commit("main", "x", files)
		s, err := f.mirrors.Fetch(t.Context(), source("main"))
		must(t, err)
		defer s.Close()
		if s.Copier() != nil {
			t.Fatal("a copy of what was never checked out")
		}
		_, err = s.Checkout(t.Context(), openDir(t, t.TempDir()), nil)
		must(t, err)
		return s.Copier()
	}
	if copier(map[string]string{"a": "small"}) != nil || copier(map[string]string{"a": strings.Repeat("x", 10<<20)}) != nil {
		t.Fatal("a copy of a tree that is too small, or too large")
	}
	write := copier(map[string]string{"a": strings.Repeat("x", 8<<20)})
	if _, err := write(t.Context(), openDir(t, t.TempDir()), going); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("a deployment begins")
	write = copier(func() map[string]string {
		m := map[string]string{"big": strings.Repeat("x", 8<<20)}
		for i := range 80 {
			m[fmt.Sprint(i)] = "x"
		}
		return m
	}())
	if _, err := write(t.Context(), openDir(t, t.TempDir()), func(context.Context) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("%v", err)
	}
	free = 2<<30 + 1<<20 // beyond twice the reserve, but not with the copy
	if _, err := write(t.Context(), openDir(t, t.TempDir()), going); !errors.Is(err, tree.ErrNoRoom) {
		t.Fatalf("%v", err)
	}
	free = 10 << 30
	must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
	if _, err := write(t.Context(), openDir(t, t.TempDir()), going); err == nil {
		t.Fatal("a copy from a mirror that is gone")
	}
}

// TestCheckout_severalWriters: a tree large enough to be written side by side is whole.
func TestCheckout_severalWriters(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Jane Developer <jane@example.test> 1700000000 +0000\ndata 0\n")
	want := map[string]string{}
	for i := range 3 * 1000 {
		p, content := fmt.Sprintf("d%d/e%d/f%d", i%7, i%3, i), strings.Repeat(fmt.Sprint(i), i%50)
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", p, len(content), content)
		want[p] = content
	}
	repo.Input(in.String(), "fast-import", "--quiet")
	s, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer s.Close()
	dir, last := t.TempDir(), 0
	st, err := s.Checkout(t.Context(), openDir(t, dir), func(done, all int) {
		if done <= last || all != len(want) {
			t.Errorf("%d of %d after %d", done, all, last)
		}
		last = done
	})
	must(t, err)
	if st.Files != len(want) || last == 0 {
		t.Fatalf("%+v, last heard of %d", st, last)
	}
	same(t, filesIn(t, dir), want)
}
