package mirror

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFetch_damagedMirrorIsMadeAnew(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"f": "content"}
	repo.Commit("main", "x", files)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(f.mirrors.dirOf("acme-inc", source("").Repository), "git")
	for name, damage := range map[string]func(){
		"no HEAD":      func() { must(t, os.Remove(filepath.Join(git, "HEAD"))) },
		"config":       func() { must(t, os.WriteFile(filepath.Join(git, "config"), []byte("[[["), 0o600)) },
		"packed refs":  func() { must(t, os.WriteFile(filepath.Join(git, "packed-refs"), []byte("\x00garbage"), 0o600)) },
		"shallow":      func() { must(t, os.WriteFile(filepath.Join(git, "shallow"), []byte("garbage\n"), 0o600)) },
		"stale locks":  func() { must(t, os.WriteFile(filepath.Join(git, "shallow.lock"), nil, 0o600)) },
		"all objects":  func() { wipeObjects(t, git) },
		"empty object": func() { truncateObjects(t, git) },
	} {
		damage()
		dir, _, err := f.deploy("main")
		if errors.Is(err, ErrDamaged) { // found while reading: what the pipeline does
			must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
			dir, _, err = f.deploy("main")
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, tree(t, dir), files)
	}
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

func truncateObjects(t *testing.T, git string) {
	eachObject(t, git, func(p string) error {
		if err := os.Chmod(p, 0o600); err != nil {
			return err
		}
		return os.Truncate(p, 0)
	})
}

func TestRepository_manyPacksAreTidied(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": "1"})
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(f.mirrors.dirOf("acme-inc", source("").Repository), "git")
	pack := filepath.Join(git, "objects", "pack")
	must(t, f.mirrors.git.run(t.Context(), command{operation: "repack", gitDir: git, args: []string{"repack", "-a", "-d", "-q"}}))
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
	if dir, _, err := f.deploy("main"); err != nil || tree(t, dir)["f"] != "1" {
		t.Fatal(err)
	}
	if names, _ = filepath.Glob(filepath.Join(pack, "*.pack")); len(names) > 2 {
		t.Fatalf("%d packs are left", len(names))
	}
}
