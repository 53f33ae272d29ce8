package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ws  = "acme-inc"
	app = "web"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, "default")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build makes a release that holds one file.
func build(t *testing.T, s *Store, directory, content string) {
	t.Helper()
	r, err := s.Prepare(ws, app, directory)
	must(t, err)
	must(t, r.WriteFile("index.html", []byte(content), 0o644))
	must(t, r.Close())
}

// live reads the file through current, as a web server would.
func live(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "apps", ws, app, "current", "index.html"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	must(t, err)
	return string(b)
}

func TestSwitch_makesTheReleaseCurrent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for n := int32(1); n <= 3; n++ {
		name := DirectoryName(n, 1)
		must(t, s.Claim(t.Context(), ws, app, int64(n), 1))
		build(t, s, name, name)
		must(t, s.Switch(t.Context(), ws, app, int64(n), name))
		if got := live(t, dir); got != name {
			t.Fatalf("live is %q, want %q", got, name)
		}
		current, err := s.Current(ws, app)
		if err != nil || current != name || NumberOf(current) != n {
			t.Fatalf("current %q %v", current, err)
		}
	}
	must(t, s.Sweep(t.Context(), ws, app, 3, []string{"2"}))
	left, err := os.ReadDir(filepath.Join(dir, "apps", ws, app, "releases"))
	if err != nil || len(left) != 2 || left[0].Name() != "2" || left[1].Name() != "3" {
		t.Fatalf("left: %v %v", left, err)
	}
}

func TestSwitch_staleAttemptChangesNothing(t *testing.T) {
	dir := t.TempDir()
	stale, fresh := open(t, dir), open(t, dir) // two workers on one volume
	must(t, stale.Claim(t.Context(), ws, app, 1, 1))
	build(t, stale, "1", "stale")
	must(t, fresh.Claim(t.Context(), ws, app, 2, 1))
	build(t, fresh, "1.2", "fresh")
	must(t, fresh.Switch(t.Context(), ws, app, 2, "1.2"))
	if err := stale.Switch(t.Context(), ws, app, 1, "1"); !errors.Is(err, ErrStale) {
		t.Fatalf("switch of the stale one: %v", err)
	}
	if err := stale.Sweep(t.Context(), ws, app, 1, nil); !errors.Is(err, ErrStale) {
		t.Fatalf("sweep of the stale one: %v", err)
	}
	if err := stale.Claim(t.Context(), ws, app, 1, 1); !errors.Is(err, ErrStale) {
		t.Fatalf("claim of the stale one: %v", err)
	}
	if got := live(t, dir); got != "fresh" {
		t.Fatalf("live is %q", got)
	}
}

type crash struct{ at string }

// TestSwitch_crashBetweenAnyTwoWrites lets a worker die before each change on disk. Whatever was
// written, current is a whole release, and the successor gets through.
func TestSwitch_crashBetweenAnyTwoWrites(t *testing.T) {
	steps := map[string]bool{}
	for at := 0; ; at++ {
		dir := t.TempDir()
		s := open(t, dir)
		must(t, s.Claim(t.Context(), ws, app, 1, 1))
		build(t, s, "1", "one")
		must(t, s.Announce(t.Context(), ws, app, 1, 1, SiteRelease{Number: 1, Directory: "1"}))
		must(t, s.Switch(t.Context(), ws, app, 1, "1"))

		n, died := 0, ""
		s.step = func(name string) {
			steps[name] = true
			if n == at {
				panic(crash{name})
			}
			n++
		}
		func() {
			defer func() {
				if r := recover(); r != nil {
					c, ok := r.(crash)
					if !ok {
						panic(r)
					}
					died = c.at
				}
			}()
			must(t, s.Claim(t.Context(), ws, app, 2, 1))
			build(t, s, "2", "two")
			must(t, s.Announce(t.Context(), ws, app, 2, 1, SiteRelease{Number: 2, Directory: "2"}))
			must(t, s.Switch(t.Context(), ws, app, 2, "2"))
			must(t, s.Sweep(t.Context(), ws, app, 2, nil))
		}()
		wantDescribed(t, died, dir)
		if got := live(t, dir); got != "one" && got != "two" {
			t.Fatalf("died at %q: live is %q", died, got)
		}
		next := open(t, dir)
		must(t, next.Claim(t.Context(), ws, app, 3, 1))
		build(t, next, "2.2", "two again")
		must(t, next.Announce(t.Context(), ws, app, 3, 1, SiteRelease{Number: 2, Directory: "2.2"}))
		must(t, next.Switch(t.Context(), ws, app, 3, "2.2"))
		must(t, next.Sweep(t.Context(), ws, app, 3, nil))
		if got := live(t, dir); got != "two again" {
			t.Fatalf("died at %q: live is %q in the end", died, got)
		}
		wantDescribed(t, died, dir)
		if left, err := os.ReadDir(filepath.Join(dir, "apps", ws, app, "releases")); err != nil || len(left) != 1 {
			t.Fatalf("died at %q: left %v %v", died, left, err)
		}
		if died == "" {
			break
		}
	}
	for _, want := range []string{"claim", "prepare", "site", "site renamed", "link", "rename", "switched", "trash", "sweep"} {
		if !steps[want] {
			t.Errorf("never died at %q", want)
		}
	}
}

// wantDescribed wants what is current to be described to who serves it.
func wantDescribed(t *testing.T, died, dir string) {
	t.Helper()
	s := open(t, dir)
	current, err := s.Current(ws, app)
	must(t, err)
	site, err := s.Site(ws, app)
	must(t, err)
	if site == nil || !slices.ContainsFunc(site.Releases, func(r SiteRelease) bool { return r.Directory == current }) {
		t.Fatalf("died at %q: %s is current and not in what is served: %+v", died, current, site)
	}
}

func TestClaim_waitsForTheLockOnlySoLong(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	f, err := os.OpenFile(filepath.Join(dir, "apps", ws, app, "epoch"), os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = f.Close() }()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX)) // a worker stopped in the middle of its switch
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Claim(ctx, ws, app, 2, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	must(t, s.Claim(t.Context(), ws, app, 2, 1))
}

func TestClaim_oneAtATimeAndOnlyForward(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		s := open(t, dir)
		wg.Go(func() {
			for n := range 20 {
				epoch := int64(n*4 + i + 1)
				if err := s.Claim(t.Context(), ws, app, epoch, 1); err != nil && !errors.Is(err, ErrStale) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f, err := os.Open(filepath.Join(dir, "apps", ws, app, "epoch"))
	must(t, err)
	defer func() { _ = f.Close() }()
	if got, err := readEpoch(f); err != nil || got != 80 {
		t.Fatalf("epoch %d %v, want the highest", got, err)
	}
}

func TestEpoch_damagedFileIsWrittenOver(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 7, 1))
	path := filepath.Join(dir, "apps", ws, app, "epoch")
	for _, garbage := range []string{"", "x", strings.Repeat("\x00", epochLength), "00000000000000000009 00000000\n"} {
		must(t, os.WriteFile(path, []byte(garbage), 0o640))
		must(t, s.Claim(t.Context(), ws, app, 8, 1))
	}
}

func TestRemove_leavesTheFenceAndSparesANewerApp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 3, 1))
	build(t, s, "1", "old")
	must(t, s.Switch(t.Context(), ws, app, 3, "1"))
	must(t, s.Remove(t.Context(), ws, app, 5))
	if live(t, dir) != "" {
		t.Fatal("still live")
	}
	if err := s.Switch(t.Context(), ws, app, 3, "1"); err == nil {
		t.Fatal("a worker of the deleted app could switch")
	}
	must(t, s.Claim(t.Context(), ws, app, 7, 6))
	build(t, s, "1", "new")
	must(t, s.Switch(t.Context(), ws, app, 7, "1"))
	must(t, s.Remove(t.Context(), ws, app, 5)) // comes late
	if live(t, dir) != "new" {
		t.Fatal("the newer app's release is gone")
	}
	must(t, s.Remove(t.Context(), ws, "never-there", 1))
}

func TestClaim_wipesWhatADeletedAppLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 3, 1))
	build(t, s, "1", "old")
	must(t, s.Switch(t.Context(), ws, app, 3, "1"))
	must(t, s.Claim(t.Context(), ws, app, 9, 8)) // the app was deleted and made again
	if current, err := s.Current(ws, app); err != nil || current != "" {
		t.Fatalf("current %q %v", current, err)
	}
	build(t, s, "1", "new")
	must(t, s.Switch(t.Context(), ws, app, 9, "1"))
	if live(t, dir) != "new" {
		t.Fatal(live(t, dir))
	}
}

func TestOpen_dataDirectoryBelongsToOneServer(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	if again := open(t, dir); again.ID() != first.ID() || first.ID() == "" {
		t.Fatalf("ids %q and %q", first.ID(), again.ID())
	}
	if _, err := Open(t.Context(), dir, "eu"); err == nil || !strings.Contains(err.Error(), `"default"`) {
		t.Fatalf("%v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "server.json"), []byte("{"), 0o644))
	if _, err := Open(t.Context(), dir, "default"); err == nil {
		t.Fatal("a damaged identity was accepted")
	}
}

func TestSweep_removesReadOnlyTrees(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("root may write anywhere: this run shows only that nothing else gets in the way")
	}
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Claim(t.Context(), ws, app, 1, 1))
	build(t, s, "1", "x")
	locked := filepath.Join(dir, "apps", ws, app, "releases", "1", "locked")
	must(t, os.MkdirAll(filepath.Join(locked, "deep"), 0o755))
	must(t, os.Chmod(locked, 0o500))
	build(t, s, "2", "y")
	must(t, s.Switch(t.Context(), ws, app, 1, "2"))
	must(t, s.Sweep(t.Context(), ws, app, 1, nil))
	if _, err := os.Stat(filepath.Dir(locked)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v", err)
	}
}

// nest makes many more directories in each other than this process may have files open.
func nest(t *testing.T, dir string) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range 1000 {
		must(t, unix.Mkdirat(at, "d", 0o755))
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(at))
		at = next
	}
	must(t, unix.Close(at))
}

func TestRemoval_ofTreesOfAnyDepth(t *testing.T) {
	var files unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: files.Max}))
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &files) })
	dir := t.TempDir()
	s := open(t, dir)
	at := filepath.Join(dir, "apps", ws, app)
	deep := func(epoch int64, directory string) {
		t.Helper()
		build(t, s, directory, "deep")
		nest(t, filepath.Join(at, "releases", directory))
		_, err := s.Shared(t.Context(), ws, app, directory, epoch, []string{"uploads/"})
		must(t, err)
		nest(t, filepath.Join(at, "shared", "uploads"))
	}
	left := func(what string, want ...string) {
		t.Helper()
		got, err := s.readDir(appDir(ws, app))
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q is left, not %q: %v", what, got, want, err)
		}
	}
	must(t, s.Claim(t.Context(), ws, app, 1, 0))
	deep(1, "1")
	must(t, s.Sweep(t.Context(), ws, app, 1, nil))
	if names, err := s.readDir(appDir(ws, app) + "/releases"); err != nil || len(names) > 0 {
		t.Errorf("swept: %q %v", names, err)
	}
	must(t, s.Remove(t.Context(), ws, app, 1))
	left("removed", "epoch")

	// What stands in the way of a new app of that name is put aside at once, and removed when it sweeps.
	must(t, s.Claim(t.Context(), ws, app, 2, 2))
	deep(2, "2")
	must(t, s.Claim(t.Context(), ws, app, 10, 9))
	build(t, s, "1", "new")
	must(t, s.Switch(t.Context(), ws, app, 10, "1"))
	must(t, s.Sweep(t.Context(), ws, app, 10, nil))
	left("claimed by another", "current", "epoch", "releases")
}

func TestDirectoryName(t *testing.T) {
	for _, c := range []struct {
		number, attempt int32
		want            string
	}{{12, 1, "12"}, {12, 0, "12"}, {12, 2, "12.2"}, {1, 13, "1.13"}} {
		got := DirectoryName(c.number, c.attempt)
		if got != c.want || NumberOf(got) != c.number {
			t.Errorf("%+v: %q", c, got)
		}
	}
	for _, name := range []string{"", "x", ".trash-1", "0", "-3", fmt.Sprint(1 << 40)} {
		if n := NumberOf(name); n != 0 {
			t.Errorf("%q: %d", name, n)
		}
	}
}
