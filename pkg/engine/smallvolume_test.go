package engine

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// smallVolumeEnv names a directory and makes the test binary run the scenario instead of starting it.
const smallVolumeEnv = "DEVPILOT_TEST_SMALL_VOLUME"

// A volume that is too small for a new store is said at once, with the numbers; a store that is there
// already is started however small. The volume is mounted in namespaces of a process of its own.
func TestNATS_smallVolume(t *testing.T) {
	if dir := os.Getenv(smallVolumeEnv); dir != "" {
		smallVolume(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), smallVolumeEnv+"="+t.TempDir())
	one := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: one(os.Getuid()), GidMappings: one(os.Getgid()),
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func smallVolume(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatalf("mount a small volume: %v", err)
	}
	_, err := StartNATS(t.Context(), NATSConfig{StoreDir: dir, Need: 256 << 20, CanaryInterval: -1})
	var small *VolumeError
	if !errors.As(err, &small) || small.Free > 160<<20 || small.Need != 512<<20 || !strings.Contains(err.Error(), "needs 512 MiB") {
		t.Fatalf("a new store on 160 MiB: %v", err)
	}
	if err := os.MkdirAll(dir+"/jetstream/$G/streams/KV_apps", 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := computeMaxStore(dir, 1<<30, 256<<20); err != nil || got <= 0 || got > 80<<20 {
		t.Fatalf("a store that is there: %d, %v", got, err)
	}
}
