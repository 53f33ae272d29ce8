package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestRemoveLeft_takesWhatTheDeadLeftAndNothingElse(t *testing.T) {
	dead := exec.CommandContext(t.Context(), "/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	shm := t.TempDir()
	left := map[string]bool{
		fmt.Sprintf("x-%d-1", dead.Process.Pid): true,
		fmt.Sprintf("x-%d-1", os.Getpid()):      false,
		"x-of-another-form":                     false,
		fmt.Sprintf("y-%d-1", dead.Process.Pid): false,
	}
	for name := range left {
		if err := os.Mkdir(filepath.Join(shm, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	removeLeft(shm, "x-")
	for name, gone := range left {
		if _, err := os.Stat(filepath.Join(shm, name)); errors.Is(err, fs.ErrNotExist) != gone {
			t.Errorf("%s: %v", name, err)
		}
	}
}
