package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultSilenceTimeout is how long a hook goes on without a sign of life from its worker.
const DefaultSilenceTimeout = 15 * time.Second

// beatsPerTimeout is how many signs of life a worker gives in that time.
const beatsPerTimeout = 5

// ErrStalled is returned for a hook that was ended because its worker stood still (SIGSTOP, or a
// machine that slept). Another worker may have taken the deployment over meanwhile; the hook can be
// run again.
var ErrStalled = errors.New("hook: ended because its worker stood still")

// gate is the first program of a hook's process. It waits on descriptor 3 until the worker says
// that everything is ready, and then becomes the hook. If the worker dies before that, the hook
// never starts.
const gate = `read -r word <&3 && [ "$word" = go ] || exit 1
exec 3<&-
exec "$@"`

// word opens the gate.
const word = "go\n"

// watching is the guard's script. The guard is a process beside the hook and outside its sandbox,
// so that the hook cannot see or stop it. It ends the hook when its worker dies or stands still.
//
// It reads from descriptor 3, a pipe that only this worker writes to. The worker writes a point at
// short intervals. When the pipe is closed, the worker is dead. When nothing comes for the timeout,
// the worker stands still, and another one may hold its lease. In both cases the guard kills the
// hook's process group. It must not kill a stranger that got the same number after the hook ended
// by itself: descriptor 4 is the hook's directory in /proc, which is empty once the hook is gone; a
// process group keeps its number until all of it has ended.
//
// The first argument is the timeout in seconds, the second what kill is to end, the third and the
// fourth are the programs timeout and head. Another exit status comes from a program that could not
// be started, and the next one is tried.
//
// bubblewrap's own --die-with-parent is not enough: its first process asks for it only once the
// sandbox is made, and takes the end of --block-fd for the word to go on.
const watching = `trap '' HUP INT TERM
while :; do
	beat=$("$3" "$1" "$4" -c 1 <&3)
	case $?$beat in 0 | 124) break ;; esac
done
if [ "$2" -lt 0 ] || [ -e /proc/self/fd/4/stat ]; then kill -s KILL -- "$2"; fi`

// guard starts the guard of a hook that is about to begin, and gives it signs of life. target is what
// kill is to end, first the number of the hook's first process.
func (b *box) guard(target string, first int) error {
	var programs []string
	for _, name := range []string{"timeout", "head"} {
		p, err := lookUp(name)
		if err != nil {
			return fmt.Errorf("%w; hooks need coreutils", err)
		}
		programs = append(programs, p)
	}
	alive, err := os.Open("/proc/" + strconv.Itoa(first))
	if err != nil {
		return fmt.Errorf("first process of the hook: %w", err)
	}
	defer alive.Close()
	read, line, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	b.ends = append(b.ends, line)
	b.later(func() { line.Close() })
	cmd := exec.Command("/bin/sh", append([]string{"-c", watching, "guard", seconds(b.silence), target}, programs...)...) //nolint:noctx // it outlives this process
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", []string{}, []*os.File{read, alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what is sent to our group is not for it
	g, err := keep(cmd)
	if err != nil {
		return fmt.Errorf("guard of the hook: %w", err)
	}
	b.guarded = g.done
	b.later(g.stop)
	b.pulse = beat(line, b.silence)
	b.later(b.pulse.stop)
	return nil
}

// lookUp finds a program of the system, also where a service's PATH does not lead.
func lookUp(name string) (string, error) {
	p, err := exec.LookPath(name)
	for dir := range strings.SplitSeq(defaultPath, ":") {
		if err == nil {
			break
		}
		p, err = exec.LookPath(dir + "/" + name)
	}
	return p, err
}

// pulse gives a guard its signs of life until it is stopped.
type pulse struct {
	silence time.Duration
	end     chan struct{}
	ended   sync.WaitGroup

	mu   sync.Mutex
	last time.Time
	gap  time.Duration // the longest between two beats so far
}

// beat begins. The line must not block for long when nobody reads it: a pipe takes beats for days.
func beat(line io.Writer, silence time.Duration) *pulse {
	p := &pulse{silence: silence, end: make(chan struct{}), last: time.Now()}
	p.ended.Go(func() {
		every := time.NewTicker(silence / beatsPerTimeout)
		defer every.Stop()
		for {
			select {
			case <-p.end:
				return
			case <-every.C:
			}
			at := time.Now()
			_, _ = io.WriteString(line, ".") // a guard that is gone took the hook with it
			p.mark(at)
		}
	})
	return p
}

// mark notes a sign of life that was given between at and now. Its worker may have been stopped between the two:
// the guard then waited from the sign before until now.
func (p *pulse) mark(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gap, p.last = max(p.gap, time.Since(p.last)), at
}

// stalled is for how long this worker stood still, if that was too long for the guard; 0 if not.
func (p *pulse) stalled() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if gap := max(p.gap, time.Since(p.last)); gap >= p.silence {
		return gap
	}
	return 0
}

func (p *pulse) stop() {
	close(p.end)
	p.ended.Wait()
}

// silenceTimeout is what a runner was told, in whole seconds as the guard's timeout(1) wants it.
func silenceTimeout(d time.Duration) time.Duration {
	if d == 0 {
		d = DefaultSilenceTimeout
	}
	return max(d.Truncate(time.Second), time.Second)
}

// seconds is a timeout as the guard takes it.
func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
