package testkit

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that a test started: in a process group of its own, stopped with the test,
// and when the tests' own process is killed.
type Process struct {
	t      testing.TB
	name   string
	start  func() *exec.Cmd // a fresh command, for Restart
	output io.Writer

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// StartProcess runs the command that start makes, and again a fresh one on each Restart. Its output
// goes to out.
func StartProcess(t testing.TB, name string, out io.Writer, start func() *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, name: name, start: start, output: out}
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// Start runs the program again after it has ended.
func (p *Process) Start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := p.start()
	cmd.Stdout, cmd.Stderr = p.output, p.output
	// The kernel ends it when this program dies without its cleanups. It watches the thread that
	// started it, which therefore has to stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			// How a killed program ended is no news.
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	p.cmd, p.done = cmd, done
}

// Pid is the program's process id.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Exited is closed when the program of the last start has ended.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *Process) running() bool {
	select {
	case <-p.Exited():
		return false
	default:
		return true
	}
}

// Signal sends a signal to the program's whole process group.
func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	if !p.running() {
		return
	}
	if err := syscall.Kill(-p.Pid(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Errorf("send %v to %s: %v", sig, p.name, err)
	}
}

// Kill ends the program with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	p.await()
}

// Terminate asks the program to end with SIGTERM and waits until it has.
func (p *Process) Terminate() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.await()
}

func (p *Process) await() {
	p.t.Helper()
	select {
	case <-p.Exited():
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s does not end", p.name)
	}
}

// Stop freezes the program with SIGSTOP and waits until all its threads stand still: its sockets
// stay open and nothing answers.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	Eventually(p.t, startTimeout, func() error { return frozen(p.Pid()) })
}

// frozen is nil when every thread of a process is stopped, as far as the system tells (/proc).
func frozen(pid int) error {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return err
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return err
		}
		// pid (name) state …; the name may hold anything.
		_, state, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
		if !strings.HasPrefix(state, "T") {
			return fmt.Errorf("a thread is in state %.1s", state)
		}
	}
	return nil
}

// Continue thaws a stopped program.
func (p *Process) Continue() {
	p.t.Helper()
	p.Signal(syscall.SIGCONT)
}

// awaitListen waits until address takes connections.
func (p *Process) awaitListen(address string) {
	p.t.Helper()
	Eventually(p.t, startTimeout, func() error {
		if !p.running() {
			p.t.Fatalf("%s ended while starting; its output is in the log", p.name)
		}
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// The ports that FreePort gives lie below those that the system gives to outgoing connections and to
// listeners on port 0 (32768 and above on Linux): between the look and the use of a port nobody is
// then given it by chance.
const (
	firstPort = 20_000
	lastPort  = 31_999
)

// given are the ports given out by this process, with what keeps others from giving them out.
var given sync.Map

// FreePort is a TCP port on loopback that was free a moment ago. No port is given out twice by the
// processes of a test run, so that a server that was stopped finds its own free when it starts again.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !reserve(port) {
			continue
		}
		// Nobody answers there. Listening to find out would keep the port taken for a moment after that: a program
		// that starts just then has a copy of the socket until it runs.
		c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return port
		}
		if err == nil {
			_ = c.Close()
		}
	}
	t.Fatal("no free port was found")
	return 0
}

// reserve keeps a port from being given out by any process of the system, for as long as this one
// lives, and tells whether nobody else had it: by an abstract socket named after it, where there are such.
func reserve(port int) bool {
	if runtime.GOOS != "linux" {
		_, taken := given.LoadOrStore(port, nil)
		return !taken
	}
	l, err := net.Listen("unix", "@devpilot-test-port-"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	given.Store(port, l)
	return true
}

// lookPath finds a program that tests need, or fails: a missing engine is not skipped.
func lookPath(t testing.TB, program, remedy string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is needed for this test and is not in PATH; %s", program, remedy)
	}
	return path
}

// writeConfig writes a configuration file that only we can read.
func writeConfig(t testing.TB, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
