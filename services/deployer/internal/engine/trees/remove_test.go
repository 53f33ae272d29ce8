package trees

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fewFiles lets this process have fewer open files than the deepest tree has levels.
func fewFiles(t *testing.T) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
}

// nest makes directories in each other, with a file and a link in each, and a file of size bytes in the
// innermost. Each gets these permissions once it is filled.
func nest(t *testing.T, dir string, levels int, perm uint32, size int64) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	check(t, err)
	for range levels {
		check(t, unix.Mkdirat(at, "d", 0o755))
		if levels < 1000 { // many more take their time
			check(t, unix.Symlinkat("/etc", at, "link"))
			check(t, unix.Mknodat(at, "file", unix.S_IFREG|0o400, 0))
		}
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		check(t, err)
		check(t, unix.Fchmod(at, perm))
		check(t, unix.Close(at))
		at = next
	}
	if size > 0 {
		fd, err := unix.Openat(at, "big", unix.O_CREAT|unix.O_WRONLY, 0o644)
		check(t, err)
		check(t, unix.Fallocate(fd, 0, 0, size))
		check(t, unix.Close(fd))
	}
	check(t, unix.Close(at))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemove_anyDepth(t *testing.T) {
	fewFiles(t)
	for levels, perm := range map[int]uint32{0: 0o755, 1: 0o555, 3: 0o555, 500: 0, 20_000: 0o755} {
		base := t.TempDir()
		check(t, os.Mkdir(filepath.Join(base, "tree"), 0o755))
		nest(t, filepath.Join(base, "tree"), levels, perm, 0)
		check(t, RemoveAll(filepath.Join(base, "tree")))
		if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
			t.Errorf("%d levels: %v %v", levels, left, err)
		}
	}
}

func TestRemove_followsNoLinkAndTakesAnyName(t *testing.T) {
	base, outside := t.TempDir(), t.TempDir()
	keep := filepath.Join(outside, "keep", "file")
	check(t, os.MkdirAll(filepath.Dir(keep), 0o755))
	check(t, os.WriteFile(keep, nil, 0o600))
	tree := filepath.Join(base, "tree")
	for _, name := range []string{".moved-1", ".moved-2", "new\nline", "-rf", "\xff\xfe", strings.Repeat("n", 255)} {
		check(t, os.MkdirAll(filepath.Join(tree, name, "a", ".moved-1"), 0o755))
		check(t, os.Symlink(outside, filepath.Join(tree, name, "link")))
		check(t, os.Symlink(filepath.Dir(keep), filepath.Join(tree, name, "a", "link")))
	}
	check(t, unix.Mkfifo(filepath.Join(tree, "fifo"), 0o600))
	for i := range 3 * batch {
		check(t, os.WriteFile(filepath.Join(tree, "-rf", fmt.Sprint(i)), nil, 0o600))
	}
	check(t, RemoveAll(tree))
	check(t, RemoveAll(tree)) // what is not there
	check(t, RemoveAll(filepath.Join(base, "gone", "gone")))
	if _, err := os.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
	link := filepath.Join(base, "link")
	check(t, os.Symlink(outside, link))
	check(t, RemoveAll(link))
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}
