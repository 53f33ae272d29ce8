package release

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that is being started holds copies of all open files until it has begun. Here one that
// keeps its copy for good stands for it.
func TestUnlock_givesTheLockBackWhileAProgramStarts(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := lock(t.Context(), root, "lock")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := unlock(f); err != nil {
		t.Fatal(err)
	}
	again, err := root.OpenFile("lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("a lock that was given back cannot be taken: %v", err)
	}
}
