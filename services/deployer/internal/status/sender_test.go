package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

const statusRoute = "/2.0/repositories/{workspace}/{repository}/commit/{commit}/statuses/build"

// world is an emulated Bitbucket, a NATS server, and the deployer's records in memory.
type world struct {
	t       *testing.T
	js      jetstream.JetStream
	control *emulator.Control
	client  *bitbucket.Client
	logs    *testkit.Logs
	token   seal.Secret
	commit  string
	offset  atomic.Int64 // of the clock

	mu         sync.Mutex
	records    map[string]*storev1.Deployment
	app        *storev1.App
	appErr     error
	connection *storev1.Connection
	tokenErr   error
	issued     int

	last uint64 // the last event's sequence
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server, err := emulator.Start("127.0.0.1:0", emulator.Options{Scenario: "sample", DataDir: testkit.FastDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close emulator: %v", err)
		}
	})
	site, err := bitbucket.NewSite(server.SiteURL(), server.APIURL())
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Client{Transport: bitbucket.NewTransport()}
	t.Cleanup(h.CloseIdleConnections)
	w := &world{
		t: t, js: testkit.JS(t), control: server.Control(), client: bitbucket.NewClient(site, bitbucket.ClientOptions{HTTPClient: h}),
		logs: testkit.Logger(t), records: map[string]*storev1.Deployment{}, connection: &storev1.Connection{ConnectionId: "connection-1"},
	}
	if _, err := stream.Ensure(t.Context(), w.js, stream.Events, stream.Options{Logger: w.logs.Logger}); err != nil {
		t.Fatal(err)
	}
	pair, err := w.control.IssueTokens(t.Context(), "jane-dev")
	if err != nil {
		t.Fatal(err)
	}
	w.token = seal.NewSecret(pair.AccessToken)
	refs, err := w.control.Refs(t.Context(), "acme/web")
	if err != nil {
		t.Fatal(err)
	}
	w.commit = refs["refs/heads/main"]
	repositories, err := w.control.Repositories(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range repositories {
		if r.FullName == "acme/web" {
			w.app = &storev1.App{Workspace: "acme", Id: "web", Repository: bitbucket.NormalizeUUID(r.UUID), Generation: 1}
		}
	}
	if w.app == nil {
		t.Fatal("the sample has no acme/web")
	}
	t.Cleanup(func() { w.logs.MustNotContain(t, pair.AccessToken) })
	return w
}

func (w *world) Token(context.Context, string, seal.Secret) (seal.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issued++
	return w.token, w.tokenErr
}

func (w *world) App(context.Context, lane.Key) (*storev1.App, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return proto.CloneOf(w.app), w.appErr
}

func (w *world) Index(context.Context, string, string) (*storev1.RepositoryIndex, error) {
	return &storev1.RepositoryIndex{FullName: "acme/web"}, nil
}

// records and connections implement the interfaces whose methods share a name.
type records struct{ *world }

func (r records) Get(_ context.Context, key string) (*storev1.Deployment, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec, ok := r.records[key]; ok {
		return proto.CloneOf(rec), 1, nil
	}
	return nil, 0, kv.ErrNotFound
}

type connections struct{ *world }

func (c connections) Get(context.Context, string) (*storev1.Connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return proto.CloneOf(c.connection), nil
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) sender(change ...func(*Config)) *Sender {
	w.t.Helper()
	cfg := Config{
		Client: w.client, Tokens: w, Records: records{w}, Apps: w, Connections: connections{w}, PublicURL: "https://devpilot.example.com/",
		Retry: 150 * time.Millisecond, Logger: w.logs.Logger, Now: func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) },
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// run runs a sender until the returned function is called, at the latest until the test ends.
func (w *world) run(s *Sender) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, w.js) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("run: %v", err)
			}
		case <-time.After(2 * time.Minute):
			w.t.Error("the sender does not stop")
		}
	})
	w.t.Cleanup(stop)
	testkit.Eventually(w.t, 10*time.Second, func() error {
		_, err := w.js.Consumer(w.t.Context(), stream.EventsStream, durable)
		return err
	})
	return stop
}

// record changes a deployment's record and tells of it.
func (w *world) record(number int32, change func(*deployerv1.Deployment)) {
	w.t.Helper()
	key := lane.Key{Workspace: "acme", App: "web"}.Record(number)
	w.set(func() {
		rec := proto.CloneOf(w.records[key])
		if rec == nil {
			rec = &storev1.Deployment{Generation: 1, Deployment: &deployerv1.Deployment{
				Number: number, State: deployerv1.Deployment_PENDING, Branch: "main", Commit: &deployerv1.DeploymentCommit{Hash: w.commit},
			}}
		}
		change(rec.GetDeployment())
		w.records[key] = rec
	})
	w.tell(number)
}

func (w *world) tell(number int32) {
	w.t.Helper()
	data, err := proto.Marshal(&eventsv1.ChangeEvent{Service: "deployer", Workspace: "acme", Kind: "deployment", Id: fmt.Sprintf("web/%d", number)})
	if err != nil {
		w.t.Fatal(err)
	}
	subject, err := stream.EventSubject("deployer", "acme", "deployment")
	if err != nil {
		w.t.Fatal(err)
	}
	ack, err := w.js.Publish(w.t.Context(), subject, data)
	if err != nil {
		w.t.Fatal(err)
	}
	w.last = ack.Sequence
}

func running(d *deployerv1.Deployment) {
	d.State, d.Stage, d.StartTime = deployerv1.Deployment_PROCESSING, deployerv1.Deployment_POST_SETUP, timestamppb.Now()
}

func completed(d *deployerv1.Deployment) {
	if d.GetStartTime() == nil {
		d.StartTime = timestamppb.Now()
	}
	d.State, d.Stage, d.EndTime = deployerv1.Deployment_COMPLETED, deployerv1.Deployment_POST_RELEASE, timestamppb.New(d.GetStartTime().AsTime().Add(12*time.Second))
}

// statuses are those at Bitbucket, by key.
func (w *world) statuses() map[string]emulator.BuildStatus {
	w.t.Helper()
	list, err := w.control.Statuses(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]emulator.BuildStatus{}
	for _, s := range list {
		out[s.Key] = s
	}
	return out
}

// calls counts the requests that set a status.
func (w *world) calls() (n int) {
	w.t.Helper()
	list, err := w.control.Requests(w.t.Context(), 0, "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range list {
		if r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/statuses/build") {
			n++
		}
	}
	return n
}

// shows waits for a state under the key of a connection.
func (w *world) shows(connection, state string) emulator.BuildStatus {
	w.t.Helper()
	var got emulator.BuildStatus
	testkit.Eventually(w.t, 15*time.Second, func() error {
		if got = w.statuses()[Key(lane.Key{Workspace: "acme", App: "web"}, connection)]; got.State != state {
			return fmt.Errorf("the status is %+v, not %s", got, state)
		}
		return nil
	})
	return got
}

// settled waits until every event is answered.
func (w *world) settled() {
	w.t.Helper()
	w.consumer(func(info *jetstream.ConsumerInfo) bool {
		return info.AckFloor.Stream >= w.last && info.NumAckPending == 0
	})
}

// waiting waits until every event was looked at, and n of them came again, without an answer.
func (w *world) waiting(n int) {
	w.t.Helper()
	w.consumer(func(info *jetstream.ConsumerInfo) bool {
		return info.Delivered.Stream >= w.last && info.NumAckPending == n && info.NumRedelivered == n
	})
}

func (w *world) consumer(ok func(*jetstream.ConsumerInfo) bool) {
	w.t.Helper()
	testkit.Eventually(w.t, 15*time.Second, func() error {
		c, err := w.js.Consumer(w.t.Context(), stream.EventsStream, durable)
		if err != nil {
			return err
		}
		info, err := c.Info(w.t.Context())
		if err == nil && !ok(info) {
			err = fmt.Errorf("of %d events %+v are delivered, %+v answered, %d wait, %d came again", w.last, info.Delivered, info.AckFloor, info.NumAckPending, info.NumRedelivered)
		}
		return err
	})
}

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
	if got = w.shows("connection-1", "FAILED"); got.Description != "Failed in POST_SETUP: login with *** failed" {
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
	w.offset.Store(int64(patience + time.Minute))
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
	if err := w.control.SetPermission(t.Context(), "acme/web", "jane-dev", "read"); err != nil {
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
	if err := w.control.SetPermission(t.Context(), "acme/web", "jane-dev", "admin"); err != nil {
		t.Fatal(err)
	}
	w.offset.Store(int64(refusedHold + time.Second))
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
	if want := "STOPPED: Deployment #1 went on with " + w.commit[:10]; states[former] != want || states[w.commit] != "SUCCESSFUL: Live in 12 s" {
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
	if _, err := w.js.Consumer(t.Context(), stream.EventsStream, durable); !errors.Is(err, jetstream.ErrConsumerNotFound) {
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
