package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/control/janitor"
	"devpilot.io/bitbucket/services/deployer/internal/control/router"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/worker/decide"
	"devpilot.io/bitbucket/services/deployer/internal/worker/pipeline"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

const (
	modelWorkspace  = "acme-inc"
	modelRepository = "85d08b4e-571d-44e9-a507-fa476535aa98"
	modelLease      = 150 * time.Millisecond
	modelPushes     = 2500
	modelApps       = 4
)

// TestModel_everyPushEndsOnceAndTheLastIsLive drives the real router, lanes, pipeline, release
// directories and janitor with thousands of pushes, while workers of two deployers die between any
// two writes, sleep longer than their wake-up is theirs, and messages come twice. Stores and
// queues are in memory and die with nobody.
func TestModel_everyPushEndsOnceAndTheLastIsLive(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := newModel(t, seed)
	m.candidates = true
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 { // deployers
		deployer := m.deployer(nil)
		for range 2 {
			wg.Go(func() { m.pushes.consume(ctx, m, deployer.route) })
			wg.Go(func() { m.work.consume(ctx, m, deployer.handle) })
			wg.Go(func() { m.decide.consume(ctx, m, deployer.decide) })
		}
		wg.Go(func() { m.schedule(ctx, deployer) })
		wg.Go(func() { _ = deployer.worker.Run(ctx) })
	}
	m.push()
	m.awaitIdle()
	m.pushUntilSpared()
	cancel()
	wg.Wait()
	m.check()
}

// crash is how a simulated process dies.
type crash struct{}

type model struct {
	t     *testing.T
	calm  bool           // nobody dies, nobody sleeps
	dieAt int64          // of a calm model: the write before which somebody dies once; 0: nobody
	steps atomic.Int64   // so many times somebody could have died
	hooks sandbox.Runner // of its workers
	// hookLines are what the product itself says of hooks; nil keeps none.
	hookLines *[]string
	// candidates says that the rules of half of the apps need the repository.
	candidates bool
	rnd        *lockedRand
	lanes      *memory[storev1.Lane, *storev1.Lane]
	records    *memory[storev1.Deployment, *storev1.Deployment]
	pushes     *queue
	work       *queue
	decide     *queue
	due        sync.Map // lane.Key -> time.Time
	dir        string
	pushed     int // so many were made

	mu       sync.Mutex
	heads    map[string]string          // app -> head of its branch
	outcomes map[string]map[int32]bool  // event -> numbers
	switches map[string][]int64         // app -> epochs that switched
	events   map[string]map[string]bool // app -> events
	crashes  atomic.Int64
	stalls   atomic.Int64
	stale    atomic.Int64
	looked   atomic.Int64 // pushes whose changes were asked for
	unread   atomic.Int64 // and those that got no answer
	runs     atomic.Int64
	spares   atomic.Int64  // that were begun with
	short    func() bool   // if set: whether the disk is short
	copying  chan struct{} // if set: copies are begun by a receive, and end only with their context
	changes  sync.Map      // commit -> the path that it changes; site/index.html where there is none
}

type lockedRand struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (r *lockedRand) n(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.IntN(n)
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rnd: &lockedRand{r: rand.New(rand.NewPCG(seed, 1))}, dir: memoryDir(t), heads: map[string]string{}, outcomes: map[string]map[int32]bool{},
		switches: map[string][]int64{}, events: map[string]map[string]bool{},
		lanes: newMemory[storev1.Lane](), records: newMemory[storev1.Deployment](), pushes: newQueue(), work: newQueue(), decide: newQueue(),
	}
	for i := range modelApps {
		l := &storev1.Lane{}
		lane.Begin(l)
		if _, err := m.lanes.Create(t.Context(), m.key(i).String(), l); err != nil {
			t.Fatal(err)
		}
		m.events[m.key(i).App] = map[string]bool{}
	}
	return m
}

// memoryDir is a directory in memory where there is one: the model makes hundreds of releases, and
// each is written to disk before it goes live.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "releases-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// modelReserve is what hooks must leave free on the disk, in bytes.
const modelReserve = 16 << 20

func (m *model) key(i int) lane.Key {
	return lane.Key{Workspace: modelWorkspace, App: fmt.Sprintf("a%d", i)}
}

// fault lets the process die here, now and then.
func (m *model) fault() {
	if step := m.steps.Add(1); m.calm && step == m.dieAt || !m.calm && m.rnd.n(150) == 0 {
		m.crashes.Add(1)
		panic(crash{})
	}
}

// push moves branches and delivers events about it, in bursts.
func (m *model) push() {
	for i := range modelPushes {
		m.pushOne(i)
		if i%25 == 0 {
			pause(8 * time.Millisecond) // pushes come in bursts
		}
	}
}

// pushUntilSpared pushes on, now and then, until a deployment begins with a spare: on a busy machine
// no app stands still for long enough to get one before.
func (m *model) pushUntilSpared() {
	spares := filepath.Join(m.dir, "apps", modelWorkspace, "*", "releases", ".spare", "manifest")
	for deadline := time.Now().Add(5 * time.Minute); m.spares.Load() == 0 && time.Now().Before(deadline); {
		for range 100 { // if its making dies there is none, until another deployment has ended
			if made, _ := filepath.Glob(spares); len(made) == modelApps {
				break
			}
			pause(10 * time.Millisecond)
		}
		for range modelApps {
			m.pushOne(m.pushed)
		}
		m.awaitIdle()
	}
}

// pushOne moves a branch and delivers the event about it, at times twice.
func (m *model) pushOne(i int) {
	k := m.key(m.rnd.n(modelApps))
	hash := fmt.Sprintf("%040x", i+1)
	if m.rnd.n(10) == 0 { // back to a commit that was there before
		hash = fmt.Sprintf("%040x", max(1, i-m.rnd.n(5)))
	}
	id := fmt.Sprintf("hook.%d.0", i)
	m.mu.Lock()
	m.heads[k.App] = hash
	m.events[k.App][id] = true
	m.mu.Unlock()
	e := &eventsv1.PushEvent{
		Id: id, Workspace: modelWorkspace, Repository: modelRepository, Webhook: "hook", Delivery: int32(i), RefType: eventsv1.PushEvent_BRANCH,
		Ref: k.App, Action: eventsv1.PushEvent_UPDATED, New: &eventsv1.Commit{Hash: hash}, ReceiveTime: timestamppb.Now(),
	}
	for range 1 + m.rnd.n(5)/4 {
		m.pushes.publish("", e)
	}
	m.pushed = i + 1
}

// pause lets simulated time pass; nothing is synchronised by it.
func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// process is one deployer.
type process struct {
	m          *model
	dispatcher *lane.Dispatcher
	router     *router.Router
	worker     *pipeline.Worker
	janitor    *janitor.Janitor
	decider    *decide.Decider
}

func (m *model) deployer(gate func()) *process { return m.deployerWith(gate, modelAppsReader{m}) }

func (m *model) deployerWith(gate func(), apps pipeline.Apps) *process {
	releases, err := release.Open(m.t.Context(), m.dir, "default")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = releases.Close() })
	p := &process{m: m}
	p.dispatcher = &lane.Dispatcher{Lanes: faultyLanes{m}, Records: faultyRecords{m}, Alarm: modelAlarm{m}, Waker: modelWaker{m}, Teller: modelTeller{m}}
	p.router = &router.Router{Apps: modelAppsReader{m}, Connections: modelConnections{}, Outcomes: modelOutcomes{m}, Dispatcher: p.dispatcher, Logger: logs.Discard(), Now: time.Now}
	p.worker = pipeline.New(pipeline.Config{
		Server: "default", Worker: "w", SiteURL: "https://bitbucket.test", Dispatcher: p.dispatcher, Apps: apps, Source: modelSource{m},
		Releases: faultyReleases{m, releases, gate}, Announce: faultyReleases{m, releases, nil}.Announce, Logs: modelLogs{m.hookLines}, Records: m.records, Lanes: m.lanes, Alarm: modelAlarm{m}, Observe: modelObserver{m},
		Logger: logs.Discard(), Now: time.Now, Backoff: func(int32, string) time.Duration { return 10 * time.Millisecond }, ClaimTimeout: 2 * time.Second, Hooks: m.hooks, DiskReserve: modelReserve,
		Policy: decide.Rules{Git: modelGit{m}, Now: time.Now},
	})
	p.decider = decide.New(decide.Config{Server: "default", Dispatcher: p.dispatcher, Apps: modelAppsReader{m}, Git: modelGit{m}, Logger: logs.Discard(), Now: time.Now})
	p.janitor = &janitor.Janitor{Dispatcher: p.dispatcher, Work: modelQueues{m}, Logs: m.work, Deployments: m.records, Apps: modelAppsReader{m}, Logger: logs.Discard(), Now: time.Now}
	return p
}

func (p *process) route(ctx context.Context, msg *message) error {
	e, ok := msg.body.(*eventsv1.PushEvent)
	if !ok {
		return errors.New("not an event")
	}
	return p.router.Route(ctx, e)
}

func (p *process) handle(ctx context.Context, msg *message) error {
	k := lane.Key{Workspace: modelWorkspace, App: msg.subject}
	return p.worker.Handle(context.WithValue(ctx, messageKey{}, msg), k, pipeline.Wakeup{Sequence: msg.seq})
}

// decide takes the wake-up as the worker does: it is gone at once, whatever becomes of the decision. As in
// the decider itself, what a process leaves undone at its own end is no failure: its delivery may have come
// to another meanwhile, which decided.
func (p *process) decide(ctx context.Context, msg *message) error {
	k := lane.Key{Workspace: modelWorkspace, App: msg.subject}
	err, _ := p.m.survive(func() error { return p.decider.Decide(context.WithValue(ctx, messageKey{}, msg), k) })
	if err != nil && ctx.Err() == nil {
		p.m.t.Errorf("decide about %s: %v", k, err)
	}
	return nil
}

type messageKey struct{}

// schedule handles lanes whose time has come.
func (m *model) schedule(ctx context.Context, p *process) {
	for ctx.Err() == nil {
		m.due.Range(func(key, at any) bool {
			k, _ := key.(lane.Key)
			if at.(time.Time).After(time.Now()) {
				return true
			}
			m.survive(func() error {
				next, err := p.janitor.Handle(ctx, k.Workspace, k.App, 1)
				switch {
				case err != nil:
					return err
				case next.IsZero():
					m.due.CompareAndDelete(k, at)
				case next.After(time.Now().Add(200 * time.Millisecond)): // the model's clock is fast
					m.due.CompareAndSwap(k, at, time.Now().Add(200*time.Millisecond))
				}
				return nil
			})
			return true
		})
		pause(20 * time.Millisecond)
	}
}

// survive runs fn and swallows the death of its process.
func (m *model) survive(fn func() error) (err error, died bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			died = true
		}
	}()
	return fn(), false
}

// idle tells whether there is nothing left to do.
func (m *model) idle() bool {
	idle := m.pushes.len() == 0 && m.work.len() == 0 && m.decide.len() == 0
	for i := range modelApps {
		l, _, err := m.lanes.Get(m.t.Context(), m.key(i).String())
		if err != nil {
			m.t.Fatal(err)
		}
		idle = idle && !lane.HasWork(l) && !l.GetArmed()
	}
	return idle
}

func (m *model) awaitIdle() {
	deadline := time.Now().Add(5 * time.Minute)
	for {
		if m.idle() {
			return
		}
		if time.Now().After(deadline) {
			for i := range modelApps {
				l, _, _ := m.lanes.Get(m.t.Context(), m.key(i).String())
				m.t.Logf("%s: running %v waiting %v hold %v outbox %d armed %v", m.key(i), l.GetRunning(), l.GetWaiting(), l.GetHold(), len(l.GetOutbox()), l.GetArmed())
			}
			m.t.Fatalf("not idle: %d pushes, %d wake-ups left", m.pushes.len(), m.work.len())
		}
		pause(10 * time.Millisecond)
	}
}

func (m *model) check() {
	t := m.t
	states := map[deployerv1.Deployment_State]int{}
	for i := range modelApps {
		k := m.key(i)
		l, _, err := m.lanes.Get(t.Context(), k.String())
		if err != nil {
			t.Fatal(err)
		}
		m.checkApp(k, l, states)
	}
	for id, numbers := range m.outcomes {
		if len(numbers) != 1 {
			t.Errorf("event %s made %d deployments: %v", id, len(numbers), numbers)
		}
	}
	if len(m.outcomes) != m.pushed {
		t.Errorf("%d of %d pushes have an outcome", len(m.outcomes), m.pushed)
	}
	t.Logf("%d pushes, %v; %d runs, %d crashes, %d stalls, %d stale attempts fenced off, %d begun with a spare", m.pushed, states, m.runs.Load(), m.crashes.Load(), m.stalls.Load(), m.stale.Load(), m.spares.Load())
	if m.spares.Load() == 0 {
		t.Error("no deployment began with a spare")
	}
	if m.looked.Load() < modelPushes/10 || m.unread.Load() == 0 {
		t.Errorf("only %d pushes were decided about by their changes, %d without an answer", m.looked.Load(), m.unread.Load())
	}
	if m.crashes.Load() < 20 || m.stalls.Load() < 3 {
		t.Errorf("too few crashes or stalls to mean anything")
	}
}

func (m *model) checkApp(k lane.Key, l *storev1.Lane, states map[deployerv1.Deployment_State]int) {
	t := m.t
	if int(l.GetLastNumber()) != len(m.events[k.App]) {
		t.Errorf("%s: %d deployments of %d pushes", k, l.GetLastNumber(), len(m.events[k.App]))
	}
	for n := int32(1); n <= l.GetLastNumber(); n++ {
		rec, _, err := m.records.Get(t.Context(), k.Record(n))
		if err != nil {
			t.Errorf("%s/%d: %v", k, n, err)
			continue
		}
		d := rec.GetDeployment()
		states[d.GetState()]++
		switch d.GetState() {
		case deployerv1.Deployment_COMPLETED:
		case deployerv1.Deployment_SUPERSEDED:
			if d.GetSupersededBy() == 0 || d.GetSupersededBy() == n {
				t.Errorf("%s/%d superseded by %d", k, n, d.GetSupersededBy())
			}
		default:
			t.Errorf("%s/%d ended %v %v", k, n, d.GetState(), d.GetError())
		}
	}
	if l.GetLive().GetHash() != m.heads[k.App] {
		t.Errorf("%s: live %s, last push %s", k, l.GetLive().GetHash(), m.heads[k.App])
	}
	current := filepath.Join(m.dir, "apps", k.Workspace, k.App, "current")
	b, err := os.ReadFile(filepath.Join(current, "commit"))
	if err != nil || string(b) != m.heads[k.App] {
		t.Errorf("%s: current holds %q (%v), last push %s", k, b, err, m.heads[k.App])
	}
	if target, err := os.Readlink(current); err != nil || filepath.Base(target) != l.GetLive().GetDirectory() {
		t.Errorf("%s: current -> %s (%v), the lane says %s", k, target, err, l.GetLive().GetDirectory())
	}
	for i := 1; i < len(m.switches[k.App]); i++ {
		if m.switches[k.App][i] <= m.switches[k.App][i-1] {
			t.Errorf("%s: an attempt switched after a newer one: epochs %v", k, m.switches[k.App][i-1:i+1])
		}
	}
}
