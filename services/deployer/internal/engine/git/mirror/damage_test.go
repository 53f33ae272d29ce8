package mirror

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

// TestFetch_damagedMirrorIsMadeAnew damages a mirror in one way of each sort, with -mirror.deep in all
// ways, and deploys as the pipeline does: what is found while fetching is mended at once, what is
// found while reading by throwing the mirror away and fetching once more.
func TestFetch_damagedMirrorIsMadeAnew(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"f": "content", "g": noise(5000)}
	repo.Commit("main", "x", files)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	git := f.gitDir()
	write := func(name, content string) func() {
		return func() { must(t, os.WriteFile(filepath.Join(git, name), []byte(content), 0o600)) }
	}
	remove := func(name string) func() { return func() { must(t, os.RemoveAll(filepath.Join(git, name))) } }
	ours := refOf("refs/heads/main")
	always := []string{
		"no HEAD", "config", "packed refs", "no refs", "a ref to nothing", "a garbage ref", "shallow of nothing", "no shallow", "stale locks",
		"a bogus alternate", "all objects gone", "truncated packs", "index without pack", "flipped pack", "one object is gone", "the commit is gone",
	}
	for name, damage := range map[string]func(){
		"no HEAD":            remove("HEAD"),
		"garbage HEAD":       write("HEAD", "\x00\x01garbage"),
		"empty HEAD":         write("HEAD", ""),
		"config":             write("config", "[[["),
		"no config":          remove("config"),
		"packed refs":        write("packed-refs", "\x00garbage"),
		"empty refs":         func() { emptyRefs(t, git) },
		"no refs":            remove("refs"),
		"a ref of zeros":     write(ours, strings.Repeat("0", 40)+"\n"),
		"a ref to nothing":   write(ours, strings.Repeat("ab", 20)+"\n"),
		"an empty ref":       write(ours, ""),
		"a garbage ref":      write(ours, "garbage"),
		"a ref's log":        write("logs/"+ours, "\x00garbage\n"),
		"shallow":            write("shallow", "garbage\n"),
		"shallow of nothing": write("shallow", strings.Repeat("ab", 20)+"\n"),
		"no shallow":         remove("shallow"),
		"stale locks": func() {
			write("shallow.lock", "")()
			write("packed-refs.lock", "")()
			write(ours+".lock", "")()
			write("config.lock", "")()
		},
		"half a pack": write("objects/pack/tmp_pack_abc", noise(1000)),
		"a bogus alternate": func() {
			must(t, os.MkdirAll(filepath.Join(git, "objects", "info"), 0o700))
			write("objects/info/alternates", "/nowhere\n")()
		},
		"no objects":          remove("objects"),
		"all objects gone":    func() { wipeObjects(t, git) },
		"empty objects":       func() { truncateObjects(t, git, 0) },
		"truncated packs":     func() { truncateObjects(t, git, 40) },
		"index without pack":  func() { eachObject(t, git, removeExt(".pack")) },
		"pack without index":  func() { eachObject(t, git, removeExt(".idx")) },
		"flipped pack":        func() { flipPacks(t, git) },
		"one object is gone":  func() { loseObject(t, f, git, "g") },
		"the commit is gone":  func() { loseObject(t, f, git, "") },
		"empty objects, left": func() { emptyLoose(t, f, git, "f") },
	} {
		if !*deep && !slices.Contains(always, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f := *f
			f.t = t
			damage()
			dir, _, err := f.deployMending("main")
			if err != nil {
				t.Fatal(err)
			}
			same(t, filesIn(t, dir), files)
		})
	}
}

// A pack that arrives is compared with what the mirror holds of its objects: that git cannot read its own
// copy is no fault of Bitbucket's, though git then says that the pack could not be taken.
func TestFetch_damagedCopyOfWhatArrivesIsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, 20, 40} {
		f := setUp(t, Limits{})
		files := map[string]string{"f": "content", "g": noise(5000)}
		f.git.Repo("acme/web").Commit("main", "x", files)
		if _, _, err := f.deploy("main"); err != nil {
			t.Fatal(err)
		}
		loseObject(t, f, f.gitDir(), "") // so that a pack arrives, with what is damaged
		truncateObjects(t, f.gitDir(), size)
		dir, _, err := f.deployMending("main")
		if err != nil {
			t.Fatalf("objects of %d bytes: %v", size, err)
		}
		same(t, filesIn(t, dir), files)
	}
}

func TestChanges_damagedMirrorIsMadeAnew(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	first := repo.Commit("main", "x", map[string]string{"f": "before"})
	second := repo.Commit("main", "x", map[string]string{"f": "after"})
	git := f.gitDir()
	for name, damage := range map[string]func(){
		"nothing yet":        func() {},
		"all objects gone":   func() { wipeObjects(t, git) },
		"truncated packs":    func() { truncateObjects(t, git, 40) },
		"the commit is gone": func() { loseObject(t, f, git, commitRefs+second) },
	} {
		for _, damaged := range []bool{false, true} {
			if damaged {
				damage()
			}
			if c, err := f.mirrors.Changes(t.Context(), pushed("main", first, second)); err != nil || c.BaseUnknown || len(c.Paths) != 1 {
				t.Fatalf("%s: %+v %v", name, c, err)
			}
		}
	}
}

// deployMending deploys, and once more without the mirror where that is found damaged.
func (f *fixture) deployMending(branch string) (string, Commit, error) {
	dir, head, err := f.deploy(branch)
	if errors.Is(err, program.ErrDamaged) {
		must(f.t, f.mirrors.Discard(f.t.Context(), "acme-inc", source("").Repository))
		dir, head, err = f.deploy(branch)
	}
	return dir, head, err
}

func emptyRefs(t *testing.T, git string) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(git, "refs")))
	must(t, os.Mkdir(filepath.Join(git, "refs"), 0o700))
	if err := os.Remove(filepath.Join(git, "packed-refs")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func removeExt(ext string) func(string) error {
	return func(p string) error {
		if filepath.Ext(p) != ext {
			return nil
		}
		return os.Remove(p)
	}
}

func flipPacks(t *testing.T, git string) {
	t.Helper()
	eachObject(t, git, func(p string) error {
		if filepath.Ext(p) != ".pack" {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil || len(b) < 100 {
			return err
		}
		for i := 20; i < len(b)-40; i += 7 {
			b[i] ^= 0x55
		}
		return errors.Join(os.Chmod(p, 0o600), os.WriteFile(p, b, 0o600))
	})
}

// loose makes all packed objects loose ones, and returns where one of them is: a file's content, the
// head, or, below commitRefs, a commit by its hash.
func loose(t *testing.T, f *fixture, git, file string) string {
	t.Helper()
	var packs []string
	eachObject(t, git, func(p string) error {
		if filepath.Ext(p) == ".pack" {
			packs = append(packs, p)
		}
		return nil
	})
	for i, p := range packs {
		b, err := os.ReadFile(p)
		must(t, err)
		must(t, os.Remove(p))
		must(t, os.Remove(strings.TrimSuffix(p, ".pack")+".idx"))
		if err := f.mirrors.git.Run(t.Context(), program.Command{Operation: "unpack", GitDir: git, Stdin: bytes.NewReader(b), Args: []string{"unpack-objects", "-q"}}); err != nil {
			t.Fatal(i, err)
		}
	}
	rev := refOf("refs/heads/main")
	switch {
	case strings.HasPrefix(file, commitRefs):
		rev = strings.TrimPrefix(file, commitRefs)
	case file != "":
		rev += ":" + file
	}
	out, err := f.mirrors.git.Output(t.Context(), program.Command{Operation: "rev-parse", GitDir: git, Args: []string{"rev-parse", rev}})
	must(t, err)
	oid := strings.TrimSpace(out)
	return filepath.Join(git, "objects", oid[:2], oid[2:])
}

func loseObject(t *testing.T, f *fixture, git, file string) {
	t.Helper()
	must(t, os.Remove(loose(t, f, git, file)))
}

func emptyLoose(t *testing.T, f *fixture, git, file string) {
	t.Helper()
	p := loose(t, f, git, file)
	must(t, os.Chmod(p, 0o600))
	must(t, os.Truncate(p, 0))
}

func eachObject(t *testing.T, git string, fn func(p string) error) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(git, "objects"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return fn(p)
	}))
}

func wipeObjects(t *testing.T, git string) { eachObject(t, git, os.Remove) }

func truncateObjects(t *testing.T, git string, size int64) {
	t.Helper()
	eachObject(t, git, func(p string) error {
		if err := os.Chmod(p, 0o600); err != nil {
			return err
		}
		return os.Truncate(p, size)
	})
}

func TestRepository_manyPacksAreTidied(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": "1"})
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(f.mirrors.dirOf("acme-inc", source("").Repository), "git")
	pack := filepath.Join(git, "objects", "pack")
	must(t, f.mirrors.git.Run(t.Context(), program.Command{Operation: "repack", GitDir: git, Args: []string{"repack", "-a", "-d", "-q"}}))
	names, err := filepath.Glob(filepath.Join(pack, "*.pack"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	for i := range maxPacks + 1 {
		for _, ext := range []string{".pack", ".idx"} {
			b, err := os.ReadFile(strings.TrimSuffix(names[0], ".pack") + ext)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(pack, "pack-"+strings.Repeat("0", 38)+string(rune('a'+i/26))+string(rune('a'+i%26))+ext), b, 0o600))
		}
	}
	if dir, _, err := f.deploy("main"); err != nil || filesIn(t, dir)["f"] != "1" {
		t.Fatal(err)
	}
	if names, _ = filepath.Glob(filepath.Join(pack, "*.pack")); len(names) > 2 {
		t.Fatalf("%d packs are left", len(names))
	}
}
