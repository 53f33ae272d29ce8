package release

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// tree makes a release with these files, and returns its path.
func tree(t *testing.T, s *Store, directory string, files map[string]string) string {
	t.Helper()
	r, err := s.Prepare(ws, app, directory)
	must(t, err)
	for p, content := range files {
		must(t, r.MkdirAll(filepath.Dir(p), 0o755))
		must(t, r.WriteFile(p, []byte(content), 0o644))
	}
	must(t, r.Close())
	return s.AbsPath(ws, app, directory)
}

func read(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(p)
	must(t, err)
	return string(b)
}

func TestShared_lastsFromReleaseToRelease(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	paths := []string{"public/uploads/", ".env", "var/empty/", "var/db.sqlite"}
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	one := tree(t, s, "1", map[string]string{"public/uploads/keep": "of the repository", ".env": "A=1", "index.html": "one"})
	var got []string
	for range 2 { // again, as after a repeat
		var err error
		got, err = s.Shared(t.Context(), ws, app, "1", 1, paths)
		must(t, err)
	}
	kept := filepath.Join(s.dir, "apps", ws, app, "shared")
	want := []string{filepath.Join(kept, "public/uploads"), filepath.Join(kept, ".env"), filepath.Join(kept, "var/empty"), filepath.Join(kept, "var/db.sqlite")}
	if !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
	if target, err := os.Readlink(filepath.Join(one, "public/uploads")); err != nil || target != "../../../shared/public/uploads" {
		t.Fatalf("%q %v", target, err)
	}
	if read(t, filepath.Join(one, "public/uploads/keep")) != "of the repository" || read(t, filepath.Join(one, ".env")) != "A=1" || read(t, filepath.Join(one, "var/db.sqlite")) != "" {
		t.Fatal("the repository's files are not the first shared ones")
	}
	if info, err := os.Stat(filepath.Join(one, "var/empty")); err != nil || !info.IsDir() {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(one, "public/uploads/new"), []byte("uploaded"), 0o644))
	must(t, os.WriteFile(filepath.Join(one, ".env"), []byte("A=2"), 0o644))
	must(t, s.Switch(t.Context(), ws, app, 1, "1"))

	must(t, s.Claim(t.Context(), ws, app, 2, 1))
	two := tree(t, s, "2", map[string]string{"public/uploads/keep": "newer", ".env": "A=3", "index.html": "two"})
	_, err := s.Shared(t.Context(), ws, app, "2", 2, paths)
	must(t, err)
	must(t, s.Switch(t.Context(), ws, app, 2, "2"))
	must(t, s.Sweep(t.Context(), ws, app, 2, nil))
	if read(t, filepath.Join(two, "public/uploads/new")) != "uploaded" || read(t, filepath.Join(two, "public/uploads/keep")) != "of the repository" || read(t, filepath.Join(two, ".env")) != "A=2" {
		t.Fatal("what was shared did not last, or was not hidden")
	}
	if got := releases(t, dir); !slices.Equal(got, []string{"2"}) {
		t.Fatal(got)
	}
	if _, err := s.Shared(t.Context(), ws, app, "2", 1, paths); !errors.Is(err, ErrStale) {
		t.Fatalf("a stale attempt: %v", err)
	}
	must(t, s.Remove(t.Context(), ws, app, 3))
	if _, err := os.Stat(kept); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after the app: %v", err)
	}
}

func TestShared_refusesWhatCannotBe(t *testing.T) {
	for _, paths := range [][]string{{""}, {"/"}, {"/etc/"}, {".."}, {"../x"}, {"a/../../b"}, {"a//b"}, {"./a"}, {"a/."}, {"."}, {"a", "a/"}, {"a/", "a/b"}, {"a/b", "a/"}, {"a\nb"}, {"a\x00"}} {
		var e *SharedError
		if _, err := parseShared(paths); !errors.As(err, &e) || e.Message == "" {
			t.Errorf("%q: %v", paths, err)
		}
	}
	_, err := parseShared([]string{"a", "ab/", "b/c", "b/d/", ".env"})
	must(t, err)
}

// TestShared_staysWhereItIs: links, of the repository or of a hook, lead it nowhere.
func TestShared_staysWhereItIs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	outside := filepath.Join(dir, "outside")
	must(t, os.Mkdir(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("not yours"), 0o600))
	at := tree(t, s, "1", map[string]string{"file": "x", "dir/f": "y", "data/f": "z"})
	must(t, os.Symlink("data", filepath.Join(at, "var")))
	must(t, os.Symlink("data/f", filepath.Join(at, "own")))
	must(t, os.MkdirAll(filepath.Join(dir, "apps", ws, app, "shared"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(dir, "apps", ws, app, "shared", "hooked")))
	for _, p := range []string{"file/", "dir", "var/uploads/", "file/below", "hooked/", "hooked", "hooked/f", "hooked/new/"} {
		var e *SharedError
		if _, err := s.Shared(t.Context(), ws, app, "1", 1, []string{p}); !errors.As(err, &e) {
			t.Errorf("%q: %v", p, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 || read(t, filepath.Join(outside, "f")) != "not yours" {
		t.Fatalf("%v %v", left, err)
	}
	// A link of the repository's own gives way: there is nothing in it to keep.
	_, err := s.Shared(t.Context(), ws, app, "1", 1, []string{"own"})
	must(t, err)
	if read(t, filepath.Join(at, "own")) != "" || read(t, filepath.Join(at, "data/f")) != "z" {
		t.Fatal("the link was followed")
	}
}

// TestShared_crashBetweenAnyTwoWrites: the next attempt, with a release of its own, finds what the
// first one kept.
func TestShared_crashBetweenAnyTwoWrites(t *testing.T) {
	steps := map[string]bool{}
	files := map[string]string{"uploads/a": "a", ".env": "A=1", "index.html": "x"}
	paths := []string{"uploads/", ".env", "made", "made-too/"}
	for at := 0; ; at++ {
		dir := t.TempDir()
		s := open(t, dir)
		must(t, s.Claim(t.Context(), ws, app, 1, 1))
		tree(t, s, "1", files)
		n, died := 0, ""
		s.step = func(name string) {
			steps[name] = true
			if n == at {
				panic(crash{name})
			}
			n++
		}
		func() {
			defer func() { died = deathOf(recover()) }()
			_, err := s.Shared(t.Context(), ws, app, "1", 1, paths)
			must(t, err)
			tree(t, s, "2", files)
			_, err = s.Shared(t.Context(), ws, app, "2", 1, paths)
			must(t, err)
		}()
		next := open(t, dir)
		must(t, next.Claim(t.Context(), ws, app, 2, 1))
		p := tree(t, next, "1.2", files)
		_, err := next.Shared(t.Context(), ws, app, "1.2", 2, paths)
		must(t, err)
		if read(t, filepath.Join(p, "uploads/a")) != "a" || read(t, filepath.Join(p, ".env")) != "A=1" || read(t, filepath.Join(p, "made")) != "" {
			t.Fatalf("died at %q", died)
		}
		if died == "" {
			break
		}
	}
	for _, want := range []string{"share-move", "share-make", "share-hide", "share-link"} {
		if !steps[want] {
			t.Errorf("never died at %q", want)
		}
	}
}
