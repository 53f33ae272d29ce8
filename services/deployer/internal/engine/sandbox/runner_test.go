package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// lines keeps what a hook printed.
type lines struct {
	mu   sync.Mutex
	all  []string // "stdout: text"
	seen chan struct{}
}

func newLines() *lines { return &lines{seen: make(chan struct{}, 1)} }

func (l *lines) Line(from Stream, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, from.String()+": "+text)
	select {
	case l.seen <- struct{}{}:
	default:
	}
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

// await waits until the hook has printed something like part.
func (l *lines) await(t *testing.T, part string) {
	t.Helper()
	testkit.Eventually(t, 15*time.Second, func() error {
		if !strings.Contains(l.text(), part) {
			return fmt.Errorf("%q is not in %q", part, l.text())
		}
		return nil
	})
}

var offline = sync.OnceValues(func() (*Sandbox, error) { return NewSandbox(SandboxConfig{Network: NetworkNone}) })

func sandbox(t testing.TB) *Sandbox {
	t.Helper()
	x, err := offline()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// everywhere runs a test with both runners.
func everywhere(t *testing.T, f func(t *testing.T, r Runner)) {
	t.Run("sandbox", func(t *testing.T) { f(t, sandbox(t)) })
	t.Run("unsandboxed", func(t *testing.T) { f(t, NewUnsandboxed(0)) })
}

// sideBySide is everywhere with the two at once, for tests that mostly wait.
func sideBySide(t *testing.T, f func(t *testing.T, r Runner)) {
	t.Run("sandbox", func(t *testing.T) { t.Parallel(); f(t, sandbox(t)) })
	t.Run("unsandboxed", func(t *testing.T) { t.Parallel(); f(t, NewUnsandboxed(0)) })
}

// run runs a command in an empty release.
func run(t *testing.T, r Runner, command string, change ...func(*Spec)) (Result, string) {
	t.Helper()
	s := Spec{Command: command, Release: t.TempDir(), Limits: Limits{Time: 20 * time.Second, DiskReserve: 1}}
	for _, c := range change {
		c(&s)
	}
	out := newLines()
	res, err := r.Run(t.Context(), s, out)
	if err != nil {
		t.Fatalf("%v; it printed %q", err, out.text())
	}
	return res, out.text()
}

// order is what a test's worker process is told to do.
type order struct {
	Runner         string // sandbox, auto, internet or unsandboxed
	Spec           Spec
	SilenceTimeout time.Duration
}

const orderVariable = "HOOK_TEST_ORDER"

// TestMain lets the test program be a worker process: one that can be killed, or be another user.
func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(orderVariable)
	if _, inside := os.LookupEnv(insideVariable); inside {
		tryCalls()
		return
	}
	if !ok {
		m.Run() // its code is the program's exit code
		return
	}
	if err := work(text); err != nil {
		panic(err)
	}
}

type printer struct{}

func (printer) Line(from Stream, text string) { fmt.Printf("%s: %s\n", from, text) }

func work(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	r := NewUnsandboxed(o.SilenceTimeout)
	if o.Runner != "unsandboxed" {
		cfg := SandboxConfig{Network: NetworkNone, SilenceTimeout: o.SilenceTimeout}
		switch o.Runner {
		case "internet":
			cfg.Network = NetworkInternet
		case "auto":
			cfg.Network = NetworkAuto
		}
		x, err := NewSandbox(cfg)
		if err != nil {
			return err
		}
		fmt.Println(x.Describe())
		r = x
	}
	res, err := r.Run(context.Background(), o.Spec, printer{})
	if err == nil {
		fmt.Printf("result: %+v\n", res)
	}
	return err
}

// worker makes a worker process that is not started yet.
func worker(t *testing.T, o order) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), orderVariable+"="+string(b))
	return cmd
}

// carriers are the processes of this machine whose environment holds a text.
func carriers(t *testing.T, mark string) []string {
	t.Helper()
	pids, err := processes("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range pids {
		env, err := os.ReadFile("/proc/" + p + "/environ")
		if err != nil || !strings.Contains(string(env), mark) || strings.Contains(string(env), orderVariable) {
			continue
		}
		if s, ok := readStat("/proc", p); ok && !s.ended {
			name, _ := os.ReadFile("/proc/" + p + "/cmdline")
			out = append(out, p+" "+strings.ReplaceAll(string(name), "\x00", " "))
		}
	}
	return out
}

func TestRun_howItEnds(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		for _, c := range []struct {
			command string
			code    int
			signal  string
			prints  string
		}{
			{"echo hello; echo oops >&2", 0, "", "stdout: hello|stderr: oops"},
			{"exit 3", 3, "", ""},
			{"echo before\nfalse\necho after", 1, "", "stdout: before"},
			{"kill -KILL $$", 137, "killed", ""},
			{"kill -TERM $$", 143, "terminated", ""},
			{"#!/usr/bin/env -S sed -n 2p\nthe file itself is the input", 0, "", "stdout: the file itself is the input"},
			{"cat; pwd -P >/dev/null; echo $#", 0, "", "stdout: 0"},
			{"printf 'no end of line'", 0, "", "stdout: no end of line"},
			{"\ufeffset -e\r\nif true; then\r\n\techo pasted\r\nfi\r\n", 0, "", "stdout: pasted"},
			{"\ufeff#!/bin/sh -u\r\ncat <<END\r\npasted\r\nEND\r\n", 0, "", "stdout: pasted"},
		} {
			res, text := run(t, r, c.command)
			got := strings.Split(text, "\n")
			slices.Sort(got)
			want := strings.Split(c.prints, "|")
			slices.Sort(want)
			if res.ExitCode != c.code || res.Signal != c.signal || !slices.Equal(got, want) || res.OK() != (c.code == 0) || (res.Problem() == "") != (c.code == 0) {
				t.Errorf("%q: %+v, printed %q", c.command, res, text)
			}
		}
		if res, text := run(t, r, "no-such-program"); res.ExitCode != 127 || !strings.Contains(text, "not found") {
			t.Errorf("%+v %q", res, text)
		}
	})
}

func TestRun_environment(t *testing.T) {
	t.Setenv("DEVPILOT_KEYSET", "planted-in-the-service")
	everywhere(t, func(t *testing.T, r Runner) {
		_, text := run(t, r, "env", func(s *Spec) {
			s.Env = []string{"DEVPILOT_APP=web", "GREETING=two words=and more", "EMPTY=", "LANG=de_DE.UTF-8", "LATER=1", "LATER=2"}
		})
		var names []string
		for line := range strings.SplitSeq(text, "\n") {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "stdout: "), "=")
			if name != "DEVPILOT_HOOK_RUN" && name != "_" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		want := []string{"DEVPILOT_APP", "EMPTY", "GREETING", "HOME", "LANG", "LATER", "LOGNAME", "PATH", "PWD", "SHELL", "TMPDIR", "USER"}
		if !slices.Equal(names, want) {
			t.Errorf("variables %q", names)
		}
		for _, w := range []string{"GREETING=two words=and more", "LANG=de_DE.UTF-8", "LATER=2"} {
			if !strings.Contains(text, w) {
				t.Errorf("no %s in %s", w, text)
			}
		}
	})
}

func TestRun_directories(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, r Runner) {
		base := t.TempDir()
		release, uploads, env := filepath.Join(base, "releases/7"), filepath.Join(base, "shared/uploads"), filepath.Join(base, "shared/.env")
		for _, d := range []string{filepath.Join(release, "site"), uploads} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(env, []byte("old\n"), 0o600), os.Symlink(uploads, filepath.Join(release, "uploads")), os.Symlink(env, filepath.Join(release, ".env"))); err != nil {
			t.Fatal(err)
		}
		res, text := run(t, r, "pwd; echo built >index.html; echo kept >../uploads/a; echo new >>../.env; echo $HOME >$HOME/x; echo t >$TMPDIR/x", func(s *Spec) {
			s.Release, s.Dir, s.Shared = release, filepath.Join(release, "site"), []string{uploads, env}
		})
		if !res.OK() || text != "stdout: "+release+"/site" {
			t.Fatalf("%+v %q", res, text)
		}
		for path, want := range map[string]string{release + "/site/index.html": "built\n", uploads + "/a": "kept\n", env: "old\nnew\n"} {
			if b, err := os.ReadFile(path); err != nil || string(b) != want {
				t.Errorf("%s: %q %v", path, b, err)
			}
		}
	})
}

func TestRun_refuses(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, r Runner) {
		dir := t.TempDir()
		link := filepath.Join(dir, "link")
		other := t.TempDir()
		if err := errors.Join(os.Symlink(other, link), os.Mkdir(filepath.Join(dir, "sub"), 0o755)); err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string]func(*Spec){
			"no command":               func(s *Spec) { s.Command = " \n" },
			"relative release":         func(s *Spec) { s.Release = "here" },
			"missing release":          func(s *Spec) { s.Release = dir + "/gone" },
			"release that is a link":   func(s *Spec) { s.Release = link },
			"unclean path":             func(s *Spec) { s.Dir = dir + "/sub/../../x" },
			"directory outside":        func(s *Spec) { s.Dir = other },
			"directory through a link": func(s *Spec) { s.Dir = link },
			"missing directory":        func(s *Spec) { s.Dir = dir + "/gone" },
			"shared that is a link":    func(s *Spec) { s.Shared = []string{link} },
			"shared in the release":    func(s *Spec) { s.Shared = []string{dir + "/sub"} },
			"shared in shared":         func(s *Spec) { s.Shared = []string{other, other} },
			"shared device":            func(s *Spec) { s.Shared = []string{"/dev/null"} },
			"variable without =":       func(s *Spec) { s.Env = []string{"planted-value"} },
			"variable name":            func(s *Spec) { s.Env = []string{"A-B=planted-value"} },
			"long variable":            func(s *Spec) { s.Env = []string{"A=" + strings.Repeat("planted-value", 20000)} },
			"zero byte":                func(s *Spec) { s.Env = []string{"A=planted-value\x00"} },
		} {
			s := Spec{Command: "echo ran", Release: dir}
			change(&s)
			out := newLines()
			_, err := r.Run(t.Context(), s, out)
			if !errors.Is(err, ErrSpec) || out.text() != "" || strings.Contains(err.Error(), "planted-value") {
				t.Errorf("%s: %v, printed %q", what, err, out.text())
			}
		}
		if _, err := sandbox(t).Run(t.Context(), Spec{Command: "true", Release: "/usr/share"}, newLines()); !errors.Is(err, ErrSpec) {
			t.Errorf("a release in /usr: %v", err)
		}
	})
}

func TestRun_leavesNothingOpen(t *testing.T) {
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	everywhere(t, func(t *testing.T, r Runner) {
		run(t, r, "true")
		before := open()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if res, text := run(t, r, "echo "+strconv.Itoa(i)); !res.OK() || text != "stdout: "+strconv.Itoa(i) {
					t.Errorf("%+v %q", res, text)
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if res, err := r.Run(ctx, Spec{Command: "echo ran", Release: t.TempDir()}, newLines()); err != nil || !res.Cancelled {
			t.Errorf("%+v %v", res, err)
		}
		if now := open(); now > before {
			t.Errorf("%d descriptors before, %d after", before, now)
		}
	})
}
