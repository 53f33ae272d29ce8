package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	workspace    = "acme-inc"
	repoID       = "85d08b4e-571d-44e9-a507-fa476535aa98"
	plantedToken = "planted+access/token=0123456789-abcdefghijklmnop"
	timeout      = 30 * time.Second
)

// bench is a deployer with the services it calls faked, a NATS server and a git server.
type bench struct {
	t       *testing.T
	nats    *testkit.NATSServer
	git     *gittest.Server
	repo    *gittest.Repo
	world   *world
	keys    *identity.Keys
	keyset  deployer.Deps
	cfg     deployer.Config
	logs    *testkit.Logs
	client  deployerv1.DeployerServiceClient
	member  context.Context
	admin   context.Context
	events  int32
	stopOne func()
	ready   func() // waits until what was begun is ready
}

func newBench(t *testing.T, change ...func(*deployer.Config)) *bench {
	t.Helper()
	return newBenchOf(t, func(*deployer.Deps) {}, change...)
}

// newBenchOf is newBench with other things to depend on.
func newBenchOf(t *testing.T, depend func(*deployer.Deps), change ...func(*deployer.Config)) *bench {
	t.Helper()
	t.Parallel()
	b := &bench{t: t, nats: testkit.NATS(t), git: gittest.New(t, plantedToken), keys: testkit.Keys(t), logs: testkit.Logger(t)}
	b.repo = b.git.Repo("acme/web")
	b.world = &world{
		t: t, git: b.git, token: plantedToken, connection: "c1", state: authv1.Integration_CONNECTED, repositories: map[string]string{repoID: "acme/web"},
		unreachable: map[string]bool{}, hooks: map[string]*webhookv1.Webhook{}, watches: map[string]*webhookv1.SetWatchesRequest{},
	}
	b.cfg = deployer.Config{
		SiteURL: b.git.URL.String(), APIURL: b.git.URL.String() + "/2.0", API: true, Worker: true, Server: "default", Slots: 2,
		DataDir: t.TempDir(), CacheDir: t.TempDir(), Version: "test", ReconcileInterval: time.Hour, Lease: 2 * time.Second,
		DrainTimeout: 5 * time.Second, Heartbeat: 100 * time.Millisecond, Hooks: deployer.Hooks{Network: "none"},
		RetryBackoff: func(int32, string) time.Duration { return 200 * time.Millisecond },
	}
	for _, fn := range change {
		fn(&b.cfg)
	}
	auth, repo, hook := fakeClients(t, b.keys, b.world)
	b.keyset = deployer.Deps{Logger: b.logs.Logger, JS: b.nats.JS(), Keyset: testkit.Keyset(t), Auth: auth, Repo: repo, Webhook: hook}
	depend(&b.keyset)
	b.signIn()
	b.start()
	return b
}

// start runs a deployer process, serves it, and waits until it is ready.
func (b *bench) start() {
	b.t.Helper()
	b.begin()
	b.ready()
}

// begin is start without the wait.
func (b *bench) begin() {
	b.t.Helper()
	s, err := deployer.New(b.cfg, b.keyset)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	b.stopOne = func() {
		once.Do(func() {
			s.Drain()
			cancel()
			if err := <-done; err != nil {
				b.t.Errorf("run: %v", err)
			}
		})
	}
	b.t.Cleanup(b.stopOne)
	b.ready = func() { testkit.Eventually(b.t, timeout, func() error { return s.Ready(ctx) }) }
	b.client = deployerv1.NewDeployerServiceClient(testkit.ServeGRPC(b.t, testkit.GRPCConfig{
		Service: "deployer", Keys: b.keys, Policy: deployer.Policy, Register: s.Register,
	}).Dial("gateway"))
}

func (b *bench) create(id string, app *deployerv1.App) *deployerv1.App {
	b.t.Helper()
	resp, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: id, App: app})
	if err != nil {
		b.t.Fatalf("create %s: %v", id, err)
	}
	b.firstPoll(app.GetRepository())
	return resp.GetApp()
}

// firstPoll waits until a repository's first poll has begun, which comes soon after its first app was created: what
// a test does later is then told by deliveries, or by the polls that it asks for.
func (b *bench) firstPoll(repository string) {
	b.t.Helper()
	testkit.Eventually(b.t, timeout, func() error {
		states, err := b.nats.JS().KeyValue(b.t.Context(), "deployer-reconcile")
		if err == nil {
			_, err = states.Get(b.t.Context(), workspace+"."+repository)
		}
		return err
	})
}

func web(auto bool) *deployerv1.App {
	return &deployerv1.App{Repository: repoID, Branch: "main", AutoDeploy: auto}
}

// deliver publishes a push event, as webhook does, and returns the delivery's number.
func (b *bench) deliver(change func(*eventsv1.PushEvent)) int32 {
	b.t.Helper()
	b.events++
	e := &eventsv1.PushEvent{
		Id: fmt.Sprintf("hook-1.%d.0", b.events), Workspace: workspace, Repository: repoID, RepositoryFullName: "acme/web", Webhook: "hook-1", Delivery: b.events,
		RefType: eventsv1.PushEvent_BRANCH, Ref: "main", Action: eventsv1.PushEvent_UPDATED, ReceiveTime: timestamppb.Now(),
		Actor: &eventsv1.Actor{Kind: eventsv1.Actor_BITBUCKET_ACCOUNT, Label: "Jane Developer"},
	}
	if head := b.repo.Head("main"); head != "" {
		e.New = &eventsv1.Commit{Hash: head, Message: "pushed"}
	}
	if change != nil {
		change(e)
	}
	b.publish(e)
	return e.GetDelivery()
}

func (b *bench) publish(e *eventsv1.PushEvent) {
	b.t.Helper()
	subject, err := stream.PushSubject(e.GetWorkspace(), e.GetRepository())
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := proto.Marshal(e)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := (stream.Publisher{JS: b.keyset.JS, Timeout: timeout}).Publish(b.t.Context(), &nats.Msg{Subject: subject, Data: data}); err != nil {
		b.t.Fatal(err)
	}
}

// push commits and delivers.
func (b *bench) push(content string) (hash string, delivery int32) {
	b.t.Helper()
	hash = b.repo.Commit("main", content, map[string]string{"index.html": content})
	return hash, b.deliver(nil)
}

func (b *bench) deployment(app string, number int32) (*deployerv1.Deployment, error) {
	resp, err := b.client.GetDeployment(b.member, &deployerv1.GetDeploymentRequest{Workspace: workspace, App: app, Number: number})
	return resp.GetDeployment(), err
}

// await waits until a deployment is in a state.
func (b *bench) await(app string, number int32, state deployerv1.Deployment_State) *deployerv1.Deployment {
	b.t.Helper()
	var d *deployerv1.Deployment
	testkit.Eventually(b.t, timeout, func() (err error) {
		if d, err = b.deployment(app, number); err != nil {
			return err
		}
		if d.GetState() != state {
			return fmt.Errorf("deployment %d of %s is %v: %v %v", number, app, d.GetState(), d.GetError(), d.GetWaitingFor())
		}
		return nil
	})
	return d
}

func (b *bench) live(app string) string {
	c, err := os.ReadFile(filepath.Join(b.cfg.DataDir, "apps", workspace, app, "current", "index.html"))
	if err != nil {
		return err.Error()
	}
	return string(c)
}

func (b *bench) get(app string) *deployerv1.App {
	b.t.Helper()
	resp, err := b.client.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: app})
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.GetApp()
}

func (b *bench) awaitSaid(delivery int32, words string) {
	b.t.Helper()
	testkit.Eventually(b.t, timeout, func() error {
		if said := b.world.said(delivery); !contains(said, words) {
			return fmt.Errorf("delivery %d: %q, want %q", delivery, said, words)
		}
		return nil
	})
}

// signIn gives the test's people their identities.
func (b *bench) signIn() {
	t := b.t
	b.member = testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: workspace, Role: identity.RoleMember})
	b.admin = testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: workspace, Role: identity.RoleAdmin})
}

func hasWarning(a *deployerv1.App, reason string) bool {
	for _, w := range a.GetWarnings() {
		if w.GetReason() == reason && w.GetMessage() != "" {
			return true
		}
	}
	return false
}

func (b *bench) wantReason(err error, r apierr.Reason) {
	b.t.Helper()
	if !apierr.Has(err, r) {
		b.t.Fatalf("got %v (%v), want %v", apierr.ReasonOf(err), err, r)
	}
}

// log reads a log to its end.
func (b *bench) log(app string, number int32, req *deployerv1.ReadLogRequest) (string, deployerv1.Deployment_State) {
	b.t.Helper()
	records, end := b.records(app, number, req)
	var text strings.Builder
	for _, r := range records {
		fmt.Fprintf(&text, "%s\n", r.GetText())
	}
	return text.String(), end
}

// records reads the records of a log to its end.
func (b *bench) records(app string, number int32, req *deployerv1.ReadLogRequest) ([]*deployerv1.LogRecord, deployerv1.Deployment_State) {
	b.t.Helper()
	req.Workspace, req.App, req.Number = workspace, app, number
	ctx, cancel := context.WithTimeout(b.member, timeout)
	defer cancel()
	in, err := b.client.ReadLog(ctx, req)
	if err != nil {
		b.t.Fatal(err)
	}
	var records []*deployerv1.LogRecord
	next := int32(0)
	for {
		resp, err := in.Recv()
		if err != nil {
			b.t.Fatalf("log cut after %v: %v", records, err)
		}
		for _, r := range resp.GetRecords() {
			if next != 0 && r.GetLine() != next {
				b.t.Errorf("line %d where %d should be", r.GetLine(), next)
			}
			next = r.GetLine() + 1
			records = append(records, r)
		}
		if resp.GetEnd() != nil {
			if _, err := in.Recv(); !errors.Is(err, io.EOF) {
				b.t.Errorf("after the end: %v", err)
			}
			return records, resp.GetEnd().GetState()
		}
	}
}
