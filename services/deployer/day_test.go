package deployer_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/client"
	"devpilot.io/bitbucket/services/deployer/internal/client/witness"
	"devpilot.io/bitbucket/services/deployer/internal/control"
	"devpilot.io/bitbucket/services/deployer/internal/record"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
	"devpilot.io/bitbucket/services/deployer/internal/worker/decide"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

var (
	dayHours = flag.Int("day.hours", 2, "how many hours the simulated day has")
	dayApps  = flag.Int("day.apps", 50, "how many apps it has, five on each repository")
)

const (
	appsPerRepository = 5
	pushesPerAppDay   = 6
	lostPercent       = 5
	deploymentTakes   = 2 * time.Second
)

// TestDay runs the role api and the decider through simulated hours, in which people push to apps on shared
// repositories and one in twenty deliveries is lost. All of it runs on a clock of its own, on a real NATS;
// Bitbucket, the other services and the deployments are stand-ins. Every push must be live in the end, or a newer one of
// its branch; what was lost must be found within the pause that a relied-on webhook has and the grace that
// a delivery gets; no hour may ask git more often than Bitbucket lets us; and no push costs a REST call.
//
// make day runs a whole day of 1,000 apps on 200 repositories.
func TestDay(t *testing.T) {
	ats.Register() // the server's clock of its files: one goroutine for the process, outside of the bubble
	defer ats.Unregister()
	// NATS has timers that fire at once. Two of a bubble that fire at the same time use one context of the
	// race detector, which then crashes the process: on one processor none fires beside another.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t, *dayApps)
		d.create()
		d.live(time.Duration(*dayHours) * time.Hour)
		d.check()
		d.stop()
	})
}

// pushed is one push of the day.
type pushed struct {
	app  string
	hash string
	at   time.Time
	lost bool
	live time.Time // when it, or a newer one of its app, was
}

// day is an installation on the bubble's clock, and the world around it.
type day struct {
	t       *testing.T
	apps    int
	rnd     *rand.Rand
	nats    *engine.NATS
	js      jetstream.JetStream
	records *record.Records
	control *control.Control
	end     func()
	ended   sync.WaitGroup

	mu       sync.Mutex
	heads    map[string]map[string]string // full name → branch → commit
	watches  map[string]*webhookv1.SetWatchesRequest
	verified map[string]time.Time // repository → when a delivery last came
	pushes   []*pushed
	byHash   map[string]*pushed
	begin    time.Time
	git      map[int]int    // hour → questions
	calls    map[string]int // RPCs that make REST calls, by name
}

func repositoryOf(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }
func nameOf(i int) string       { return fmt.Sprintf("acme/repo-%d", i) }

func newDay(t *testing.T, apps int) *day {
	d := &day{
		t: t, apps: apps, rnd: rand.New(rand.NewPCG(1, 2)), heads: map[string]map[string]string{}, watches: map[string]*webhookv1.SetWatchesRequest{},
		verified: map[string]time.Time{}, byHash: map[string]*pushed{}, git: map[int]int{}, calls: map[string]int{},
	}
	var err error
	if d.nats, err = engine.StartNATS(t.Context(), engine.NATSConfig{StoreDir: testkit.FastDir(t), CanaryInterval: -1}); err != nil {
		t.Fatal(err)
	}
	var nc *nats.Conn
	if nc, d.js, err = stream.Connect("", "day", d.nats.ConnectOption()); err != nil {
		t.Fatal(err)
	}
	log := logs.Discard()
	st, err := store.Open(t.Context(), d.js, log)
	if err != nil {
		t.Fatal(err)
	}
	keyset := testkit.Keyset(t)
	repo := client.Repo{Client: repoOfDay{d: d}}
	clients := client.Clients{
		Auth: client.Auth{Client: authOfDay{}, SiteURL: "https://bitbucket.test"}, Repo: repo, Webhook: client.Webhook{Client: webhookOfDay{d: d}},
		Witness: &witness.Witness{Repositories: repo, Now: time.Now},
	}
	d.records = record.New(record.Config{
		Store: st, JS: d.js, Keyset: keyset, Repositories: repo, Recorder: clients.Webhook, Secrets: deploylog.NewSecrets(), Logger: log, Now: time.Now,
	})
	d.control, err = control.New(control.Config{
		Records: d.records, Clients: clients, JS: d.js, Keyset: keyset, Heads: d, Site: bitbucket.Site{SiteURL: "https://bitbucket.test", APIURL: "https://api.bitbucket.test/2.0"},
		Logger: log, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run := func(name string, fn func(context.Context) error) {
		d.ended.Go(func() {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	run("control", d.control.Run)
	run("fleet", d.records.Fleet.Run)
	run("a worker's signs of life", func(ctx context.Context) error {
		return d.records.Fleet.Beat(ctx, fleet.Worker{Server: fleet.DefaultServer, ID: "w1", Slots: 8, Busy: func() int32 { return 0 }})
	})
	run("deployments", d.deploy)
	decider := decide.New(decide.Config{Server: fleet.DefaultServer, Dispatcher: d.records.Dispatcher, Apps: d.records.Apps, Git: gitOfDay{}, Logger: log, Now: time.Now})
	run("decider", decider.Run)
	run("decisions", func(ctx context.Context) error { return d.decide(ctx, decider) })
	d.end = func() {
		cancel()
		d.ended.Wait()
		nc.Close()
		if err := d.nats.Close(); err != nil {
			t.Error(err)
		}
	}
	d.await("ready", func() error { return errors.Join(d.records.Ready(ctx), d.control.Ready(ctx)) })
	return d
}

func (d *day) stop() { d.end() }

// await waits on the bubble's clock.
func (d *day) await(what string, check func() error) {
	d.t.Helper()
	var err error
	for range 3600 {
		if err = check(); err == nil {
			return
		}
		pass(time.Second)
	}
	d.t.Fatalf("%s: not within an hour: %v", what, err)
}

// create makes the apps, and the first commit of each of their branches.
func (d *day) create() {
	d.t.Helper()
	for i := range d.apps {
		repo, branch := i/appsPerRepository, fmt.Sprintf("branch-%d", i%appsPerRepository)
		d.commit(nameOf(repo), branch)
		_, err := d.control.Uses().Apps.Create(d.t.Context(), &deployerv1.CreateAppRequest{
			Workspace: workspace, AppId: fmt.Sprintf("app-%d", i), App: &deployerv1.App{Repository: repositoryOf(repo), Branch: branch, AutoDeploy: true},
		}, &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_MEMBER, Label: "Jane Developer"})
		if err != nil {
			d.t.Fatalf("create app %d: %v", i, err)
		}
	}
	pass(15 * time.Minute) // what there is has been noted, and deliveries are expected
}

func (d *day) commit(name, branch string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.heads[name] == nil {
		d.heads[name] = map[string]string{}
	}
	hash := fmt.Sprintf("%040x", d.rnd.Uint64())
	d.heads[name][branch] = hash
	return hash
}

func (d *day) head(repository, branch string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var i int
	if _, err := fmt.Sscanf(repository, "00000000-0000-4000-8000-%d", &i); err != nil {
		d.t.Error(err)
	}
	return d.heads[nameOf(i)][branch]
}

// live lets the time go by, with pushes at random moments.
func (d *day) live(length time.Duration) {
	d.t.Helper()
	d.mu.Lock()
	d.begin = time.Now()
	clear(d.calls)
	clear(d.git)
	d.mu.Unlock()
	moments := make([]time.Duration, max(1, int(float64(d.apps*pushesPerAppDay)*length.Hours()/24)))
	for i := range moments {
		moments[i] = time.Duration(d.rnd.Int64N(int64(length)))
	}
	slices.Sort(moments)
	for n, at := range moments {
		pass(time.Until(d.begin.Add(at)))
		i := d.rnd.IntN(d.apps)
		repo, branch := i/appsPerRepository, fmt.Sprintf("branch-%d", i%appsPerRepository)
		p := &pushed{app: fmt.Sprintf("app-%d", i), hash: d.commit(nameOf(repo), branch), at: time.Now(), lost: d.rnd.IntN(100) < lostPercent}
		d.mu.Lock()
		d.pushes = append(d.pushes, p)
		d.byHash[p.hash] = p
		d.mu.Unlock()
		if !p.lost {
			d.deliver(n+1, repo, branch, p.hash)
		}
	}
	pass(time.Until(d.begin.Add(length)))
	pass(30 * time.Minute)
}

// deliver publishes what webhook does when a delivery comes, a second later.
func (d *day) deliver(n, repo int, branch, hash string) {
	d.ended.Go(func() {
		pass(time.Second)
		d.mu.Lock()
		d.verified[repositoryOf(repo)] = time.Now()
		d.mu.Unlock()
		e := &eventsv1.PushEvent{
			Id: fmt.Sprintf("hook-%d.%d.0", repo, n), Workspace: workspace, Repository: repositoryOf(repo), RepositoryFullName: nameOf(repo), Webhook: fmt.Sprintf("hook-%d", repo), Delivery: int32(n), // few
			RefType: eventsv1.PushEvent_BRANCH, Ref: branch, Action: eventsv1.PushEvent_UPDATED, ReceiveTime: timestamppb.Now(), New: &eventsv1.Commit{Hash: hash, Message: "pushed"},
			Actor: &eventsv1.Actor{Kind: eventsv1.Actor_BITBUCKET_ACCOUNT, Label: "Jane Developer"},
		}
		subject, err := stream.PushSubject(e.GetWorkspace(), e.GetRepository())
		if err != nil {
			d.t.Error(err)
			return
		}
		data, err := proto.Marshal(e)
		if err != nil {
			d.t.Error(err)
			return
		}
		if _, err := (stream.Publisher{JS: d.js, Timeout: time.Minute}).Publish(context.Background(), &nats.Msg{Subject: subject, Data: data}); err != nil {
			d.t.Error(err)
		}
	})
}

// check holds the promises, and prints the day.
func (d *day) check() {
	d.t.Helper()
	d.mu.Lock()
	var told, lost []time.Duration
	for _, p := range d.pushes {
		switch {
		case p.live.IsZero():
			d.t.Errorf("%s: a push at %v is not live (lost %v)", p.app, p.at.Sub(d.begin), p.lost)
		case p.lost:
			lost = append(lost, p.live.Sub(p.at))
		default:
			told = append(told, p.live.Sub(p.at))
		}
	}
	most, all := 0, 0
	for _, n := range d.git {
		most, all = max(most, n), all+n
	}
	calls := fmt.Sprint(d.calls)
	rest := 0
	for _, n := range d.calls {
		rest += n
	}
	d.mu.Unlock()
	slices.Sort(told)
	slices.Sort(lost)
	quantile := func(list []time.Duration, q float64) time.Duration {
		if len(list) == 0 {
			return 0
		}
		return list[int(q*float64(len(list)-1))].Round(100 * time.Millisecond)
	}
	d.t.Logf("%d apps, %d repositories, %d hours, %d pushes, %d deliveries lost", d.apps, (d.apps+appsPerRepository-1)/appsPerRepository, *dayHours, len(told)+len(lost), len(lost))
	d.t.Logf("delivered: live after %v, the slowest after %v", quantile(told, 0.5), quantile(told, 1))
	d.t.Logf("lost: live after %v, the slowest after %v", quantile(lost, 0.5), quantile(lost, 1))
	d.t.Logf("git: %d questions, %d in the busiest hour (Bitbucket: 60,000); REST: %d calls %s", all, most, rest, calls)
	const relied = 20 * 30 * time.Second
	if most := relied + relied/10 + time.Minute + time.Minute; quantile(lost, 1) > most {
		d.t.Errorf("the slowest lost push was live after %v, want %v at most", quantile(lost, 1), most)
	}
	if slowest := quantile(told, 1); slowest > 30*time.Second {
		d.t.Errorf("the slowest delivered push was live after %v", slowest)
	}
	if most > 60_000 {
		d.t.Errorf("git was asked %d times in an hour", most)
	}
	if rest > len(lost) { // one that was found has its repository's name proven
		d.t.Errorf("%d pushes cost %d REST calls %s", len(told)+len(lost), rest, calls)
	}
	for i := range d.apps {
		app, err := d.control.Uses().Apps.Get(d.t.Context(), lane.Key{Workspace: workspace, App: fmt.Sprintf("app-%d", i)})
		if err != nil {
			d.t.Fatal(err)
		}
		if app.GetLatest() != nil && app.GetSync().GetState() != deployerv1.Sync_IN_SYNC {
			d.t.Errorf("%s: %v", app.GetId(), app.GetSync())
		}
	}
}

// deploy is the workers: each wake-up runs the lane's deployment, which takes a while and succeeds.
func (d *day) deploy(ctx context.Context) error {
	filter, err := streams.WorkFilter(fleet.DefaultServer)
	if err != nil {
		return err
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: d.js, Stream: streams.WorkStream, Durable: "server-" + fleet.DefaultServer, Filters: []string{filter}, Slots: 8, AckWait: 30 * time.Second, MaxAttempts: 100, Logger: logs.Discard(),
		Handle: func(ctx context.Context, m stream.Msg) error {
			_, workspace, app, err := streams.ParseWorkSubject(m.Subject)
			if err != nil {
				return stream.Park(err.Error())
			}
			return d.handle(ctx, lane.Key{Workspace: workspace, App: app}, m.Sequence)
		},
	})
}

// decide has the worker's decider decide about pushes whose rules need the repository.
func (d *day) decide(ctx context.Context, decider *decide.Decider) error {
	filter, err := streams.DecideFilter(fleet.DefaultServer)
	if err != nil {
		return err
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: d.js, Stream: streams.WorkStream, Durable: "decide-" + fleet.DefaultServer, Filters: []string{filter}, Logger: logs.Discard(),
		Handle: func(_ context.Context, m stream.Msg) error {
			_, workspace, app, err := streams.ParseDecideSubject(m.Subject)
			if err != nil {
				return stream.Park(err.Error())
			}
			decider.Wake(lane.Key{Workspace: workspace, App: app})
			return nil
		},
	})
}

// gitOfDay is what the decider asks of repositories: nothing is turned away.
type gitOfDay struct{}

func (gitOfDay) Changes(context.Context, *storev1.App, policy.Push) (rules.Changes, error) {
	return rules.Changes{Paths: []string{"index.html"}}, nil
}

func (gitOfDay) File(context.Context, *storev1.App, policy.Push, string, int64) ([]byte, error) {
	return nil, policy.ErrNoFile
}

func (d *day) handle(ctx context.Context, k lane.Key, wake uint64) error {
	for {
		var verdict lane.Verdict
		l, err := d.records.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
			verdict = lane.Claim(l, lane.Claimant{Wake: wake, Server: fleet.DefaultServer, Worker: "w1", Now: time.Now()})
			if verdict != lane.Start && verdict != lane.TakeOver {
				return lane.ErrSkip
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := d.records.Dispatcher.Flush(ctx, k, l); err != nil {
			return err
		}
		if verdict != lane.Start && verdict != lane.TakeOver {
			return nil
		}
		epoch, branch := l.GetRunning().GetEpoch(), l.GetRunning().GetJob().GetBranch()
		pass(deploymentTakes)
		a, err := d.records.Apps.App(ctx, k)
		if err != nil {
			return err
		}
		hash := d.head(a.GetRepository(), branch)
		step := func(fn func(l *storev1.Lane) error) error {
			l, err := d.records.Dispatcher.Change(ctx, k, fn)
			if err != nil {
				return err
			}
			return d.records.Dispatcher.Flush(ctx, k, l)
		}
		if err := step(func(l *storev1.Lane) error {
			_, err := lane.FixCommit(l, epoch, a.GetRepository(), &deployerv1.DeploymentCommit{Hash: hash}, hash, time.Now())
			return err
		}); err != nil {
			return err
		}
		if err := step(func(l *storev1.Lane) error {
			return lane.Complete(l, epoch, lane.Result{Now: time.Now(), Directory: hash[:12], Retention: 5})
		}); err != nil {
			return err
		}
		d.wentLive(k.App, hash)
	}
}

// wentLive notes a push as live, and those of its app before it.
func (d *day) wentLive(app, hash string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.byHash[hash]
	if last == nil {
		return
	}
	for _, p := range d.pushes {
		if p.app == app && !p.at.After(last.at) && p.live.IsZero() {
			p.live = time.Now()
		}
	}
}

// pass lets time go by on the bubble's clock, which stands still while anybody works.
func pass(d time.Duration) { <-time.After(d) }
