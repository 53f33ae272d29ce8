package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	longestLine = 64 << 10 // bytes of a line of output
	cutMark     = " … (line cut)"
	// redrawEvery is how often a line that is redrawn in place (a progress bar) is handed out.
	redrawEvery = 2 * time.Second
)

// output reads the streams of one hook and hands out their lines, in one order (see streams.go).
type output struct {
	sink  Sink
	limit int64

	mu   sync.Mutex // one Line at a time; guards what follows
	used int64
	cut  bool
	last time.Time // until then is read, once the hook is over

	sources [2]*source
	writes  []int // descriptors of writes that are not handed out yet
	lines   [2]assembler
	wake    *os.File // closed when the hook is over
	ended   chan struct{}
}

// read begins to hand out what comes from the two streams, which it closes in the end.
func (o *output) read(stdout, stderr *os.File) error {
	var errs [2]error
	for i, f := range []*os.File{stdout, stderr} {
		from := Stream(i + 1)
		o.sources[i], errs[i] = newSource(from, f)
		o.lines[i] = assembler{line: func(text string) { o.line(from, text) }, now: time.Now}
	}
	over, wake, err := os.Pipe()
	if err := errors.Join(errs[0], errs[1], err); err != nil {
		return err
	}
	o.wake, o.ended = wake, make(chan struct{})
	begun := make(chan error, 1)
	go func() {
		defer close(o.ended)
		defer over.Close()
		defer stdout.Close()
		defer stderr.Close()
		e, err := hear()
		if err == nil {
			defer e.close()
			err = errors.Join(o.sources[0].announce(), o.sources[1].announce())
		}
		if begun <- err; err == nil {
			o.follow(e, over)
		}
	}()
	return <-begun
}

// follow reads until both streams have ended.
func (o *output) follow(e *ear, over *os.File) {
	poll := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}, {Fd: int32(over.Fd())}, {}, {}} // descriptors are small
	for o.open() {
		wait := -1
		for i, s := range o.sources {
			poll[2+i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN} // as above
			if s.ended {
				poll[2+i].Fd = -1
			}
			if len(s.sizes) > 0 {
				wait = int(signalDelay.Milliseconds())
			}
		}
		if poll[1].Revents != 0 { // the hook is over: what is in the pipes is all
			poll[1].Fd = -1
		}
		if poll[1].Fd == -1 {
			left := time.Until(o.until())
			if left <= 0 {
				break
			}
			if wait < 0 {
				wait = int(left.Milliseconds()) + 1
			}
		}
		if _, err := unix.Poll(poll, wait); err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
		o.collect(e, false)
	}
	o.collect(e, true)
	for i := range o.lines {
		o.lines[i].end()
	}
}

func (o *output) until() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func (o *output) open() bool { return !o.sources[0].ended || !o.sources[1].ended }

// collect hands out what was written, in order; with all, also what has no signal.
func (o *output) collect(e *ear, all bool) {
	// All that was signalled is read, and, unless a hook writes faster than that, all that is read was
	// signalled.
	var closing [2]bool
	lost := false
	for round := range 8 {
		for i, s := range o.sources {
			closing[i] = s.ended
		}
		heard, missed := e.writes()
		lost = lost || missed
		if o.writes = append(o.writes, heard...); len(heard) == 0 && round > 0 {
			break
		}
		for _, s := range o.sources {
			s.read()
		}
	}
	var later [2]int
	for i, s := range o.sources {
		later[i] = count(o.writes, s.fd)
		if closing[i] && !s.hung { // the last signal tells of that
			s.hung = true
			later[i]--
		}
		s.expect(later[i])
	}
	now := time.Now()
	for n, fd := range o.writes {
		i := 0
		if fd == o.sources[1].fd {
			i = 1
		}
		s := o.sources[i]
		if s.more && len(s.sizes) == 0 {
			o.writes = o.writes[n:]
			return
		}
		later[i]--
		if later[i] >= 0 {
			o.hand(i, s.ofWrite(later[i], now))
		}
	}
	o.writes = o.writes[:0]
	for i, s := range o.sources {
		if all || lost || s.overdue(now) {
			o.hand(i, s.rest(now))
		}
	}
}

func count(list []int, n int) (found int) {
	for _, x := range list {
		if x == n {
			found++
		}
	}
	return found
}

// hand makes lines of what came from a stream.
func (o *output) hand(i int, p []byte) {
	if o.take(len(p)) {
		o.lines[i].write(p)
	} else if len(p) > 0 {
		o.lines[i].drop()
	}
}

// take counts n bytes and reports whether they are still within the limit.
func (o *output) take(n int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.used += int64(n)
	if o.used <= o.limit {
		return true
	}
	if !o.cut {
		o.cut = true
		o.sink.Line(Notice, fmt.Sprintf("Output cut here: the hook printed more than %s. It goes on; what it prints from here on is not kept.", size(o.limit)))
	}
	return false
}

func (o *output) line(from Stream, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sink.Line(from, text)
}

// finish waits until all is read, for at most so long: then a process that is not ours to kill
// still holds a stream. It reports whether output was cut.
func (o *output) finish(wait time.Duration) bool {
	o.mu.Lock()
	o.last = time.Now().Add(wait)
	o.mu.Unlock()
	o.wake.Close()
	<-o.ended
	return o.cut
}

// assembler makes lines of what is written in pieces. A carriage return begins its line anew, as on
// a terminal; of a progress bar that is redrawn on and on, a state is handed out now and then.
type assembler struct {
	line func(string)
	now  func() time.Time

	buf      []byte
	over     bool // the line was too long: its rest is dropped
	returned bool // the last byte was a carriage return
	dropped  bool // output was cut within a line
	redrawn  time.Time
}

func (a *assembler) write(p []byte) {
	for len(p) > 0 {
		if a.returned {
			a.returned = false
			if p[0] != '\n' && p[0] != '\r' {
				a.redraw()
			}
		}
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			a.add(p)
			return
		}
		a.add(p[:i])
		if p[i] == '\r' {
			a.returned = true
		} else {
			a.flush()
		}
		p = p[i+1:]
	}
}

func (a *assembler) add(p []byte) {
	if room := longestLine - len(a.buf); len(p) > room {
		p, a.over = p[:room], true
	}
	a.buf = append(a.buf, p...)
}

// redraw forgets the line as it was before a carriage return, or shows it.
func (a *assembler) redraw() {
	if now := a.now(); a.redrawn.IsZero() {
		a.redrawn = now
	} else if now.Sub(a.redrawn) >= redrawEvery && len(a.buf) > 0 {
		a.redrawn = now
		a.flush()
		return
	}
	a.buf, a.over = a.buf[:0], false
}

func (a *assembler) flush() {
	text := string(a.buf)
	if a.over {
		text += cutMark
	}
	a.buf, a.over = a.buf[:0], false
	if cap(a.buf) > 4<<10 {
		a.buf = nil
	}
	a.line(text)
}

// drop forgets an unfinished line: its end is not kept, and half of it might be half a secret.
func (a *assembler) drop() { a.buf, a.over, a.returned, a.dropped = nil, false, false, true }

// end hands out an unfinished last line.
func (a *assembler) end() {
	if len(a.buf) > 0 && !a.dropped {
		a.flush()
	}
}

// size writes bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(int64(1)<<u.shift), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// drain reads what a failed program said, at most 4 KiB, closing f.
func drain(f *os.File) string {
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(time.Second))
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && len(b) == 0 {
		return err.Error()
	}
	return string(bytes.ToValidUTF8(bytes.TrimSpace(b), []byte("\uFFFD")))
}
