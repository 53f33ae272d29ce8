package hook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	longestLine = 64 << 10
	cutMark     = " … (line cut)"
	// redrawEvery is how often a line that is redrawn in place (a progress bar) is handed out.
	redrawEvery = 2 * time.Second
)

// output reads the streams of one hook and hands out their lines.
type output struct {
	sink  Sink
	limit int64

	mu   sync.Mutex // one Line at a time; guards what follows
	used int64
	cut  bool

	wg    sync.WaitGroup
	files []*os.File
}

// read hands out what comes from f, which it closes in the end.
func (o *output) read(from Stream, f *os.File) {
	o.files = append(o.files, f)
	o.wg.Go(func() {
		defer f.Close()
		a := assembler{line: func(text string) { o.line(from, text) }, now: time.Now}
		buf := make([]byte, 32<<10)
		for {
			n, err := f.Read(buf)
			if o.take(n) {
				a.write(buf[:n])
			} else if n > 0 {
				a.drop()
			}
			if err != nil {
				a.end()
				return
			}
		}
	})
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
	for _, f := range o.files {
		_ = f.SetReadDeadline(time.Now().Add(wait)) // pipes of os.Pipe take deadlines
	}
	o.wg.Wait()
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
