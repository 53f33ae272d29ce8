// Package live is what the answers have in common that do not end by themselves: a deadline for
// each write, heartbeats at which the caller is checked again, a limit per caller, and an end when
// the process stops.
//
// It depends on internal/caller and internal/edge.
package live

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
)

const (
	// writeTimeout ends a connection whose client does not read.
	writeTimeout = 15 * time.Second
	// perCaller bounds the streams of one caller in this process.
	perCaller = 100
)

// Streams counts the streams of a process and ends them. It is safe for concurrent use.
type Streams struct {
	// Heartbeat is how often an idle stream says that it lives, and its caller is checked.
	Heartbeat time.Duration
	Callers   interface {
		Still(ctx context.Context, c caller.Caller, workspace string) error
	}

	mu      sync.Mutex
	open    map[string]int // by subject
	changed chan struct{}  // closed when callers are to be checked again
	stopped chan struct{}
	once    sync.Once
}

// NewStreams makes an empty set.
func NewStreams(heartbeat time.Duration) *Streams {
	return &Streams{Heartbeat: heartbeat, open: map[string]int{}, changed: make(chan struct{}), stopped: make(chan struct{})}
}

// Drain asks all streams to end, and those that come later to end at once.
func (s *Streams) Drain() { s.once.Do(func() { close(s.stopped) }) }

// Stopped is closed by Drain.
func (s *Streams) Stopped() <-chan struct{} { return s.stopped }

// Recheck has every stream check its caller now: somebody may do other things than before.
func (s *Streams) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed is closed by the next Recheck. Ask for it before the check that it is about.
func (s *Streams) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Enter counts a stream of the caller; leave must be called when it ends. RATE_LIMITED when the
// caller has too many.
func (s *Streams) Enter(subject string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[subject] >= perCaller {
		return nil, apierr.Newf(apierr.ReasonRateLimited, "You have %d streams open, which is the most there can be. Close some.", perCaller).
			With(apierr.WithRetryAfter(10 * time.Second))
	}
	s.open[subject]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[subject]--; s.open[subject] == 0 {
			delete(s.open, subject)
		}
	}, nil
}

// Check says whether the caller may still read; trouble with the store is not a no.
func (s *Streams) Check(ctx context.Context, workspace string) error {
	c, ok := caller.From(ctx)
	if !ok {
		return fmt.Errorf("live: a stream without a caller")
	}
	err := s.Callers.Still(ctx, c, workspace)
	if apierr.Has(err, apierr.ReasonUnauthenticated) || apierr.Has(err, apierr.ReasonWorkspaceNotFound) || apierr.Has(err, apierr.ReasonWorkspaceBeingDeleted) {
		return err
	}
	return nil
}

// Writer writes a stream: each write is flushed and has a deadline of its own.
type Writer struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// Begin sends the header of a stream.
func Begin(w http.ResponseWriter, contentType string) *Writer {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Accel-Buffering", "no") // nginx would keep lines back until it has a page of them
	w.WriteHeader(http.StatusOK)
	return &Writer{w: w, rc: http.NewResponseController(w)}
}

// Write sends b at once. An error means that the client is gone or does not read.
func (s *Writer) Write(b []byte) (int, error) {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, fmt.Errorf("live: set deadline: %w", err)
	}
	n, err := s.w.Write(b)
	if err != nil {
		return n, fmt.Errorf("live: write: %w", err)
	}
	if err := s.rc.Flush(); err != nil {
		return n, fmt.Errorf("live: flush: %w", err)
	}
	return n, nil
}

// Event formats a server-sent event; id and name may be empty. data must not hold line breaks, as
// JSON does not.
func Event(id, name string, data []byte) []byte {
	var b strings.Builder
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	if name != "" {
		fmt.Fprintf(&b, "event: %s\n", name)
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return []byte(b.String())
}

// HeartbeatComment is a server-sent line that clients ignore.
const HeartbeatComment = ": heartbeat\n\n"
