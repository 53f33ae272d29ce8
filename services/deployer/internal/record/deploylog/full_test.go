package deploylog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
)

// held is a store that takes a message for each leave, or refuses all.
type held struct {
	jetstream.JetStream
	leave  chan struct{}
	refuse atomic.Bool
}

func (h *held) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	if h.refuse.Load() {
		return nil, errors.New("no store")
	}
	<-h.leave
	return h.JetStream.PublishMsg(context.WithoutCancel(ctx), m, opts...)
}

// printMany writes more lines than may wait, and tells when it is done.
func printMany(w *deploylog.Writer) (lines int, done chan struct{}) {
	lines, done = 60_000, make(chan struct{})
	text := strings.Repeat("x", 100)
	go func() {
		defer close(done)
		for i := range lines {
			w.Line(stage, stdout, fmt.Sprintf("%d %s", i, text))
		}
	}()
	return lines, done
}

// Whoever prints faster than the store takes it is slowed, and every line is kept.
func TestWriter_aSlowStoreLosesNoLine(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	h := &held{JetStream: s.JS, leave: make(chan struct{})}
	s.JS = h
	w := open(t, s, 1)
	lines, done := printMany(w)
	for printing := true; printing; { // the store takes a message only while no more may wait
		testkit.Eventually(t, time.Minute, func() error {
			select {
			case <-done:
				printing = false
				return nil
			default:
			}
			if !w.Full() {
				return errors.New("there is room")
			}
			return nil
		})
		if printing {
			h.leave <- struct{}{}
		}
	}
	close(h.leave)
	closeLog(t, w)
	got := read(t, s, nil)
	if len(got) != lines {
		t.Fatalf("%d lines of %d are there", len(got), lines)
	}
	for i, line := range got {
		if !strings.HasPrefix(line, fmt.Sprintf("%d x", i)) {
			t.Fatalf("line %d is %.20q", i, line)
		}
	}
}

// A store that is away holds nobody up: what does not fit is left out, and the log says so.
func TestWriter_aStoreThatIsAwayHoldsNobodyUp(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	h := &held{JetStream: s.JS, leave: make(chan struct{})}
	close(h.leave)
	h.refuse.Store(true)
	s.JS = h
	w := open(t, s, 1)
	lines, done := printMany(w)
	<-done // it would never be if it waited
	h.refuse.Store(false)
	testkit.Eventually(t, time.Minute, func() error {
		if w.Full() {
			return errors.New("not stored yet")
		}
		return nil
	})
	w.Line(stage, stdout, "after")
	closeLog(t, w)
	got := read(t, s, nil)
	if len(got) >= lines || got[len(got)-1] != "after" || !strings.HasPrefix(got[len(got)-2], "Lines are missing here") {
		t.Fatalf("%d lines, the last %.60q", len(got), got[max(0, len(got)-2):])
	}
}

// A log that is closed while somebody waits for room lets him go.
func TestWriter_closeEndsTheWaitForRoom(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	h := &held{JetStream: s.JS, leave: make(chan struct{})}
	s.JS = h
	w := open(t, s, 1)
	_, done := printMany(w)
	testkit.Eventually(t, time.Minute, func() error {
		if !w.Full() {
			return errors.New("there is room")
		}
		return nil
	})
	h.refuse.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	close(h.leave)
	w.Close(ctx)
	<-done
}
