package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// FastDir is a temporary directory in memory where the system has one with room, else on disk. It suits
// stores that sync every write, when the test is not about the disk.
func FastDir(t testing.TB) string {
	t.Helper()
	const shm, name, room = "/dev/shm", "devpilot-test-", 4 << 30
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err != nil || st.Bavail*uint64(st.Bsize) < room {
		return t.TempDir()
	}
	sweep.Do(func() { removeLeft(shm, name) })
	dir, err := os.MkdirTemp(shm, fmt.Sprintf("%s%d-", name, os.Getpid()))
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

var sweep sync.Once

// removeLeft removes what test programs left in memory that were killed: their number is in the name.
func removeLeft(shm, name string) {
	left, err := filepath.Glob(filepath.Join(shm, name+"*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), name), "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			_ = os.RemoveAll(dir) // somebody else may do it at the same time
		}
	}
}
