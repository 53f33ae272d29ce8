package program

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
)

// asked reads what git tells of the headers that it receives (GIT_TRACE_CURL), and keeps how long the
// last answer asked to wait: git itself does not say. It keeps nothing else of it.
type asked struct {
	rest []byte // the beginning of a line
	last http.Header
}

// maxLine bounds a line of the trace; what is longer is none of the headers looked for.
const maxLine = 4 << 10

// Write implements io.Writer.
func (a *asked) Write(p []byte) (int, error) {
	a.rest = append(a.rest, p...)
	for {
		line, rest, whole := bytes.Cut(a.rest, []byte("\n"))
		if !whole {
			if len(a.rest) > maxLine {
				a.rest = a.rest[len(a.rest)-1:] // it ends somewhere
			}
			a.rest = append(a.rest[:0:0], a.rest...)
			return len(p), nil
		}
		a.rest = rest
		a.line(string(line))
	}
}

func (a *asked) line(line string) {
	_, header, ok := strings.Cut(line, "<= Recv header: ")
	if !ok {
		return
	}
	if strings.HasPrefix(header, "HTTP/") {
		a.last = http.Header{} // another answer
		return
	}
	name, value, _ := strings.Cut(header, ":")
	switch strings.ToLower(name) {
	case "retry-after", "x-ratelimit-reset":
		a.last.Set(name, strings.TrimSpace(value))
	}
}

// wait is how long the last answer asked to wait; 0 when it did not say.
func (a *asked) wait(now time.Time) time.Duration { return bitbucket.RetryAfter(a.last, now) }

// listen returns the end of a pipe that git writes its trace to, and a function that is called when git
// has ended and returns how long it was asked to wait.
func listen() (theirs *os.File, wait func() time.Duration, err error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("program: %w", err)
	}
	a := &asked{last: http.Header{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, ours)
	}()
	return theirs, func() time.Duration {
		_ = ours.SetReadDeadline(time.Now().Add(time.Second)) // git is dead; nobody keeps us waiting
		<-done
		_ = ours.Close()
		return a.wait(time.Now())
	}, nil
}
