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

// DefaultPatience is how long a hook goes on without a sign of life from its worker.
const DefaultPatience = 15 * time.Second

// beatsPerPatience is how many signs of life a worker gives in that time.
const beatsPerPatience = 5

// ErrStalled is a hook that was ended because its worker stood still, as a process that was stopped
// or a machine that slept: somebody else may have begun the same work meanwhile. It can be run again.
var ErrStalled = errors.New("hook: ended because its worker stood still")

// gate is what a hook's first process runs: it waits for the word that all is ready, on descriptor 3,
// and becomes the hook. A worker that dies before it gave the word leaves no hook behind.
const gate = `read -r word <&3 && [ "$word" = go ] || exit 1
exec 3<&-
exec "$@"`

// word opens the gate.
const word = "go\n"

// watching is the guard of a hook: a process beside it, outside of its sandbox, where the hook neither
// sees nor reaches it. It reads from descriptor 3, a line whose other end this worker holds, and
// nobody else. While points come, the worker lives. When the line is cut, it is dead; when nothing
// comes for longer than the patience, it stands still and its lease may be another's. Then the guard
// ends the hook, unless that has ended by itself and its number may be a stranger's: descriptor 4 is
// its directory in /proc, which is empty from then on. A group keeps its number until all of it ended.
//
// The first argument is the patience in seconds, the second what kill is to end, the third and the
// fourth are timeout and head. Any other status is of a program that could not be started: the next
// one may be.
//
// bubblewrap's own --die-with-parent is not enough: its first process asks the kernel to die with its
// parent only once the sandbox is made, and takes the end of --block-fd for the word to go on.
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
	cmd := exec.Command("/bin/sh", append([]string{"-c", watching, "guard", seconds(b.patience), target}, programs...)...) //nolint:noctx // it outlives this process
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", []string{}, []*os.File{read, alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what is sent to our group is not for it
	g, err := keep(cmd)
	if err != nil {
		return fmt.Errorf("guard of the hook: %w", err)
	}
	b.guarded = g.done
	b.later(g.stop)
	b.pulse = beat(line, b.patience)
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
	patience time.Duration
	end      chan struct{}
	ended    sync.WaitGroup

	mu   sync.Mutex
	last time.Time
	gap  time.Duration // the longest between two beats so far
}

// beat begins. The line must not block for long when nobody reads it: a pipe takes beats for days.
func beat(line io.Writer, patience time.Duration) *pulse {
	p := &pulse{patience: patience, end: make(chan struct{}), last: time.Now()}
	p.ended.Go(func() {
		every := time.NewTicker(patience / beatsPerPatience)
		defer every.Stop()
		for {
			select {
			case <-p.end:
				return
			case <-every.C:
			}
			p.mark()
			_, _ = io.WriteString(line, ".") // a guard that is gone took the hook with it
		}
	})
	return p
}

func (p *pulse) mark() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.last, p.gap = now, max(p.gap, now.Sub(p.last))
}

// stalled is for how long this worker stood still, if that was too long for the guard; 0 if not.
func (p *pulse) stalled() time.Duration {
	p.mark()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gap < p.patience {
		return 0
	}
	return p.gap
}

func (p *pulse) stop() {
	close(p.end)
	p.ended.Wait()
}

// patience is what a runner was told, in whole seconds as the guard's timeout(1) wants it.
func patience(d time.Duration) time.Duration {
	if d == 0 {
		d = DefaultPatience
	}
	return max(d.Truncate(time.Second), time.Second)
}

// seconds is a patience for the guard.
func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
