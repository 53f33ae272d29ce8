package sandbox

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who stops a worker together with its group, as a terminal does, must not end its hooks behind its back: they would
// look as if they had failed.
func TestRun_nothingOfAHookIsInItsWorkersGroup(t *testing.T) {
	t.Parallel()
	for _, runner := range []string{"sandbox", "unsandboxed"} {
		t.Run(runner, func(t *testing.T) {
			t.Parallel()
			cmd := worker(t, order{Runner: runner, Spec: Spec{Command: "echo ready; sleep 1000", Release: t.TempDir(), Env: []string{"GROUP_MARK=" + filepath.Base(t.TempDir())}, Limits: Limits{DiskReserve: 1}}})
			out := newLines()
			cmd.Stdout, cmd.Stderr = writer{out}, writer{out}
			cmd.WaitDelay = 5 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed
			})
			out.await(t, "ready")
			pid := cmd.Process.Pid
			group, err := unix.Getpgid(pid)
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			for _, p := range descendants(pid) {
				n, err := strconv.Atoi(p)
				if err != nil {
					t.Fatal(err)
				}
				if its, err := unix.Getpgid(n); err == nil && n != pid {
					if seen++; its == group {
						t.Errorf("process %d of the hook is in its worker's group", n)
					}
				}
			}
			if seen < 2 {
				t.Errorf("only %d processes of the hook were seen", seen)
			}
		})
	}
}
