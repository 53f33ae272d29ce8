package status

import (
	"context"
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

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

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

func (w *world) Token(context.Context, string, string, seal.Secret) (seal.Secret, error) {
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
		_, err := w.js.Consumer(w.t.Context(), stream.EventsStream, Durable)
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

// waiting waits until every event was handled, and those of so many deployments came again, without an answer.
// One that comes while another of its deployment is looked at is answered: that one looks again.
func (w *world) waiting(deployments int) {
	w.t.Helper()
	w.consumer(func(info *jetstream.ConsumerInfo) bool {
		return info.Delivered.Stream >= w.last && info.NumAckPending >= deployments && info.NumRedelivered == info.NumAckPending
	})
}

func (w *world) consumer(ok func(*jetstream.ConsumerInfo) bool) {
	w.t.Helper()
	testkit.Eventually(w.t, 15*time.Second, func() error {
		c, err := w.js.Consumer(w.t.Context(), stream.EventsStream, Durable)
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
