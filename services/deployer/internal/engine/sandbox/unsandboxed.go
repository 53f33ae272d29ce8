package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/trees"
)

// NewUnsandboxed makes a runner whose hooks are ordinary processes of the worker's user: they have
// a clean environment, limits and an empty home of their own, but can read and write what the
// worker can, the keyset and every release included, and reach every network. Only for a worker of
// one workspace whose admins trust everyone who may push.
//
// A hook runs in a session of its own, which is killed when it ends and when the worker dies. A
// process that starts a new session on purpose (setsid) is found by a mark in its environment and
// killed when the hook ends, but outlives a worker that was killed.
//
// A zero timeout means DefaultSilenceTimeout.
func NewUnsandboxed(limit time.Duration) Runner { return unsandboxed{silenceTimeout(limit)} }

type unsandboxed struct{ silence time.Duration }

// Describe implements Runner.
func (unsandboxed) Describe() string {
	return "without a sandbox, as the worker's own user (--allow-unsandboxed-hooks)"
}

// Sandboxed implements Runner.
func (unsandboxed) Sandboxed() bool { return false }

// Run implements Runner.
func (u unsandboxed) Run(ctx context.Context, s Spec, out Sink) (Result, error) {
	s, err := s.check()
	if err != nil {
		return Result{}, err
	}
	if ctx.Err() != nil {
		return Result{Cancelled: true}, nil
	}
	b, err := u.start(s)
	if b != nil {
		defer b.close()
	}
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrStart, err)
	}
	return b.run(ctx, s, out)
}

func (u unsandboxed) start(s Spec) (*box, error) {
	b := &box{silence: u.silence}
	// The command goes into a file: an argument list can be read by everybody.
	private, err := os.MkdirTemp("", "devpilot-hook-")
	if err != nil {
		return nil, err
	}
	b.later(func() { _ = trees.RemoveAll(private) })
	home, tmp, script := filepath.Join(private, "home"), filepath.Join(private, "tmp"), filepath.Join(private, "hook")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Mkdir(tmp, 0o700), os.WriteFile(script, []byte(s.Command), 0o500)); err != nil {
		return b, err
	}
	gateRead, gateWrite, err := os.Pipe()
	if err != nil {
		return b, err
	}
	b.later(func() { gateWrite.Close() })
	defer gateRead.Close()
	stdout, outWrite, err := outputPipe()
	if err != nil {
		return b, err
	}
	defer outWrite.Close()
	stderr, errWrite, err := outputPipe()
	if err != nil {
		stdout.Close()
		return b, err
	}
	defer errWrite.Close()

	mark := "DEVPILOT_HOOK_RUN=" + rand.Text()
	path := os.Getenv("PATH")
	if path == "" {
		path = defaultPath
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", gate, "hook"}, argv(s.Command, script)...)...) //nolint:noctx // it must end as box.supervise says, not by a bare kill
	cmd.Dir, cmd.Env = s.Dir, environment(BaseEnv(path, home, tmp), s.Env, []string{mark})
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = outWrite, errWrite, []*os.File{gateRead}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	keepOwn()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	b.process = &process{cmd: cmd, last: func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }}
	if _, err = b.process.run(); err != nil {
		stdout.Close()
		stderr.Close()
		return b, err
	}
	b.stdout, b.stderr = stdout, stderr
	leader := cmd.Process.Pid
	b.group = leader
	all := family{leader: leader, mark: mark}
	b.usage = func(full bool) (usage, error) {
		if !full {
			return usage{}, nil // a look over all processes of the machine is not cheap
		}
		u := measure("/proc", descendants(leader), s.Limits.Memory)
		if b.suspected != nil && u.tasks <= s.Limits.Processes && b.suspected() {
			u.processes = max(u.processes, len(all.members())) // those that left the session
		}
		return u, nil
	}
	b.kill = func() {
		if !b.ended() { // then last did it, and the number may be another's
			_ = syscall.Kill(-leader, syscall.SIGKILL)
		}
	}
	b.gone = all.gone
	b.began = func() bool { return true }
	b.begin = func() error {
		if err := b.guard(strconv.Itoa(-leader), leader); err != nil {
			return err
		}
		_, err := gateWrite.WriteString(word)
		return err
	}
	stepBack(leader)
	if err := errors.Join(setLimits(leader, s.Limits), b.bound(leader, s.Limits, false)); err != nil {
		return b, b.abandon(err)
	}
	return b, nil
}

// family are the processes of one hook: its session, and whoever else carries its mark in the
// environment that it was started with.
type family struct {
	leader int
	mark   string
}

// members are the processes now there. It reads every process of the user.
func (f family) members() []int {
	pids, err := processes("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, p := range pids {
		n, _ := strconv.Atoi(p) // processes returns numbers
		s, ok := readStat("/proc", p)
		if !ok || n == os.Getpid() || s.ended {
			continue
		}
		if s.session != f.leader {
			env, err := os.ReadFile("/proc/" + p + "/environ")
			if err != nil || !bytes.Contains(env, []byte(f.mark)) {
				continue
			}
		}
		out = append(out, n)
	}
	return out
}

// gone ends members until none is left. All are stopped before any is killed: one that is killed makes room below the
// limit on processes, and one that still runs fills it at once.
func (f family) gone(wait time.Duration) error {
	stopped, none := map[int]bool{}, 0
	for deadline := time.Now().Add(wait); ; {
		left := f.members()
		if len(left) == 0 {
			// One that is about to run another program has no environment for a moment.
			if none++; none == 2 || len(stopped) == 0 {
				return nil
			}
			continue
		}
		none = 0
		signal, late := syscall.SIGKILL, time.Now().After(deadline)
		if !late && slices.ContainsFunc(left, func(pid int) bool { return !stopped[pid] }) {
			signal = syscall.SIGSTOP
		}
		for _, pid := range left {
			stopped[pid] = true
			_ = syscall.Kill(pid, signal)
		}
		if late {
			return errStillThere
		}
		if signal == syscall.SIGKILL {
			_, _ = unix.Poll(nil, 5)
		}
	}
}
