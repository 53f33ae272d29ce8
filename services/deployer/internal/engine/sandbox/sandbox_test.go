package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/testkit"
)

func TestSandbox_seesOnlyItsOwn(t *testing.T) {
	data := t.TempDir()
	var hidden []string
	for _, f := range []string{"keyset.json", "admin.token", "acme-inc/shop/releases/1/index.php", "acme-inc/web/releases/6/index.html", "mirrors/a.git/HEAD", "nats/store"} {
		p := filepath.Join(data, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("planted\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		hidden = append(hidden, p)
	}
	socket := filepath.Join(data, "redis.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	release := filepath.Join(data, "acme-inc/web/releases/7")
	if err := os.Mkdir(release, 0o755); err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	hidden = append(hidden, socket, wd, "/etc/shadow", "/etc/ssl/private", "/root", "/var", "/sys", "/boot", "/run/systemd", fmt.Sprintf("/proc/%d/environ", os.Getpid()), "/dev/sda", "/dev/vda", "/dev/kmsg", "/dev/mem", "/dev/net/tun")
	script := "for f in " + strings.Join(hidden, " ") + "; do if test -e $f || cat $f 2>/dev/null; then echo FOUND $f; fi; done\n" +
		"echo releases: $(ls ..); echo apps: $(ls ../../..); ls -A /home/devpilot /run /run/devpilot; cat /proc/[0-9]*/comm | sort | uniq -c; hostname; id -un; ls /proc/self/fd | tr '\\n' ' '"
	// A descriptor that this process was given, not opened by Go's ways.
	fd, err := syscall.Dup(int(must(os.Open(hidden[0])).Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	res, text := run(t, sandbox(t), script, func(s *Spec) { s.Release = release })
	if !res.OK() || strings.Contains(text, "FOUND") || strings.Contains(text, "planted") {
		t.Fatalf("%+v\n%s", res, text)
	}
	for _, want := range []string{"stdout: releases: 7", "stdout: apps: web", " bwrap", "stdout: hook\nstdout: devpilot\nstdout: 0 1 2 3"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hook.test") {
		t.Errorf("processes of the machine are seen:\n%s", text)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSandbox_writesOnlyItsOwn(t *testing.T) {
	outside := t.TempDir()
	script := `for f in /x /etc/x /usr/x /usr/bin/x /bin/x /dev/x /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/1/oom_score_adj /run/x /run/devpilot/hook ` + outside + `/x; do
	if (: >>$f) 2>/dev/null; then echo WROTE $f; fi
	if chmod 777 $f 2>/dev/null; then echo CHANGED $f; fi
done
find / -xdev -path /proc -prune -o -writable ! -type l -print 2>/dev/null | grep -vxE '/tmp|/home'
touch ../beside
mount -t tmpfs none /tmp 2>/dev/null && echo MOUNTED
mknod /tmp/sda b 8 0 2>/dev/null && echo DEVICE
exit 0`
	release := filepath.Join(t.TempDir(), "7")
	if err := os.Mkdir(release, 0o755); err != nil {
		t.Fatal(err)
	}
	_, text := run(t, sandbox(t), script, func(s *Spec) { s.Release = release })
	// A directory above the release is the sandbox's own, in memory.
	for _, dir := range []string{filepath.Dir(release), outside} {
		if names, err := os.ReadDir(dir); err != nil || len(names) > 1 || len(names) == 1 && names[0].Name() != "7" {
			t.Errorf("in %s: %v %v", dir, names, err)
		}
	}
	for _, bad := range []string{"WROTE", "CHANGED", "MOUNTED", "DEVICE", "stdout: /"} {
		if strings.Contains(text, bad) {
			t.Fatalf("%s", text)
		}
	}
}

func TestSandbox_hasNoPrivileges(t *testing.T) {
	_, text := run(t, sandbox(t), `grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status
for n in user pid mnt ipc uts cgroup net; do echo $n $(readlink /proc/self/ns/$n); done
unshare -U true 2>/dev/null && echo USERNS
cat /proc/self/stat | cut -d' ' -f7
ulimit -c; nice; cat /proc/self/oom_score_adj`)
	for _, c := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if !strings.Contains(text, c+":\t0000000000000000") {
			t.Errorf("%s: %s", c, text)
		}
	}
	for _, n := range []string{"user", "pid", "mnt", "ipc", "uts", "cgroup", "net"} {
		if own := must(os.Readlink("/proc/self/ns/" + n)); strings.Contains(text, own) {
			t.Errorf("it shares %s", own)
		}
	}
	if strings.Contains(text, "USERNS") || !strings.Contains(text, "NoNewPrivs:\t1") || !strings.HasSuffix(text, "stdout: 0\nstdout: 0\nstdout: 5\nstdout: 1000") { // no terminal, no core dumps, last in line
		t.Error(text)
	}
}

// The variables of an app must not reach bubblewrap, which runs outside of the sandbox.
func TestSandbox_variablesDoNotReachTheSandboxProgram(t *testing.T) {
	_, text := run(t, sandbox(t), "#!/bin/true", func(s *Spec) { s.Env = []string{"LD_PRELOAD=" + s.Release + "/evil.so"} })
	if n := strings.Count(text, "cannot be preloaded"); n != 2 { // by the hook itself, and by the shell beside it
		t.Fatalf("%d programs obeyed LD_PRELOAD: %s", n, text)
	}
}

func TestRun_nothingInArgumentLists(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, r Runner) {
		out, done := newLines(), make(chan struct{})
		release := t.TempDir()
		go func() {
			defer close(done)
			if res, err := r.Run(t.Context(), Spec{Command: "echo ready; : planted-command-7c1f; while ! test -e go; do sleep 0.02; done", Release: release, Env: []string{"SECRET=planted-value-7c1f"}}, out); err != nil || !res.OK() {
				t.Errorf("%+v %v", res, err)
			}
		}()
		out.await(t, "ready")
		pids := must(processes("/proc"))
		if len(carriers(t, "planted-value-7c1f")) == 0 {
			t.Error("the hook is not seen at all")
		}
		for _, p := range pids {
			b, err := os.ReadFile("/proc/" + p + "/cmdline")
			if err == nil && strings.Contains(string(b), "planted-") {
				t.Errorf("%q", b)
			}
		}
		if err := os.WriteFile(filepath.Join(release, "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

// stubborn starts processes that do not want to end, says ready, and waits.
const stubborn = `trap '' TERM
sleep 1000 &
setsid sleep 1001 &
(setsid sh -c 'trap "" TERM HUP; (sleep 1002 & wait) & wait' &)
echo ready
while :; do sleep 1; done`

func TestRun_cancelAndTimeLimitEndEverything(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		t.Run("stubborn", func(t *testing.T) {
			t.Parallel()
			mark := "CANCEL_MARK=" + filepath.Base(t.TempDir()) + t.Name()
			s := Spec{Command: stubborn, Release: t.TempDir(), Env: []string{mark}, Limits: Limits{DiskReserve: 1}}
			out := newLines()
			ctx, cancel := context.WithCancel(t.Context())
			var at time.Time
			go func() { out.await(t, "ready"); at = time.Now(); cancel() }()
			res, err := r.Run(ctx, s, out)
			if took := time.Since(at); err != nil || !res.Cancelled || res.Signal != "killed" || took > time.Minute {
				t.Errorf("%+v %v after %s", res, err, took)
			}
			if left := carriers(t, mark); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
		t.Run("obedient", func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			res, text := run(t, r, "trap 'echo tidy; exit 9' TERM; echo ready; sleep 1000 & wait", func(s *Spec) { s.Limits.Time = 2 * time.Second })
			if took := time.Since(begin); !res.TimedOut || res.ExitCode != 9 || res.OK() || took > time.Minute {
				t.Errorf("%+v after %s", res, took)
			}
			if !strings.HasSuffix(text, "stdout: tidy\nnotice: Stopped: it ran longer than its limit of 2s.") {
				t.Errorf("%s", text)
			}
		})
		t.Run("left behind", func(t *testing.T) {
			t.Parallel()
			mark := "LEFT_MARK=" + filepath.Base(t.TempDir()) + t.Name()
			begin := time.Now()
			res, text := run(t, r, "sleep 1000 & setsid sleep 1001 & (setsid sh -c 'sleep 1002; true' &) ; echo done", func(s *Spec) { s.Env = []string{mark} })
			if took := time.Since(begin); !res.OK() || text != "stdout: done" || took > time.Minute {
				t.Errorf("%+v %q after %s", res, text, took)
			}
			if left := carriers(t, mark); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	})
}

func TestRun_diesWithItsWorker(t *testing.T) {
	t.Parallel()
	for runner, command := range map[string]string{
		"sandbox": stubborn, "internet": stubborn,
		"unsandboxed": strings.ReplaceAll(stubborn, "setsid ", ""), // see NewUnsandboxed
	} {
		t.Run(runner, func(t *testing.T) {
			mark := "DEATH_MARK=" + filepath.Base(t.TempDir()) + runner
			cmd := worker(t, order{Runner: runner, Spec: Spec{Command: command, Release: t.TempDir(), Env: []string{mark}, Limits: Limits{DiskReserve: 1}}})
			out := newLines()
			cmd.Stdout, cmd.Stderr = writer{out}, writer{out}
			cmd.WaitDelay = 5 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out.await(t, "ready")
			if n := len(carriers(t, mark)); n < 4 {
				t.Errorf("only %d processes are seen", n)
			}
			helpers := childrenOf(t, cmd.Process.Pid)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, 2*time.Second, func() error {
				if left := carriers(t, mark); len(left) > 0 {
					return fmt.Errorf("left: %q", left)
				}
				for pid, name := range helpers {
					if b, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && string(b) == name {
						if s, ok := readStat("/proc", pid); ok && !s.ended {
							return fmt.Errorf("left: %s", name)
						}
					}
				}
				return nil
			})
			_ = cmd.Wait()
		})
	}
}

// A worker may be killed at any moment while it makes the sandbox, and right after it let the hook
// begin: its ends of all pipes are closed then, and only once bubblewrap has asked for it the kernel
// kills that too.
func TestSandbox_diesWithItsWorkerWhileItIsMade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ begin, running bool }{
		"before the hook may begin": {}, "when it may": {begin: true}, "when it runs": {begin: true, running: true},
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				cutOff(t, c.begin, c.running)
			}
		})
	}
}

func cutOff(t *testing.T, begin, running bool) {
	t.Helper()
	dir := t.TempDir()
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	s, err := Spec{Command: "touch begun; sleep 1; touch ran; sleep 60", Release: dir, Limits: Limits{DiskReserve: 1}}.check()
	if err != nil {
		t.Fatal(err)
	}
	b, err := sandbox(t).prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	first, err := unix.PidfdOpen(b.group, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(first) }()
	if begin {
		if err := b.begin(); err != nil {
			t.Fatal(err)
		}
	}
	if running {
		testkit.Eventually(t, 15*time.Second, func() error {
			if !exists("begun") {
				return errors.New("the hook does not run")
			}
			return nil
		})
		_ = b.cmd.Process.Kill()
	}
	for _, f := range b.ends { // as the kernel does it for a dead worker
		_ = f.Close()
	}
	defer b.close()
	_ = b.stdout.Close()
	_ = b.stderr.Close()
	if err := awaitExit(first, 10*time.Second); err != nil {
		t.Errorf("the sandbox outlived its worker: %v", err)
		_ = unix.PidfdSendSignal(first, unix.SIGKILL, nil, 0)
	}
	<-b.done
	if exists("ran") || exists("begun") && !begin {
		t.Error("the hook went on without its worker")
	}
}

type writer struct{ l *lines }

func (w writer) Write(p []byte) (int, error) {
	w.l.Line(Stdout, string(p))
	return len(p), nil
}

// childrenOf are a process's children by number, with their names.
func childrenOf(t *testing.T, parent int) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range must(processes("/proc")) {
		if s, ok := readStat("/proc", p); ok && s.parent == parent {
			if b, err := os.ReadFile("/proc/" + p + "/comm"); err == nil {
				out[p] = string(b)
			}
		}
	}
	return out
}

func TestNewSandbox_saysWhatIsMissing(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	_, err := NewSandbox(SandboxConfig{})
	if err == nil || !strings.Contains(err.Error(), "no bubblewrap") || !strings.Contains(err.Error(), "--allow-unsandboxed-hooks") {
		t.Fatal(err)
	}
	// One that does not work.
	if err := os.WriteFile(filepath.Join(bin, "bwrap"), []byte("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err = NewSandbox(SandboxConfig{}); err == nil || !strings.Contains(err.Error(), "No permissions to create new namespace") || !strings.Contains(err.Error(), "user namespaces") {
		t.Fatal(err)
	}
	// One without its friend.
	if err := os.Remove(filepath.Join(bin, "bwrap")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(must(exec.LookPath("/usr/bin/bwrap")), filepath.Join(bin, "bwrap")); err != nil {
		t.Fatal(err)
	}
	x, err := NewSandbox(SandboxConfig{})
	if err != nil || !strings.Contains(x.Describe(), "without network") || !strings.Contains(x.Describe(), "is missing") || !x.Sandboxed() {
		t.Fatal(x, err)
	}
	if _, err = NewSandbox(SandboxConfig{Network: NetworkInternet}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Fatal(err)
	}
}
