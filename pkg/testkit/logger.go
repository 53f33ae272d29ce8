package testkit

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// Logs is a slog.Logger whose lines go to the test's own log and into memory.
type Logs struct {
	*slog.Logger
	out *logWriter
}

// Logger makes a logger at debug level for one test. Lines written after the test has ended are
// kept out of its log (a late line would panic there), not out of memory.
func Logger(t testing.TB) *Logs {
	t.Helper()
	w := &logWriter{t: t}
	t.Cleanup(w.end)
	return &Logs{Logger: slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})), out: w}
}

// Text is everything logged so far.
func (l *Logs) Text() string {
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	return l.out.buf.String()
}

// Contains tells whether anything logged so far contains s.
func (l *Logs) Contains(s string) bool { return strings.Contains(l.Text(), s) }

// MustNotContain fails the test when one of the secrets was logged. It never prints the secret.
func (l *Logs) MustNotContain(t testing.TB, secrets ...string) {
	t.Helper()
	text := l.Text()
	for i, s := range secrets {
		if s != "" && strings.Contains(text, s) {
			t.Errorf("secret number %d was logged", i+1)
		}
	}
}

// Writer takes raw lines, such as the output of a process, into the same log.
func (l *Logs) Writer() io.Writer { return l.out }

type logWriter struct {
	mu    sync.Mutex
	t     testing.TB
	buf   bytes.Buffer
	ended bool
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if !w.ended {
		w.t.Log(strings.TrimRight(string(p), "\n"))
	}
	return len(p), nil
}

func (w *logWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}
