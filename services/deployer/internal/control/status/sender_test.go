package status

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestSender_tellsADeploymentInTwoCalls(t *testing.T) {
	w := newWorld(t)
	stop := w.run(w.sender(func(c *Config) { c.Mask = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") } }))
	w.record(7, func(*deployerv1.Deployment) {})
	w.record(7, func(d *deployerv1.Deployment) { running(d); d.Stage = deployerv1.Deployment_SOURCE_CONTROL })
	w.settled()
	if n := w.calls(); n != 0 {
		t.Errorf("%d calls before the commit was fixed", n)
	}
	w.record(7, running)
	got := w.shows("connection-1", "INPROGRESS")
	if got.Commit != w.commit || got.Name != "Devpilot: web" || got.URL != "https://devpilot.example.com/w/acme/apps/web/deployments/7" || got.Refname != "main" || got.Description != "Deployment #7 is running" {
		t.Errorf("got %+v", got)
	}
	for range 20 { // progress
		w.tell(7)
	}
	w.record(7, completed)
	if got = w.shows("connection-1", "SUCCESSFUL"); got.Description != "Live in 12 s" {
		t.Errorf("got %+v", got)
	}
	for range 5 {
		w.tell(7)
	}
	w.settled()
	if n := w.calls(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
	// Another process that knows nothing of it does not tell it again.
	stop()
	w.run(w.sender(func(c *Config) { c.Mask = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") } }))
	w.tell(7)
	w.settled()
	if n := w.calls(); n != 2 {
		t.Errorf("%d calls after a restart, want 2", n)
	}
	// A redeployment of the same commit takes its place; what a hook printed is masked.
	w.record(8, func(d *deployerv1.Deployment) {
		running(d)
		d.State, d.Error = deployerv1.Deployment_FAILED, &deployerv1.DeploymentError{Message: "login with hunter2 failed"}
	})
	if got = w.shows("connection-1", "FAILED"); got.Description != "Failed: login with *** failed" {
		t.Errorf("got %+v", got)
	}
	// and a late word of the former one changes nothing.
	w.record(7, func(d *deployerv1.Deployment) { d.State = deployerv1.Deployment_CANCELLED })
	w.settled()
	w.shows("connection-1", "FAILED")
	if n := len(w.statuses()); n != 1 {
		t.Errorf("%d statuses, want 1", n)
	}
}

func TestSender_tellsNothingOfWhatNeedsNoTelling(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender())
	for n := int32(1); n <= 200; n++ {
		w.record(n, func(d *deployerv1.Deployment) {
			d.State, d.SupersededBy = deployerv1.Deployment_SUPERSEDED, 201
		})
	}
	// One that found its commit live already leaves the live one's status alone.
	w.record(300, func(d *deployerv1.Deployment) { d.Number = 300; completed(d) })
	w.shows("connection-1", "SUCCESSFUL")
	w.record(301, func(d *deployerv1.Deployment) {
		running(d)
		d.Stage, d.State, d.SupersededBy = deployerv1.Deployment_SOURCE_CONTROL, deployerv1.Deployment_SUPERSEDED, 300
	})
	w.settled()
	for name, change := range map[string]func(){
		"off":          func() { w.app.CommitStatusOff = true },
		"other app":    func() { w.app.Generation = 2 },
		"no app":       func() { w.appErr = apierr.New(apierr.ReasonAppNotFound, "There is no such app.") },
		"disconnected": func() { w.connection = &storev1.Connection{Disconnected: true} },
	} {
		app, connection := proto.CloneOf(w.app), proto.CloneOf(w.connection)
		w.set(change)
		w.record(310, func(d *deployerv1.Deployment) { completed(d) })
		w.settled()
		w.set(func() { w.app, w.connection, w.appErr = app, connection, nil })
		if n := w.calls(); n != 1 {
			t.Errorf("%s: %d calls, want 1", name, n)
		}
	}
	w.shows("connection-1", "SUCCESSFUL")
}

func TestSender_theEndOutlivesTrouble(t *testing.T) {
	w := newWorld(t)
	stop := w.run(w.sender())
	fault, err := w.control.Inject(t.Context(), emulator.Fault{Kind: emulator.FaultServerErrorHTML, Method: "POST", Route: statusRoute, Status: 503})
	if err != nil {
		t.Fatal(err)
	}
	w.record(1, running)
	w.settled() // in progress is not worth waiting
	w.offset.Store(int64(time.Minute))
	w.record(1, completed)
	w.waiting(1)
	if n := w.calls(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
	// Held back now: other deployments of the workspace cost no calls either. One of the same commit
	// makes the first one's end needless.
	w.record(2, completed)
	w.waiting(1)
	if n := w.calls(); n != 2 {
		t.Errorf("%d calls while held back, want 2", n)
	}
	// The process dies and Bitbucket recovers: the next one tells the end.
	stop()
	if err := w.control.RemoveFault(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	w.run(w.sender())
	if got := w.shows("connection-1", "SUCCESSFUL"); !strings.HasSuffix(got.URL, "/deployments/2") {
		t.Errorf("got %+v", got)
	}
	w.settled()
	if n := strings.Count(w.logs.Text(), "handling failed"); n != 0 {
		t.Errorf("%d lines about tries", n)
	}
}

func TestSender_givesUpInTheEnd(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender())
	if _, err := w.control.Inject(t.Context(), emulator.Fault{Kind: emulator.FaultServerErrorHTML, Method: "POST", Route: statusRoute, Status: 500}); err != nil {
		t.Fatal(err)
	}
	w.record(1, completed)
	w.waiting(1)
	w.offset.Store(int64(timeout + time.Minute))
	w.settled()
	if n := strings.Count(w.logs.Text(), "commit status given up"); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
	if n := w.calls(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

func TestSender_aRefusalIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender())
	fault, err := w.control.Inject(t.Context(), emulator.Fault{Method: "POST", Route: statusRoute, Repository: "acme/web", Status: 403})
	if err != nil {
		t.Fatal(err)
	}
	for n := int32(1); n <= 5; n++ {
		w.record(n, func(d *deployerv1.Deployment) {
			completed(d)
			d.Commit.Hash = strings.Repeat(fmt.Sprint(n), 40) // not even the commit is asked for
		})
	}
	w.record(6, completed)
	w.settled()
	calls := w.calls()
	w.record(7, completed)
	w.settled()
	if n := w.calls(); n != calls || n > 6 {
		t.Errorf("%d calls, then %d", calls, n)
	}
	if err := w.control.RemoveFault(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	w.offset.Store(int64(refusedBackoff + time.Second))
	w.record(8, completed)
	w.shows("connection-1", "SUCCESSFUL")
}

func TestSender_aDeadConnectionCostsNoCalls(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender())
	w.set(func() { w.tokenErr = apierr.New(apierr.ReasonReconnectRequired, "Connect again.") })
	for n := int32(1); n <= 10; n++ {
		w.record(n, completed)
	}
	w.settled()
	w.mu.Lock()
	issued := w.issued
	w.mu.Unlock()
	if n := w.calls(); n != 0 || issued < 1 || issued > slots {
		t.Errorf("%d calls, %d tokens asked for", n, issued)
	}
	if n := strings.Count(w.logs.Text(), "commit status refused"); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
	// Connected as somebody else: the refusal was the former connection's.
	w.set(func() { w.tokenErr, w.connection = nil, &storev1.Connection{ConnectionId: "connection-2"} })
	w.record(11, completed)
	w.shows("connection-2", "SUCCESSFUL")
}

func TestSender_aCommitThatWasNotDeployedAfterAllIsNotLeftInProgress(t *testing.T) {
	w := newWorld(t)
	stop := w.run(w.sender())
	w.record(1, running)
	w.shows("connection-1", "INPROGRESS")
	// The worker dies, and the next attempt takes the branch's new head; so does another sender.
	w.record(1, func(d *deployerv1.Deployment) { d.State = deployerv1.Deployment_PENDING })
	w.settled()
	stop()
	former := w.commit
	var err error
	if w.commit, err = w.control.Commit(t.Context(), "acme/web", "main", "Next", map[string]string{"next.txt": "next"}); err != nil {
		t.Fatal(err)
	}
	w.run(w.sender())
	w.record(1, func(d *deployerv1.Deployment) {
		running(d)
		d.Commit.Hash = w.commit
	})
	w.record(1, completed)
	w.settled()
	list, err := w.control.Statuses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, s := range list {
		states[s.Commit] = s.State + ": " + s.Description
	}
	if want := "STOPPED: Deployment #1 went on with " + w.commit[:7]; states[former] != want || states[w.commit] != "SUCCESSFUL: Live in 12 s" {
		t.Errorf("got %v, want %s", states, want)
	}
	if n := w.calls(); n < 3 || n > 4 {
		t.Errorf("%d calls", n)
	}
}

func TestSender_anEndUnderAnotherConnectionHasItsOwnKey(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender())
	w.record(1, running)
	w.shows("connection-1", "INPROGRESS")
	w.set(func() { w.connection = &storev1.Connection{ConnectionId: "connection-2"} })
	w.record(1, completed)
	w.shows("connection-2", "SUCCESSFUL")
	w.shows("connection-1", "INPROGRESS") // nobody but its maker may overwrite it
}

func TestSender_whoeverComesLastTheEndStands(t *testing.T) {
	w := newWorld(t)
	// The first call takes effect late; meanwhile the deployment ends, and another process tells it.
	if _, err := w.control.Inject(t.Context(), emulator.Fault{Kind: emulator.FaultSlow, Method: "POST", Route: statusRoute, Times: 1, Delay: 700 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	first, second := w.sender(), w.sender()
	stop := w.run(first)
	w.record(1, running)
	testkit.Eventually(t, 10*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.issued == 0 {
			return errors.New("no call yet")
		}
		return nil
	})
	w.run(second)
	w.record(1, completed)
	w.tell(1)
	w.settled()
	stop()
	w.shows("connection-1", "SUCCESSFUL")
	if n := w.calls(); n < 2 || n > 3 {
		t.Errorf("%d calls", n)
	}
}

func TestSender_withoutAPublicURLNothingIsSentAndThatIsSaid(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	if reason, message := s.Reason(); reason != "" || message != "" {
		t.Errorf("%s: %s", reason, message)
	}
	s = w.sender(func(c *Config) { c.PublicURL = "http://localhost:8080" })
	reason, message := s.Reason()
	if reason != ReasonNotSent || !strings.Contains(message, "http://localhost:8080 is on localhost") || !strings.Contains(message, "DEVPILOT_PUBLIC_URL") {
		t.Errorf("%s: %s", reason, message)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, w.js) }()
	testkit.Eventually(t, 5*time.Second, func() error {
		if !w.logs.Contains("no commit statuses") {
			return errors.New("not said")
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := w.js.Consumer(t.Context(), stream.EventsStream, Durable); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("a consumer nobody serves: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a Sender of nothing")
	}
}

func TestParseID(t *testing.T) {
	for id, ok := range map[string]bool{"web/7": true, "web/0": false, "web/-1": false, "web/7x": false, "web/07": false, "web": false, "/7": false, "web/": false, "web/99999999999": false} {
		if app, n, got := parseID(id); got != ok || ok && (app != "web" || n != 7) {
			t.Errorf("%q: %s %d %v", id, app, n, got)
		}
	}
}
