package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// smallVolume names a directory and makes the test binary run the story of a small volume.
const smallVolume = "DEVPILOT_TEST_SMALL_VOLUME"

// The whole product on a volume that has less room than streams usually take, mounted in namespaces of a process
// of its own: it starts with what there is, and takes more once there is more.
func TestDevpilot_onASmallVolume(t *testing.T) {
	if dir := os.Getenv(smallVolume); dir != "" {
		onASmallVolume(t, dir)
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.timeout=%s", 4*timeout))
	cmd.Env = append(os.Environ(), smallVolume+"="+t.TempDir())
	one := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: one(os.Getuid()), GidMappings: one(os.Getgid()),
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, tail(string(out), 20_000))
	}
}

func onASmallVolume(t *testing.T, dir string) {
	volume := func(flags uintptr, mib int) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%dm", mib)); err != nil {
			t.Fatalf("mount a volume of %d MiB: %v", mib, err)
		}
	}
	data := func(s *allinone.Settings) { s.DataDir = filepath.Join(dir, "data") }
	const littleRoom, larger = "has little room", "is larger than the DEVPILOT_STREAMS_MIB"

	volume(0, 900) // half of it is left to others, and 450 MiB are not enough
	settings := allinone.Settings{}
	settings.Listen, settings.OpsListen, settings.LiveListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	settings.BitbucketSiteURL, settings.BitbucketAPIURL = "http://localhost:1", "http://localhost:1/2.0"
	settings.Server, settings.Roles, settings.Workers = "default", []string{"api"}, 1
	data(&settings)
	refused, err := allinone.New(t.Context(), settings, testkit.Logger(t).Logger)
	if err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		err = refused.Run(ctx)
	}
	if err == nil || !strings.Contains(err.Error(), "MiB free and Devpilot needs 1024 MiB") {
		t.Fatalf("a volume of 900 MiB: %v", err)
	}

	volume(syscall.MS_REMOUNT, 3000)
	taken := func(t *testing.T) (mib int64, log string) {
		t.Helper()
		s := startProcess(t, "info", data)
		for _, share := range stream.Shares() {
			st, err := s.js(t).Stream(t.Context(), share.Stream)
			if err == nil {
				mib += st.CachedInfo().Config.MaxBytes >> 20
			}
		}
		return mib, s.output()
	}
	t.Run("little room", func(t *testing.T) {
		// 3000 less a reserve of 1024 and 256 for records.
		if mib, log := taken(t); mib < 1500 || mib > 1720 || !strings.Contains(log, littleRoom) {
			t.Errorf("streams take %d MiB\n%s", mib, log)
		}
	})
	volume(syscall.MS_REMOUNT, 8000)
	t.Run("room enough", func(t *testing.T) {
		if mib, log := taken(t); mib < 3800 || mib > 4096 || strings.Contains(log, littleRoom) {
			t.Errorf("streams take %d MiB\n%s", mib, log)
		}
	})
	volume(syscall.MS_REMOUNT, 1200) // others took it meanwhile
	t.Run("room that is gone", func(t *testing.T) {
		if mib, log := taken(t); mib < 3800 || strings.Contains(log, larger) {
			t.Errorf("streams take %d MiB\n%s", mib, log)
		}
	})
}
