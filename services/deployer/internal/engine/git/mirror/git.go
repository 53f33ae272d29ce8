package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// git runs the git program the one way it is run here.
type git struct {
	program string
	site    *url.URL
	scratch string // an empty directory: home and working directory
	stall   time.Duration
	observe func(operation string, d time.Duration, err error)
}

// command is one run of git.
type command struct {
	operation string   // for metrics
	gitDir    string   // empty for none
	args      []string // after the options that every run has
	stdin     io.Reader
	stdout    io.Writer
	token     seal.Secret   // handed out on request; zero for local work
	most      int64         // bytes of the largest file that it may write; zero for no limit
	watch     func() error  // called now and then while git runs; an error kills it
	every     time.Duration // how often
	env       []string      // more variables of git's, for local work
}

// failure is a run that failed, with what git said.
type failure struct {
	stderr string        // masked
	asked  bool          // the token was handed out
	wait   time.Duration // that the server asked for; 0 when it did not
	err    error
}

func (f *failure) Error() string {
	text := strings.TrimSpace(f.stderr)
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[len(text)-500:], "")
	}
	if text == "" {
		return fmt.Sprintf("git: %v, and it printed nothing", f.err)
	}
	return fmt.Sprintf("git: %v: %s", f.err, text)
}

func (f *failure) Unwrap() error { return f.err }

// settings hold for every run. None comes from a file; hooks, filters, file system monitors and
// prompts are off, redirects are not followed, and no protocol but the site's is spoken. What is
// fetched stays packed, so that counting packs is enough to know when to tidy; refs keep a log, which
// holds on to the commits that a branch had before it was forced elsewhere.
//
// Nothing is synced to disk: a mirror can be fetched again, and one that a power failure damaged is made
// anew when git cannot read it.
//
// git's own check of objects (fsck) is off, as it is for git clone: most of what it refuses is
// untidy and harms nobody, such as a tree that is not sorted. What would harm us is refused by our own
// code where it would (tree.go, links.go, submodule.go), in words of ours; what git cannot read at
// all, it refuses without that check too.
func (g *git) settings() [][2]string {
	s := [][2]string{
		{"core.hooksPath", "/dev/null"}, {"core.fsmonitor", "false"}, {"core.attributesFile", "/dev/null"}, {"core.excludesFile", "/dev/null"},
		{"core.askPass", ""}, {"core.sshCommand", "false"}, {"core.alternateRefsCommand", ""},
		{"protocol.allow", "never"}, {"protocol.https.allow", "always"}, {"protocol.version", "2"},
		{"http.followRedirects", "false"}, {"http.lowSpeedLimit", "1000"}, {"http.lowSpeedTime", strconv.Itoa(int(g.stall / time.Second))}, {"http.userAgent", agent},
		{"core.fsync", "none"}, {"gc.auto", "0"}, {"maintenance.auto", "false"}, {"transfer.unpackLimit", "1"}, {"core.logAllRefUpdates", "always"}, {"fetch.fsckObjects", "false"}, {"transfer.fsckObjects", "false"}, {"fetch.recurseSubmodules", "false"},
		{"credential.helper", ""}, {"credential.helper", helper}, {"credential.useHttpPath", "false"}, {"credential.interactive", "false"},
		{"http.proactiveAuth", "basic"}, {"advice.detachedHead", "false"},
	}
	if g.site.Scheme == "http" {
		s = append(s, [2]string{"protocol.http.allow", "always"})
	}
	return s
}

// passed are the variables of our own environment that git sees: how to find programs, proxies and
// trusted certificates.
var passed = []string{"PATH", "TMPDIR", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_EXEC_PATH"}

func (g *git) environment() []string {
	env := []string{
		"HOME=" + g.scratch, "LC_ALL=C", "TZ=UTC", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=",
		"GIT_COMMITTER_NAME=devpilot", "GIT_COMMITTER_EMAIL=devpilot@localhost",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_CEILING_DIRECTORIES=" + filepath.Dir(g.scratch),
	}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	settings := g.settings()
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)))
	for i, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	return env
}

// run runs git and waits. When ctx ends, or watch fails, git and all it started are killed. A
// failed run is a *failure; the error of ctx or watch comes before it.
func (g *git) run(ctx context.Context, c command) (err error) {
	begin := time.Now()
	defer func() { g.observe(c.operation, time.Since(begin), err) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	if err := os.MkdirAll(g.scratch, 0o700); err != nil {
		return fmt.Errorf("git: its working directory: %w", err)
	}
	stderr := &tail{most: 32 << 10}
	cmd := g.prepare(ctx, c)
	cmd.Stderr = stderr
	// The kernel watches the thread that started a child, and kills the child with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	var cred *credential
	wait := func() time.Duration { return 0 }
	if !c.token.IsZero() {
		if cred, err = newCredential(g.site, c.token); err != nil {
			return err
		}
		defer cred.close()
		theirs, heard, err := listen()
		if err != nil {
			return err
		}
		wait = sync.OnceValue(heard)
		defer func() { wait() }()
		defer func() { _ = theirs.Close() }()
		cmd.ExtraFiles = []*os.File{cred.theirs, theirs}
		cmd.Env = append(cmd.Env, "GIT_TRACE_CURL=4", "GIT_TRACE_CURL_NO_DATA=1")
	}
	err = cmd.Start()
	if cred != nil {
		cred.started()
		_ = cmd.ExtraFiles[1].Close()
	}
	if err != nil {
		return notStarted(err)
	}
	stop := c.supervise(ctx, cancel)
	err = cmd.Wait()
	stop()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it may have left behind
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("mirror: git %s: %w", c.operation, cause)
	}
	if err != nil {
		return &failure{stderr: Mask(stderr.String(), c.token), asked: cred != nil && cred.asked.Load(), wait: wait(), err: err}
	}
	return nil
}

// prepare makes the process of one run. It has a group of its own, so that all that git starts dies
// with it; and it dies with us.
func (g *git) prepare(ctx context.Context, c command) *exec.Cmd {
	args := []string{"--no-pager", "--literal-pathspecs"}
	if c.gitDir != "" {
		args = append(args, "--git-dir="+c.gitDir)
	}
	program, args := g.program, append(args, c.args...)
	if c.most > 0 {
		program, args = fileLimit(c.most, program, args)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = g.scratch, append(g.environment(), c.env...)
	cmd.Stdin, cmd.Stdout = c.stdin, c.stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// fileLimit has a program run with a limit on the files that it and its children write: whatever
// would go beyond is refused by the system, so that nothing too large is ever complete.
func fileLimit(most int64, program string, args []string) (string, []string) {
	// sh counts in blocks of 512 bytes. Without the trap, the system would kill the writer instead.
	const script = `trap '' XFSZ; ulimit -f "$0"; exec "$@"`
	return "/bin/sh", append([]string{"-c", script, strconv.FormatInt(most/512+2, 10), program}, args...)
}

// supervise calls watch until stop is called.
func (c command) supervise(ctx context.Context, kill context.CancelCauseFunc) (stop func()) {
	if c.watch == nil {
		return func() {}
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(c.every)
		defer t.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				return
			case <-t.C:
				if err := c.watch(); err != nil {
					kill(err)
					return
				}
			}
		}
	})
	return func() {
		close(ended)
		wg.Wait()
	}
}

// deleteRefs forgets the refs below a prefix.
func (g *git) deleteRefs(ctx context.Context, gitDir, prefix string) error {
	var list bytes.Buffer
	if err := g.run(ctx, command{operation: "for-each-ref", gitDir: gitDir, stdout: &list, args: []string{"for-each-ref", "--format=delete %(refname)", prefix}}); err != nil || list.Len() == 0 {
		return err
	}
	return g.run(ctx, command{operation: "update-ref", gitDir: gitDir, stdin: &list, args: []string{"update-ref", "--stdin"}})
}

// initBare makes a bare repository.
func (g *git) initBare(ctx context.Context, dir string) error {
	return g.run(ctx, command{operation: "init", args: []string{"init", "--quiet", "--bare", "--template=", "--initial-branch=none", "--", dir}})
}

// output runs git and returns what it printed, at most 1 MiB.
func (g *git) output(ctx context.Context, c command) (string, error) {
	var out bytes.Buffer
	l := &limited{w: &out, left: 1 << 20}
	c.stdout = l
	err := g.run(ctx, c)
	if l.left < 0 {
		err = errors.Join(errOutput, err)
	}
	return out.String(), err
}

// tail keeps the last bytes written to it.
type tail struct {
	most int
	b    []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.most; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.ToValidUTF8(string(t.b), "\uFFFD") }

var errOutput = errors.New("mirror: git printed more than expected")

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errOutput
	}
	return l.w.Write(p)
}
