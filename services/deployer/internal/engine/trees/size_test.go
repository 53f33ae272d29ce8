package trees

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSize(t *testing.T) {
	const big = 8 << 20
	for what, c := range map[string]struct {
		make func(dir string)
		most int64 // beside what the file itself takes
		big  int64
		err  error
	}{
		"nothing":  {func(string) {}, 64 << 10, 0, nil},
		"one file": {func(dir string) { nest(t, dir, 0, 0o755, big) }, 64 << 10, big, nil},
		"deep":     {func(dir string) { nest(t, dir, 150, 0o755, big) }, 2 << 20, big, nil},
		"too deep": {func(dir string) { nest(t, dir, 1000, 0o755, big) }, 8 << 20, 0, ErrDeep},
		"closed":   {func(dir string) { nest(t, dir, 3, 0, big) }, 256 << 10, big, nil},
		"two names": {func(dir string) {
			nest(t, dir, 0, 0o755, big)
			check(t, os.Link(filepath.Join(dir, "big"), filepath.Join(dir, "again")))
		}, 64 << 10, big, nil},
		"a hole": {func(dir string) {
			check(t, os.WriteFile(filepath.Join(dir, "hole"), nil, 0o600))
			check(t, os.Truncate(filepath.Join(dir, "hole"), 1<<40))
		}, 64 << 10, 0, nil},
		"link to it": {func(dir string) { check(t, os.Symlink("/usr", filepath.Join(dir, "usr"))) }, 64 << 10, 0, nil},
	} {
		dir := t.TempDir()
		c.make(dir)
		n, err := Size(t.Context(), dir, 1, math.MaxInt64)
		if !errors.Is(err, c.err) || n < c.big || n > c.big+c.most {
			t.Errorf("%s: %d bytes, %v", what, n, err)
		}
		check(t, RemoveAll(dir))
	}
}

func TestSize_ofManyEmptyFilesAndEnough(t *testing.T) {
	dir := t.TempDir()
	for i := range 2000 {
		check(t, unix.Mknod(filepath.Join(dir, strconv.Itoa(i)), unix.S_IFREG|0o600, 0))
	}
	if n, err := Size(t.Context(), dir, 4096, math.MaxInt64); err != nil || n < 2000*4096 {
		t.Errorf("%d %v", n, err)
	}
	if n, err := Size(t.Context(), dir, 4096, 100*4096); err != nil || n > 200*4096 {
		t.Errorf("it counted on to %d: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Size(ctx, dir, 1, math.MaxInt64); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n, err := Size(t.Context(), filepath.Join(dir, "gone"), 1, 1); n != 0 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}
