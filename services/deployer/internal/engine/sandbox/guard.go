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
// hook's process group, and where nothing came it says so with its exit status: only the guard knows
// how long it waited. It must not kill a stranger that got the same number after the hook ended
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
	case $?$beat in 0) said=0; break ;; 124) said=` + silent + `; break ;; esac
done
if [ "$2" -lt 0 ] || [ -e /proc/self/fd/4/stat ]; then kill -s KILL -- "$2" && exit "$said"; fi
exit 0`

// silent is the exit status of a guard that ended its hook because it heard nothing.
const silent = "9"

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
	g, err := keep(cmd)
	if err != nil {
		return fmt.Errorf("guard of the hook: %w", err)
	}
	b.watcher = g
	b.later(g.stop)
	b.pulse = beat(line, b.silence)
	b.later(b.pulse.stop)
	return nil
}

// silenced tells, once the hook is over, whether its guard ended it because it heard nothing.
func (b *box) silenced() bool {
	b.pulse.stop() // the guard ends with the line, if it has not yet
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	select {
	case <-b.watcher.done:
		return strconv.Itoa(b.watcher.code()) == silent
	case <-limit.C:
		return false
	}
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
	end  func()
	done sync.WaitGroup
}

// beat begins, and closes the line in the end. The line must not block for long when nobody reads it: a pipe takes
// beats for days.
func beat(line io.WriteCloser, silence time.Duration) *pulse {
	end := make(chan struct{})
	p := &pulse{end: sync.OnceFunc(func() { close(end) })}
	p.done.Go(func() {
		defer line.Close()
		every := time.NewTicker(silence / beatsPerTimeout)
		defer every.Stop()
		for {
			select {
			case <-end:
				return
			case <-every.C:
			}
			_, _ = io.WriteString(line, ".") // a guard that is gone took the hook with it
		}
	})
	return p
}

// stop may be called again.
func (p *pulse) stop() {
	p.end()
	p.done.Wait()
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
