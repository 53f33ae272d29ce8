package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A worker that is no administrator is the usual one. Where the tests run as one, they become another
// user for these; elsewhere all of them run as an ordinary user anyway.

// ordinary is what such a worker says, whose device for networks has this mode, and the directory it
// works in. The device is one of a mount namespace of its own: this machine's may be closed, or open.
func ordinary(t *testing.T, mode string, o order) (string, error) {
	t.Helper()
	o.Spec.Limits.DiskReserve = 1
	cmd := worker(t, o)
	cmd.Env = append(cmd.Env, "TMPDIR="+o.Spec.Release, "HOME="+o.Spec.Release)
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		program, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		become := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-ec", `
mkdir -p /dev/net && mount -t tmpfs -o mode=755 none /dev/net && mknod /dev/net/tun c 10 200 && chmod "$0" /dev/net/tun
exec setpriv --reuid=`+strconv.Itoa(nobody)+` --regid=`+strconv.Itoa(nobody)+` --clear-groups /proc/self/fd/3`, mode)
		become.Env, become.Dir, become.ExtraFiles = cmd.Env, cmd.Dir, []*os.File{program}
		cmd = become
	}
	b, err := cmd.CombinedOutput()
	t.Logf("%s", b[max(0, len(b)-400):])
	return string(b), err
}

// nobody is a user of this test program alone: a limit on a user's processes counts all of them,
// wherever on the machine they are.
var nobody = 200_000 + os.Getpid()

// ownDir is a directory of the ordinary user.
func ownDir(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("", "hook-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if os.Getuid() == 0 {
		if err := os.Chown(base, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

func TestSandbox_asOrdinaryUser(t *testing.T) {
	t.Parallel()
	base := ownDir(t)
	for _, c := range []struct {
		command string
		limits  Limits
		want    []string
	}{
		{"echo built >index.html; cat /etc/shadow || echo hidden; id -u", Limits{}, []string{"stdout: hidden", "stdout: 1000", "ExitCode:0"}},
		{memoryHog, Limits{Memory: 64 << 20}, []string{"notice: Killed: it used more than 64 MiB of memory", "OutOfMemory:true"}},
	} {
		text, err := ordinary(t, "666", order{Runner: "internet", Spec: Spec{Command: c.command, Release: base, Limits: c.limits}})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in\n%s", w, text)
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(base, "index.html")); err != nil || string(b) != "built\n" {
		t.Errorf("%q %v", b, err)
	}
}

// Where nobody has opened the device for networks, a worker says what to do, and hooks that need none
// run all the same.
func TestSandbox_deviceThatIsClosed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		err := openable(filepath.Join(t.TempDir(), "tun"))
		if err == nil || !strings.Contains(err.Error(), "modprobe tun") {
			t.Fatal(err)
		}
		return
	}
	remedies := []string{"/dev/net/tun", "chmod 666", `KERNEL=="tun", MODE="0666"`, "--hook-network=none"}
	for runner, fails := range map[string]bool{"auto": false, "internet": true} {
		text, err := ordinary(t, "600", order{Runner: runner, Spec: Spec{Command: "echo built; cat /etc/resolv.conf", Release: ownDir(t)}})
		if (err != nil) != fails {
			t.Errorf("%s: %v", runner, err)
		}
		want := remedies
		if !fails {
			want = append([]string{"without network: ", "stdout: built", "stdout: # no network", "ExitCode:0"}, remedies...)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is not in\n%s", runner, w, text)
			}
		}
	}
}

func TestOpenable_saysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if err := openable(filepath.Join(dir, "tun")); err == nil || !strings.Contains(err.Error(), "modprobe tun") {
		t.Error(err)
	}
	if err := openable(dir); err == nil || errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	if err := openable("/dev/null"); err != nil {
		t.Error(err)
	}
}

func TestAlone_forkBombEndsAsOrdinaryUser(t *testing.T) {
	for _, runner := range []string{"sandbox", "unsandboxed"} {
		for name, command := range bombs {
			t.Run(runner+"/"+name, func(t *testing.T) {
				text, err := ordinary(t, "600", order{Runner: runner, Spec: Spec{Command: command, Release: ownDir(t), Limits: Limits{Processes: 100, Time: 30 * time.Second}}})
				if err != nil || !strings.Contains(text, "TooManyProcesses:true") || !strings.Contains(text, "notice: Killed: more than 100 processes") {
					t.Fatal(err)
				}
			})
		}
	}
}
