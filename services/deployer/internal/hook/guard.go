package hook

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"time"
)

// DefaultPatience is how long a hook goes on without a sign of life from its worker.
const DefaultPatience = 15 * time.Second

// beatsPerPatience is how many signs of life a worker gives in that time.
const beatsPerPatience = 5

// ErrStalled is a hook that was ended because its worker stood still, as a process that was stopped
// or a machine that slept: somebody else may have begun the same work meanwhile. It can be run again.
var ErrStalled = errors.New("hook: ended because its worker stood still")

// watching is the guard's part of the scripts in which hooks begin. It reads from descriptor 3, a
// line whose other end this worker holds, and nobody else. While points come, the worker lives. When
// the line is cut, it is dead; when nothing comes for longer than the patience, it stands still and
// its lease may be another's. Then the guard ends what is beside it. The first argument is the
// patience in seconds, the second what kill is to end, the third where timeout and head are: the
// hook's own PATH may lead anywhere.
//
// Any other status is of a program that could not be started, because the hook has as many
// processes as it may: the next one will be.
const watching = `watch() {
	trap '' HUP INT TERM
	PATH=$3
	while :; do
		beat=$(timeout "$1" head -c 1 <&3)
		case $?$beat in 0 | 124) kill -KILL "$2"; exit ;; esac
	done
}
`

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
