package deploylog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	stage  = deployerv1.Deployment_SOURCE_CONTROL
	system = deployerv1.LogRecord_SYSTEM
	stdout = deployerv1.LogRecord_STDOUT
)

func newSink(t *testing.T, limits deploylog.Limits) (*deploylog.Sink, *testkit.NATSServer) {
	t.Helper()
	nats := testkit.NATS(t)
	logs, err := stream.Ensure(t.Context(), nats.JS(), streams.Logs, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &deploylog.Sink{JS: nats.JS(), Logs: logs, Secrets: deploylog.NewSecrets(), Limits: limits, Logger: testkit.Logger(t).Logger, Now: time.Now}, nats
}

func name(epoch int64) deploylog.Name {
	return deploylog.Name{Workspace: "acme-inc", App: "web", Number: 7, Generation: 1, Epoch: epoch}
}

func open(t *testing.T, s *deploylog.Sink, epoch int64) *deploylog.Writer {
	t.Helper()
	w, err := s.Open(t.Context(), name(epoch))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func closeLog(t *testing.T, w *deploylog.Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w.Close(ctx)
}

// read returns all lines, checking that they are numbered without gap or repetition.
func read(t *testing.T, s *deploylog.Sink, change func(*deploylog.Request)) []string {
	t.Helper()
	req := deploylog.Request{Workspace: "acme-inc", App: "web", Number: 7, Generation: 1}
	if change != nil {
		change(&req)
	}
	var out []string
	next := int32(0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := s.Read(ctx, req, func(records []*deployerv1.LogRecord) error {
		for _, r := range records {
			if next != 0 && r.GetLine() != next || next == 0 && req.After == 0 && req.Tail == 0 && r.GetLine() != 1 {
				t.Errorf("line %d is numbered %d", next, r.GetLine())
			}
			next = r.GetLine() + 1
			out = append(out, r.GetText())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWriter_linesInOrderAndOnce(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	w := open(t, s, 1)
	for i := range 3000 {
		w.Line(stage, stdout, fmt.Sprintf("line %d %s", i, strings.Repeat("x", 100)))
	}
	w.Line(stage, system, "two\nlines\r\n")
	closeLog(t, w)
	got := read(t, s, nil)
	if len(got) != 3002 || !strings.HasPrefix(got[2999], "line 2999 ") || got[3000] != "two" || got[3001] != "lines" {
		t.Fatalf("%d lines, the last %q", len(got), got[len(got)-2:])
	}
	if tail := read(t, s, func(r *deploylog.Request) { r.Tail = 2 }); fmt.Sprint(tail) != "[two lines]" {
		t.Fatal(tail)
	}
	if rest := read(t, s, func(r *deploylog.Request) { r.After = 3001 }); fmt.Sprint(rest) != "[lines]" {
		t.Fatal(rest)
	}
	if none := read(t, s, func(r *deploylog.Request) { r.Generation = 2 }); len(none) != 0 {
		t.Fatalf("lines of a deleted app: %q", none[0])
	}
}

func TestWriter_replacedAttemptAddsNothing(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	old := open(t, s, 1)
	old.Line(stage, system, "first attempt")
	testkit.Eventually(t, 10*time.Second, func() error {
		if len(read(t, s, nil)) != 1 {
			return errors.New("not written yet")
		}
		return nil
	})
	fresh := open(t, s, 2)
	fresh.Line(stage, system, "second attempt")
	closeLog(t, fresh)
	old.Line(stage, system, "the sleeper wakes up")
	closeLog(t, old)
	late := open(t, s, 1)
	late.Line(stage, system, "and again")
	closeLog(t, late)
	if got := read(t, s, nil); fmt.Sprint(got) != "[first attempt second attempt]" {
		t.Fatalf("%q", got)
	}
}

func TestWriter_cutsAndSaysSo(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{Lines: 10})
	w := open(t, s, 1)
	for i := range 50 {
		w.Line(stage, stdout, fmt.Sprint("out ", i))
	}
	w.Line(stage, system, "Failed: too chatty")
	closeLog(t, w)
	got := read(t, s, nil)
	if len(got) != 12 || !strings.HasPrefix(got[10], "Log cut here") || got[11] != "Failed: too chatty" {
		t.Fatalf("%q", got)
	}
	// The next attempt knows.
	again := open(t, s, 2)
	testkit.Eventually(t, 10*time.Second, func() error {
		again.Line(stage, system, "second attempt")
		if n := len(read(t, s, nil)); n < 13 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	again.Line(stage, stdout, "more output")
	closeLog(t, again)
	if got := read(t, s, nil); strings.Contains(strings.Join(got, "\n"), "more output") {
		t.Fatalf("%q", got)
	}

	// Devpilot's own lines are bounded too.
	third := open(t, s, 3)
	for range 1000 {
		third.Line(stage, system, "talkative")
	}
	closeLog(t, third)
	if n := len(read(t, s, nil)); n < 200 || n > 250 {
		t.Errorf("%d lines", n)
	}

	s2, _ := newSink(t, deploylog.Limits{Bytes: 1000})
	w = open(t, s2, 1)
	for range 20 {
		w.Line(stage, stdout, strings.Repeat("y", 100))
	}
	closeLog(t, w)
	if got := read(t, s2, nil); len(got) != 11 || !strings.HasPrefix(got[10], "Log cut here") {
		t.Fatalf("%d lines", len(got))
	}
}

func TestWriter_masksSecrets(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	const secret = "planted-secret-0123456789"
	s.Secrets.Hide(time.Hour, secret, "x")
	w := open(t, s, 1)
	w.Line(stage, stdout, "before "+secret+" after x")
	w.Line(stage, stdout, strings.Repeat("a", 8190)+secret) // across the place where the line is cut
	w.Line(stage, stdout, "bad \xff utf-8 and \x00")
	closeLog(t, w)
	got := read(t, s, nil)
	if got[0] != "before [redacted] after x" || got[2] != "bad \uFFFD utf-8 and \uFFFD" {
		t.Fatalf("%q", got)
	}
	if strings.Contains(got[1], "planted") || !strings.HasSuffix(got[1], "aa[redacted]") {
		t.Fatalf("%q", got[1][8100:])
	}
}

func TestWriter_hidesADeploymentsOwnSecrets(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	w, other := open(t, s, 1), func() *deploylog.Writer {
		n := name(1)
		n.App = "api"
		w, err := s.Open(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}()
	if short := w.Hide(map[string]seal.Secret{"PASSWORD": seal.NewSecret("hunter2"), "PIN": seal.NewSecret("77")}); fmt.Sprint(short) != "[PIN]" {
		t.Errorf("%q", short)
	}
	w.Line(stage, stdout, "password=hunter2 dXNlcjpodW50ZXIy 77")
	w.Line(stage, system, "hook failed: hunter2")
	other.Line(stage, stdout, "a hunter2 of another app")
	closeLog(t, w)
	closeLog(t, other)
	if got := read(t, s, nil); fmt.Sprint(got) != "[password=[redacted] [redacted] 77 hook failed: [redacted]]" {
		t.Errorf("%q", got)
	}
	if got := read(t, s, func(r *deploylog.Request) { r.App = "api" }); fmt.Sprint(got) != "[a hunter2 of another app]" {
		t.Errorf("%q", got)
	}
}

func TestWriter_waitsForTheStore(t *testing.T) {
	s, nats := newSink(t, deploylog.Limits{})
	w := open(t, s, 1)
	w.Line(stage, system, "one")
	testkit.Eventually(t, 10*time.Second, func() error {
		if len(read(t, s, nil)) != 1 {
			return errors.New("not written yet")
		}
		return nil
	})
	nats.Stop()
	w.Line(stage, system, "while it was away")
	nats.Start()
	w.Line(stage, system, "after")
	closeLog(t, w)
	testkit.Eventually(t, 10*time.Second, func() error { // the connection may break once more
		_, err := s.Logs.Info(t.Context())
		return err
	})
	if got := read(t, s, nil); fmt.Sprint(got) != "[one while it was away after]" {
		t.Fatalf("%q", got)
	}
}

func TestRead_followsToTheEnd(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	w := open(t, s, 1)
	ended := make(chan struct{})
	lines := make(chan string, 100)
	beats := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		done <- s.Read(t.Context(), deploylog.Request{Workspace: "acme-inc", App: "web", Number: 7, Generation: 1, Ended: ended, Every: 50 * time.Millisecond},
			func(records []*deployerv1.LogRecord) error {
				if records == nil {
					beats <- struct{}{}
				}
				for _, r := range records {
					lines <- r.GetText()
				}
				return nil
			})
	}()
	<-beats // quiet, and still there
	w.Line(stage, system, "hello")
	if got := <-lines; got != "hello" {
		t.Fatal(got)
	}
	w.Line(stage, system, "last")
	closeLog(t, w)
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := <-lines; got != "last" {
		t.Fatal(got)
	}
}
