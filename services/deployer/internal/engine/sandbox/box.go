package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that dies with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was waited for
	err  error         // of Wait; read it after done
	// last is called when it has ended and its number is still its own; nil is nothing.
	last func()
}

// spawn starts a program that the kernel kills when we die.
func spawn(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return keep(cmd)
}

// keep starts a program that may ask the kernel by itself to die with us. The kernel watches the
// thread that started it, hence one goroutine that keeps its thread until the end.
//
// It gets a session of its own: what is sent to our group, by a terminal or who stops a service with all that it
// started, is for us alone. We end a hook ourselves, and it is not blamed.
func keep(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	return (&process{cmd: cmd}).run()
}

func (p *process) run() (*process, error) {
	p.done = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		if p.last != nil {
			// Not waited for yet: WNOWAIT.
			for unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
			}
			p.last()
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stop kills the program and waits for it. A nil process is none.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// code is the exit code as a shell shows it.
func (p *process) code() int {
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return -1
	case s.Signaled():
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// box is a hook that is set up and waits for its begin.
type box struct {
	*process
	group          int // its process group
	stdout, stderr *os.File
	begin          func() error
	// usage adds up what runs in the box; memory and tasks only if full.
	usage func(full bool) (usage, error)
	// tasks is how many processes and threads the kernel counts; nil where it does not.
	tasks func() (int, error)
	// suspected reports whether too many may be among all of the user's; nil where it is not needed.
	suspected func() bool
	// kill ends everything in the box at once, and gone waits until that is so.
	kill func()
	gone func(wait time.Duration) error
	// began reports whether the command was started, once all is over.
	began func() bool
	// silence is how long the guard bears silence, and pulse breaks it once the hook has begun.
	// watcher is the guard, and ends is what closes when we die.
	silence time.Duration
	pulse   *pulse
	watcher *process
	ends    []*os.File
	cleanup []func()
}

func (b *box) close() {
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
	b.cleanup = nil
}

func (b *box) later(f func()) { b.cleanup = append(b.cleanup, f) }

// abandon ends a box that was never begun, and returns what it said.
func (b *box) abandon(err error) error {
	b.kill()
	<-b.done
	_ = b.stdout.Close()
	if said := drain(b.stderr); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// run lets the box begin and sees it through to its end.
func (b *box) run(ctx context.Context, s Spec, sink Sink) (Result, error) {
	out := &output{sink: sink, limit: s.Limits.Output}
	if err := out.read(b.stdout, b.stderr); err != nil {
		return Result{}, b.abandon(fmt.Errorf("%w: %w", ErrStart, err))
	}
	begin := time.Now()
	if err := b.begin(); err != nil {
		b.kill()
		<-b.done
		out.finish(time.Second) // what it said
		return Result{}, fmt.Errorf("%w: %w", ErrStart, err)
	}

	var r Result
	why := b.supervise(ctx, s)
	b.kill() // what the command left behind
	leftErr := b.gone(5 * time.Second)
	r.OutputCut = out.finish(time.Second)
	if why != nil {
		if text := why(&r); text != "" {
			out.line(Notice, text)
		}
	}
	r.Duration = time.Since(begin)
	r.ExitCode = b.code()
	r.Signal = signalName(r.ExitCode)
	if leftErr != nil {
		return r, fmt.Errorf("%w: %w", ErrLeft, leftErr)
	}
	if why == nil && r.ExitCode == 128+int(syscall.SIGKILL) && b.silenced() {
		return r, fmt.Errorf("%w for %s", ErrStalled, b.silence)
	}
	if r.ExitCode == 1 && why == nil && !b.began() { // 1 is bubblewrap's own
		return Result{}, fmt.Errorf("%w: the sandbox could not be set up (see the lines above)", ErrStart)
	}
	return r, nil
}

// supervise waits for the command's end, which it brings about if it must. It returns why it did.
func (b *box) supervise(ctx context.Context, s Spec) verdict {
	limit := time.NewTimer(s.Limits.Time)
	defer limit.Stop()
	verdicts := make(chan verdict, 1)
	var watching sync.WaitGroup
	watching.Go(func() { verdicts <- watch(b, s) })
	defer watching.Wait() // its end is the command's

	var why verdict
	select {
	case <-b.done:
		return nil
	case why = <-verdicts:
		b.kill()
		<-b.done
		return why
	case <-b.watcher.done: // nobody would end it with us
		b.kill()
		<-b.done
		if b.silenced() { // it did its work
			return nil
		}
		return func(*Result) string { return "Killed: the process that watches over it was ended." }
	case <-ctx.Done():
		why = func(r *Result) string { r.Cancelled = true; return "" }
	case <-limit.C:
		why = func(r *Result) string {
			r.TimedOut = true
			return fmt.Sprintf("Stopped: it ran longer than its limit of %s.", s.Limits.Time)
		}
	}
	if b.ended() {
		return nil
	}
	_ = syscall.Kill(-b.group, syscall.SIGTERM)
	grace := time.NewTimer(Grace)
	defer grace.Stop()
	select {
	case <-b.done:
		return why
	case <-verdicts: // it uses its last seconds badly
	case <-grace.C:
	}
	b.kill()
	<-b.done
	return why
}

func (b *box) ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// errStillThere is the trouble of a process that does not go when it is killed.
var errStillThere = errors.New("a process is still there seconds after it was killed")

// awaitExit waits until the process of a pidfd has ended.
func awaitExit(pidfd int, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errStillThere
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n > 0:
			return nil
		}
	}
}

// memory makes a file that exists in memory only, to hand text to another program.
func memory(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// keepOwn marks every file descriptor that this process has, or was given by what started it, as
// not to be passed on to programs. Go's own are so from the start.
func keepOwn() {
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
}
