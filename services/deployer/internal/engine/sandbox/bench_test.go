package sandbox

import (
	"os/exec"
	"testing"
)

// BenchmarkRun is what running a hook costs that does nothing, beside the bare shell and the bare
// sandbox program in the same run.
func BenchmarkRun(b *testing.B) {
	bare := func(name string, args ...string) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
		})
	}
	hook := func(name string, r Runner) {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			for b.Loop() {
				if res, err := r.Run(b.Context(), Spec{Command: "true", Release: dir, Limits: Limits{DiskReserve: 1}}, newLines()); err != nil || !res.OK() {
					b.Fatal(res, err)
				}
			}
		})
	}
	bare("bare-sh", "/bin/sh", "-c", "true")
	hook("unsandboxed", NewUnsandboxed(0))
	bare("bare-bwrap", "bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/sh", "-c", "true")
	hook("sandbox-no-network", sandbox(b))
	x, err := online()
	if err != nil {
		b.Fatal(err)
	}
	hook("sandbox-internet", x)
}
