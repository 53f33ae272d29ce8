package release

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fill writes a spare whose manifest is its content.
func fill(content string) func(*os.Root) ([]byte, error) {
	return func(tree *os.Root) ([]byte, error) {
		return []byte(content), tree.WriteFile("index.html", []byte(content), 0o644)
	}
}

func releases(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "apps", ws, app, "releases"))
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// deathOf is the step at which a worker died; other panics go on.
func deathOf(r any) string {
	c, ok := r.(crash)
	if r != nil && !ok {
		panic(r)
	}
	return c.at
}

func TestSpare_isTakenOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	if r, m, err := s.TakeSpare(t.Context(), ws, app, 1, "1"); r != nil || m != nil || err != nil {
		t.Fatalf("a spare from nowhere: %v %q %v", r, m, err)
	}
	build(t, s, "1", "one")
	must(t, s.Switch(t.Context(), ws, app, 1, "1"))
	must(t, s.MakeSpare(t.Context(), ws, app, 1, fill("first")))
	must(t, s.MakeSpare(t.Context(), ws, app, 1, fill("second"))) // takes the place of the first
	must(t, s.Sweep(t.Context(), ws, app, 1, nil))
	if got := releases(t, dir); len(got) != 2 || got[0] != spareDir || got[1] != "1" {
		t.Fatalf("left: %v", got)
	}
	must(t, s.Claim(t.Context(), ws, app, 2, 1))
	r, m, err := s.TakeSpare(t.Context(), ws, app, 2, "2")
	must(t, err)
	b, err := r.ReadFile("index.html")
	must(t, err)
	if string(b) != "second" || string(m) != "second" {
		t.Fatalf("%q %q", b, m)
	}
	must(t, r.WriteFile("index.html", []byte("two"), 0o644))
	must(t, r.Close())
	if r, _, err := s.TakeSpare(t.Context(), ws, app, 2, "2.2"); r != nil || err != nil {
		t.Fatalf("taken twice: %v %v", r, err)
	}
	must(t, s.Switch(t.Context(), ws, app, 2, "2"))
	if got := live(t, dir); got != "two" {
		t.Fatal(got)
	}
}

func TestSpare_failedMakerLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	failed := errors.New("no room")
	err := s.MakeSpare(t.Context(), ws, app, 1, func(tree *os.Root) ([]byte, error) {
		return nil, errors.Join(tree.WriteFile("half", nil, 0o644), failed)
	})
	if !errors.Is(err, failed) || len(releases(t, dir)) != 0 {
		t.Fatalf("%v %v", err, releases(t, dir))
	}
}

func TestSpare_staleWorkersNeitherMakeNorTake(t *testing.T) {
	dir := t.TempDir()
	stale, fresh := open(t, dir), open(t, dir)
	must(t, stale.Claim(t.Context(), ws, app, 1, 1))
	err := stale.MakeSpare(t.Context(), ws, app, 1, func(tree *os.Root) ([]byte, error) {
		must(t, fresh.Claim(t.Context(), ws, app, 2, 1)) // the next deployment begins meanwhile
		return fill("stale")(tree)
	})
	if !errors.Is(err, ErrStale) || len(releases(t, dir)) != 0 {
		t.Fatalf("%v %v", err, releases(t, dir))
	}
	must(t, fresh.MakeSpare(t.Context(), ws, app, 2, fill("fresh")))
	if r, _, err := stale.TakeSpare(t.Context(), ws, app, 1, "1"); r != nil || !errors.Is(err, ErrStale) {
		t.Fatalf("%v %v", r, err)
	}
	// One that is being made while its app's directory is swept, or removed, is just gone.
	err = fresh.MakeSpare(t.Context(), ws, app, 2, func(tree *os.Root) ([]byte, error) {
		must(t, fresh.Sweep(t.Context(), ws, app, 2, nil))
		return fill("swept")(tree)
	})
	if err == nil {
		t.Fatal("a spare that was swept away was published")
	}
	must(t, fresh.Remove(t.Context(), ws, app, 3))
	if err := fresh.MakeSpare(t.Context(), ws, app, 2, fill("late")); err == nil {
		t.Fatal("a spare of an app that is gone")
	}
	if _, err := os.Stat(filepath.Join(dir, "apps", ws, app, "releases")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v", err)
	}
}

// TestSpare_crashBetweenAnyTwoWrites lets its maker, and then its taker, die before each change on
// disk: a spare that can be taken afterwards is whole and as its maker left it.
func TestSpare_crashBetweenAnyTwoWrites(t *testing.T) {
	steps := map[string]bool{}
	for at := 0; ; at++ {
		dir := t.TempDir()
		s := open(t, dir)
		must(t, s.Claim(t.Context(), ws, app, 1, 1))
		build(t, s, "1", "one")
		must(t, s.Switch(t.Context(), ws, app, 1, "1"))
		must(t, s.MakeSpare(t.Context(), ws, app, 1, fill("old")))
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
			must(t, s.MakeSpare(t.Context(), ws, app, 1, fill("new")))
			must(t, s.Claim(t.Context(), ws, app, 2, 1))
			r, _, err := s.TakeSpare(t.Context(), ws, app, 2, "2")
			must(t, err)
			must(t, r.WriteFile("index.html", []byte("two"), 0o644)) // no longer pristine
			must(t, r.Close())
			must(t, s.Switch(t.Context(), ws, app, 2, "2"))
		}()
		if got := live(t, dir); got != "one" && got != "two" {
			t.Fatalf("died at %q: live is %q", died, got)
		}
		next := open(t, dir)
		must(t, next.Claim(t.Context(), ws, app, 3, 1))
		r, m, err := next.TakeSpare(t.Context(), ws, app, 3, "2.2")
		must(t, err)
		if r != nil {
			b, err := r.ReadFile("index.html")
			if err != nil || string(b) != string(m) || string(b) == "two" {
				t.Fatalf("died at %q: the spare of %q holds %q (%v)", died, m, b, err)
			}
			must(t, r.Close())
		}
		build(t, next, "2.2", "again")
		must(t, next.Switch(t.Context(), ws, app, 3, "2.2"))
		must(t, next.Sweep(t.Context(), ws, app, 3, nil))
		if got := releases(t, dir); live(t, dir) != "again" || len(got) != 1 {
			t.Fatalf("died at %q: %q is live, left %v", died, live(t, dir), got)
		}
		if died == "" {
			break
		}
	}
	for _, want := range []string{"spare-begin", "spare-sync", "spare-manifest", "spare-replace", "spare-publish", "spare-published", "spare-take", "spare-taken"} {
		if !steps[want] {
			t.Errorf("never died at %q", want)
		}
	}
}

func TestDropSpares_removesAllButThoseInUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"one", "two", "locked"} {
		must(t, s.Claim(t.Context(), ws, name, 1, 1))
		must(t, s.MakeSpare(t.Context(), ws, name, 1, fill(name)))
	}
	must(t, s.Claim(t.Context(), ws, "none", 1, 1))
	must(t, s.Claim(t.Context(), ws, "half", 1, 1)) // its maker was killed
	must(t, os.MkdirAll(filepath.Join(dir, "apps", ws, "half", "releases", makingPrefix+"x", spareTree), 0o755))
	f, err := os.OpenFile(filepath.Join(dir, "apps", ws, "locked", "epoch"), os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = f.Close() }()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if n, err := s.DropSpares(t.Context()); n != 3 || err != nil {
		t.Fatalf("%d %v", n, err)
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.DropSpares(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n, err := s.DropSpares(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d %v", n, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "apps", ws, "*", "releases", ".*")); err != nil || len(left) != 0 {
		t.Fatalf("%v %v", left, err)
	}
}

func TestSwitch_backToAKeptRelease(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for n, name := range []string{"1", "2", "3"} {
		epoch := int64(n + 1)
		must(t, s.Claim(t.Context(), ws, app, epoch, 1))
		build(t, s, name, name)
		must(t, s.Switch(t.Context(), ws, app, epoch, name))
		must(t, s.Sweep(t.Context(), ws, app, epoch, []string{"2"}))
	}
	for name, want := range map[string]bool{"1": false, "2": true, "3": true, "": false, "..": false, spareDir: false, "2/..": false, "7": false} {
		if got, err := s.Has(ws, app, name); got != want || err != nil {
			t.Errorf("has %q: %v %v", name, got, err)
		}
	}
	must(t, s.Claim(t.Context(), ws, app, 4, 1))
	must(t, s.Switch(t.Context(), ws, app, 4, "2"))
	if got := live(t, dir); got != "2" {
		t.Fatal(got)
	}
	if err := s.Switch(t.Context(), ws, app, 4, "1"); !errors.Is(err, ErrNotKept) {
		t.Fatalf("%v", err)
	}
	must(t, s.Sweep(t.Context(), ws, app, 4, []string{"3"}))
	if got := releases(t, dir); strings.Join(got, " ") != "2 3" {
		t.Fatal(got)
	}
}

func TestOpen_servesNothingBesideTheRelease(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	build(t, s, "1", "one")
	must(t, os.Symlink("../../epoch", filepath.Join(s.AbsPath(ws, app, "1"), "out")))
	r, err := s.Open(ws, app, "1")
	must(t, err)
	defer func() { _ = r.Close() }()
	if b, err := r.ReadFile("index.html"); err != nil || string(b) != "one" {
		t.Fatalf("%q %v", b, err)
	}
	for _, p := range []string{"out", "../../epoch", "../2"} {
		if b, err := r.ReadFile(p); err == nil {
			t.Errorf("%s: %q", p, b)
		}
	}
	for _, name := range []string{"2", "..", "", "../web/releases/1", currentLink} {
		if _, err := s.Open(ws, app, name); !errors.Is(err, ErrNotKept) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestScratch_isEmptyAndSwept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	for range 2 {
		p, err := s.Scratch(ws, app, "1.2")
		must(t, err)
		if left, err := os.ReadDir(p); err != nil || len(left) != 0 || !filepath.IsAbs(p) {
			t.Fatalf("%s: %v %v", p, left, err)
		}
		must(t, os.WriteFile(filepath.Join(p, "x"), nil, 0o644))
	}
	build(t, s, "1.2", "one")
	must(t, s.Switch(t.Context(), ws, app, 1, "1.2"))
	must(t, s.Sweep(t.Context(), ws, app, 1, nil))
	if got := releases(t, dir); strings.Join(got, " ") != "1.2" {
		t.Fatal(got)
	}
	if _, err := s.Scratch(ws, app, "../x"); !errors.Is(err, ErrNotKept) {
		t.Fatal(err)
	}
}
