package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/pasted"
)

// Spec is one hook to run.
type Spec struct {
	// Command is a script of one or more lines for /bin/sh, run with -e: the first command that
	// fails ends the hook, so that a failed build is not followed by a good-looking copy. A
	// command that begins with #! is run by the interpreter it names (#!/bin/bash, #!/usr/bin/env
	// python3). Line ends of Windows and a byte order mark, as of a pasted text, do not count.
	Command string
	// Release is the absolute path of the directory the hook works on: the release, or a scratch
	// directory before there is one. The hook may write in it and sees it under the same path.
	Release string
	// Dir is the working directory, absolute, Release or below it; empty means Release.
	Dir string
	// Shared are the absolute paths of persistent files and directories that links in the release
	// point to; the hook may write in them and sees them under the same paths. None may lie in
	// another one or in Release.
	Shared []string
	// Counted are absolute paths that count towards Limits.Disk; Release and Shared when empty.
	Counted []string
	// Env is NAME=value: all that the hook's environment holds beside [BaseEnv]. A later value
	// of the same name replaces an earlier one, and one of BaseEnv.
	Env []string
	// Limits bound the hook.
	Limits Limits
}

// Limits bound one hook. A zero field means the default.
type Limits struct {
	Time      time.Duration // from the start of the command; 10 minutes
	Memory    int64         // bytes of all its processes and of its /tmp and home together; 2 GiB
	Processes int           // processes and threads; 512
	Output    int64         // bytes of both streams; 8 MiB
	File      int64         // bytes of the largest file it may write; 4 GiB
	// DiskReserve is what must stay free on the file system of the release; 256 MiB. A hook that
	// eats into it is killed before the disk is full for everyone.
	DiskReserve int64
	// Disk is what the paths that count may take on their disk, in bytes; a quarter of it when zero,
	// no bound when negative.
	Disk int64
}

// WithDefaults fills in what is zero.
func (l Limits) WithDefaults() Limits {
	if l.Time == 0 {
		l.Time = 10 * time.Minute
	}
	if l.Memory == 0 {
		l.Memory = 2 << 30
	}
	if l.Processes == 0 {
		l.Processes = 512
	}
	if l.Output == 0 {
		l.Output = 8 << 20
	}
	if l.File == 0 {
		l.File = 4 << 30
	}
	if l.DiskReserve == 0 {
		l.DiskReserve = 256 << 20
	}
	return l
}

// Stream says where a line came from.
type Stream int

// The streams of a hook. Notice is the runner's own voice: output was cut, a limit was hit.
const (
	Stdout Stream = iota + 1
	Stderr
	Notice
)

func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	case Notice:
		return "notice"
	}
	return fmt.Sprintf("stream %d", int(s))
}

// Sink takes the lines of a hook, without their line ends, in the order in which they were ended, over
// both streams: what a write brought comes before what a write brought that began after it. Of what is
// written at the same time, and of a stream of which hundreds of writes wait unread, only the order of
// each stream is kept. Calls come one at a time, and none after Run has returned. Text is raw: it may not be UTF-8 and may hold
// secrets, but never a part of a line: what has no line end yet is kept back until it has one or
// the hook ends, however long that takes, so that a sink can find a secret that was written in
// pieces. A line longer than 64 KiB is cut and the rest of it is not handed out. A slow Line slows
// the hook.
type Sink interface {
	Line(from Stream, text string)
}

// Result is how a hook ended.
type Result struct {
	// ExitCode is as a shell shows it: 128 and the signal's number after a signal.
	ExitCode int
	// Signal names the signal that ended the hook ("killed", "terminated"), empty for none. As in
	// a shell, a hook that exits with 128 and a number looks the same.
	Signal string
	// At most one of these says why the runner ended the hook.
	TimedOut         bool
	Cancelled        bool // the context of Run ended
	OutOfMemory      bool
	TooManyProcesses bool
	DiskFull         bool
	OverQuota        bool // the paths that count took more than Limits.Disk
	// OutputCut: it printed more than its limit; the hook went on, the rest was dropped.
	OutputCut bool
	Duration  time.Duration
}

// OK reports whether the hook did its work.
func (r Result) OK() bool { return r.ExitCode == 0 && r.stopped() == "" }

// Problem says in a few words for people why the hook did not do its work; empty if it did.
func (r Result) Problem() string {
	switch s := r.stopped(); {
	case s != "":
		return s
	case r.Signal != "":
		return fmt.Sprintf("it was ended by a signal (%s)", r.Signal)
	case r.ExitCode != 0:
		return fmt.Sprintf("it ended with exit code %d", r.ExitCode)
	}
	return ""
}

func (r Result) stopped() string {
	switch {
	case r.Cancelled:
		return "it was cancelled"
	case r.TimedOut:
		return "it ran longer than its time limit"
	case r.OutOfMemory:
		return "it used more memory than its limit"
	case r.TooManyProcesses:
		return "it started more processes than its limit"
	case r.DiskFull:
		return "it left too little free space on the disk"
	case r.OverQuota:
		return "its app takes more of the disk than it may"
	}
	return ""
}

// Runner runs hooks. All methods are safe for concurrent use.
type Runner interface {
	// Run runs one hook to its end. A hook that fails, by itself or because of a limit, is a
	// Result and no error; errors are [ErrSpec] (the caller's fault, nothing was run), [ErrStart]
	// (this worker cannot run it now; the command itself was not begun) and [ErrStalled] (this
	// worker stood still, and the hook was ended meanwhile).
	//
	// When ctx ends, or the time limit is reached, all processes of the hook get SIGTERM and,
	// [Grace] later, SIGKILL; a limit on memory, processes or disk kills at once. When Run returns
	// no process of the hook is left, nor when the worker's process dies, however it dies, or is
	// stopped for longer than the runner's timeout.
	Run(ctx context.Context, s Spec, out Sink) (Result, error)
	// Describe says for people where hooks run and what they can reach.
	Describe() string
	// Sandboxed reports whether hooks of different workspaces may share this worker.
	Sandboxed() bool
}

// Grace is how long a hook may take to end after it was asked to.
const Grace = 3 * time.Second

var (
	// ErrSpec is a hook that cannot be run as described.
	ErrSpec = errors.New("hook: cannot be run as described")
	// ErrStart is a hook that could not be started.
	ErrStart = errors.New("hook: not started")
	// ErrLeft is a hook of which a process was still there seconds after it was killed.
	ErrLeft = errors.New("hook: not all of it ended")
)

const (
	user = "devpilot"
	// defaultPath is where programs are looked for.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// longestVariable is the kernel's bound on one string (execve(2), MAX_ARG_STRLEN), and
	// allVariables a bound that leaves room in the usual 2 MiB for all of them.
	longestVariable = 128<<10 - 1
	allVariables    = 1 << 20   // bytes of all variables of a hook
	longestCommand  = 256 << 10 // bytes of a hook's command
)

// BaseEnv is what every hook's environment begins with.
func BaseEnv(path, home, tmp string) []string {
	return []string{"PATH=" + path, "HOME=" + home, "TMPDIR=" + tmp, "LANG=C.UTF-8", "USER=" + user, "LOGNAME=" + user, "SHELL=/bin/sh"}
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// check refuses what cannot be run and fills in the defaults. It names no value of a variable.
func (s Spec) check() (Spec, error) {
	refuse := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("%w: %s", ErrSpec, fmt.Sprintf(format, args...))
	}
	s.Limits = s.Limits.WithDefaults()
	s.Command = pasted.Text(s.Command)
	if strings.TrimSpace(s.Command) == "" || len(s.Command) > longestCommand || strings.ContainsRune(s.Command, 0) {
		return refuse("the command is empty, longer than %d KiB, or holds a zero byte", longestCommand>>10)
	}
	if s.Dir == "" {
		s.Dir = s.Release
	}
	for _, p := range append([]string{s.Release, s.Dir}, s.Shared...) {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || strings.ContainsRune(p, 0) {
			return refuse("%q is not an absolute, clean path", p)
		}
	}
	if !within(s.Dir, s.Release) {
		return refuse("the working directory %q is not inside %q", s.Dir, s.Release)
	}
	mounts := append([]string{s.Release}, s.Shared...)
	for i, p := range mounts {
		for _, q := range mounts[i+1:] {
			if within(p, q) || within(q, p) {
				return refuse("%q and %q lie in each other", p, q)
			}
		}
		// The last element could have been replaced by somebody; what is above it belongs to us.
		info, err := os.Lstat(p)
		switch {
		case err != nil:
			return refuse("%v", err)
		case i == 0 && !info.IsDir(), i > 0 && !info.IsDir() && !info.Mode().IsRegular():
			return refuse("%q is not a directory or ordinary file", p)
		}
	}
	// Links of the repository must not lead the working directory elsewhere.
	release, err1 := filepath.EvalSymlinks(s.Release)
	dir, err2 := filepath.EvalSymlinks(s.Dir)
	if err := errors.Join(err1, err2); err != nil {
		return refuse("%v", err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || !within(dir, release) {
		return refuse("the working directory %q is not a directory inside %q", s.Dir, s.Release)
	}
	size := 0
	for _, v := range s.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok || !variableName.MatchString(name) {
			return refuse("a variable's name is not letters, digits and underscores")
		}
		if size += len(v) + 1; len(v) > longestVariable || size > allVariables || strings.ContainsRune(v, 0) {
			return refuse("variable %s is too long for an environment, or holds a zero byte", name)
		}
	}
	return s, nil
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// environment joins variables, the later of one name replacing the earlier.
func environment(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, l := range lists {
		for _, v := range l {
			name, _, _ := strings.Cut(v, "=")
			if i, ok := at[name]; ok {
				out[i] = v
				continue
			}
			at[name] = len(out)
			out = append(out, v)
		}
	}
	return out
}

// argv is how a script is run: by the shell, or by the interpreter it names.
func argv(command, script string) []string {
	if strings.HasPrefix(command, "#!") {
		return []string{script}
	}
	return []string{"/bin/sh", "-e", script}
}
