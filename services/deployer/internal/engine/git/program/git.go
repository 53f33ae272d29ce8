package program

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
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// Config is what git needs to run.
type Config struct {
	Site *url.URL // the only one that is spoken to, and that hears the token
	// Home is an empty directory, the home and working directory of git; it is made where it is missing.
	// Without one, git has no home, and works in the root directory: enough to ask a server.
	Home      string
	StallTime time.Duration                                      // a server may be silent for so long
	Observe   func(operation string, d time.Duration, err error) // may be nil
}

// Git runs the git program the one way it is run here.
type Git struct {
	Config
	program string
}

// New finds the git program.
func New(cfg Config) (*Git, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("the git program is needed: %w", err)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	return &Git{Config: cfg, program: program}, nil
}

// Command is one run of git.
type Command struct {
	Operation string   // for metrics
	GitDir    string   // empty for none
	Args      []string // after the options that every run has
	Stdin     io.Reader
	Stdout    io.Writer
	Token     seal.Secret   // handed out on request; zero for local work
	MostBytes int64         // bytes of the largest file that it may write; zero for no limit
	Watch     func() error  // called now and then while git runs; an error kills it
	Every     time.Duration // how often
	Env       []string      // more variables of git's, for local work
}

// Failure is a run that failed, with what git said.
type Failure struct {
	Stderr string        // masked
	Asked  bool          // the token was handed out
	Wait   time.Duration // that the server asked for; 0 when it did not
	Err    error
}

func (f *Failure) Error() string {
	text := strings.TrimSpace(f.Stderr)
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[len(text)-500:], "")
	}
	if text == "" {
		return fmt.Sprintf("git: %v, and it printed nothing", f.Err)
	}
	return fmt.Sprintf("git: %v: %s", f.Err, text)
}

func (f *Failure) Unwrap() error { return f.Err }

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
// code where it would (tree/tree.go, tree/links.go and submodule/submodule.go, beside this package), in words
// of ours; what git cannot read at all, it refuses without that check too.
func (g *Git) settings() [][2]string {
	s := [][2]string{
		{"core.hooksPath", "/dev/null"}, {"core.fsmonitor", "false"}, {"core.attributesFile", "/dev/null"}, {"core.excludesFile", "/dev/null"},
		{"core.askPass", ""}, {"core.sshCommand", "false"}, {"core.alternateRefsCommand", ""},
		{"protocol.allow", "never"}, {"protocol.https.allow", "always"}, {"protocol.version", "2"},
		{"http.followRedirects", "false"}, {"http.lowSpeedLimit", "1000"}, {"http.lowSpeedTime", strconv.Itoa(int(g.StallTime / time.Second))}, {"http.userAgent", remote.UserAgent},
		{"core.fsync", "none"}, {"gc.auto", "0"}, {"maintenance.auto", "false"}, {"transfer.unpackLimit", "1"}, {"core.logAllRefUpdates", "always"}, {"fetch.fsckObjects", "false"}, {"transfer.fsckObjects", "false"}, {"fetch.recurseSubmodules", "false"},
		{"credential.helper", ""}, {"credential.helper", helper}, {"credential.useHttpPath", "false"}, {"credential.interactive", "false"},
		{"http.proactiveAuth", "basic"}, {"advice.detachedHead", "false"},
	}
	if g.Site.Scheme == "http" {
		s = append(s, [2]string{"protocol.http.allow", "always"})
	}
	return s
}

// passed are the variables of our own environment that git sees: how to find programs, proxies and
// trusted certificates.
var passed = []string{"PATH", "TMPDIR", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_EXEC_PATH"}

func (g *Git) environment() []string {
	home := g.Home
	if home == "" {
		home = os.DevNull
	}
	env := []string{
		"HOME=" + home, "LC_ALL=C", "TZ=UTC", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=",
		"GIT_COMMITTER_NAME=devpilot", "GIT_COMMITTER_EMAIL=devpilot@localhost",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_CEILING_DIRECTORIES=" + filepath.Dir(home),
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

// Run runs git and waits. When ctx ends, or watch fails, git and all it started are killed. A
// failed run is a *failure; the error of ctx or watch comes before it.
func (g *Git) Run(ctx context.Context, c Command) (err error) {
	begin := time.Now()
	defer func() { g.Observe(c.Operation, time.Since(begin), err) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	if g.Home != "" {
		if err := os.MkdirAll(g.Home, 0o700); err != nil {
			return fmt.Errorf("git: its working directory: %w", err)
		}
	}
	stderr := &tail{most: 32 << 10}
	cmd := g.prepare(ctx, c)
	cmd.Stderr = stderr
	// The kernel watches the thread that started a child, and kills the child with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	var cred *credential
	wait := func() time.Duration { return 0 }
	if !c.Token.IsZero() {
		if cred, err = newCredential(g.Site, c.Token); err != nil {
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
		return fmt.Errorf("program: git %s: %w", c.Operation, cause)
	}
	if err != nil {
		return &Failure{Stderr: remote.Mask(stderr.String(), c.Token), Asked: cred != nil && cred.asked.Load(), Wait: wait(), Err: err}
	}
	return nil
}

// prepare makes the process of one run. It has a group of its own, so that all that git starts dies
// with it; and it dies with us.
func (g *Git) prepare(ctx context.Context, c Command) *exec.Cmd {
	args := []string{"--no-pager", "--literal-pathspecs"}
	directory := g.Home
	if g.Home == "" {
		directory = "/"
	}
	switch {
	case c.GitDir != "":
		args = append(args, "--git-dir="+c.GitDir)
	case g.Home == "":
		args = append(args, "--git-dir="+os.DevNull) // else git would look for a repository
	}
	program, args := g.program, append(args, c.Args...)
	if c.MostBytes > 0 {
		program, args = fileLimit(c.MostBytes, program, args)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = directory, append(g.environment(), c.Env...)
	cmd.Stdin, cmd.Stdout = c.Stdin, c.Stdout
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
func (c Command) supervise(ctx context.Context, kill context.CancelCauseFunc) (stop func()) {
	if c.Watch == nil {
		return func() {}
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(c.Every)
		defer t.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				return
			case <-t.C:
				if err := c.Watch(); err != nil {
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

// DeleteRefs forgets the refs below a prefix.
func (g *Git) DeleteRefs(ctx context.Context, gitDir, prefix string) error {
	var list bytes.Buffer
	if err := g.Run(ctx, Command{Operation: "for-each-ref", GitDir: gitDir, Stdout: &list, Args: []string{"for-each-ref", "--format=delete %(refname)", prefix}}); err != nil || list.Len() == 0 {
		return err
	}
	return g.Run(ctx, Command{Operation: "update-ref", GitDir: gitDir, Stdin: &list, Args: []string{"update-ref", "--stdin"}})
}

// InitBare makes a bare repository.
func (g *Git) InitBare(ctx context.Context, dir string) error {
	return g.Run(ctx, Command{Operation: "init", Args: []string{"init", "--quiet", "--bare", "--template=", "--initial-branch=none", "--", dir}})
}

// Output runs git and returns what it printed, at most 1 MiB.
func (g *Git) Output(ctx context.Context, c Command) (string, error) {
	var out bytes.Buffer
	l := &limited{w: &out, left: 1 << 20}
	c.Stdout = l
	err := g.Run(ctx, c)
	if l.left < 0 {
		err = errors.Join(ErrOutput, err)
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

// ErrOutput says that git was cut off, since it printed more than was asked for.
var ErrOutput = errors.New("program: git printed more than expected")

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, ErrOutput
	}
	return l.w.Write(p)
}
