package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"
	"devpilot.io/bitbucket/services/deployer/internal/worker/pipeline"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// The parts around the real code.

type modelAppsReader struct{ m *model }

func (r modelAppsReader) App(_ context.Context, k lane.Key) (*storev1.App, error) {
	if r.m.events[k.App] == nil {
		return nil, apierr.New(apierr.ReasonAppNotFound, "gone")
	}
	a := &storev1.App{Workspace: k.Workspace, Id: k.App, Repository: modelRepository, Branch: k.App, AutoDeploy: true, Server: "default", Retention: 2, Generation: 1}
	a.Rules, a.Serve = &deployerv1.AppRules{Skip: &deployerv1.SkipPhrases{}}, &deployerv1.ServeOptions{Directory: "."}
	if last := k.App[len(k.App)-1]; r.m.candidates && last%2 == 0 {
		a.Rules.Paths = []string{"site/**"}
	}
	return a, nil
}

func (r modelAppsReader) Index(context.Context, string, string) (*storev1.RepositoryIndex, error) {
	idx := &storev1.RepositoryIndex{Workspace: modelWorkspace, Repository: modelRepository, FullName: "acme/web"}
	for i := range modelApps {
		idx.Watches = append(idx.Watches, &storev1.Watch{App: r.m.key(i).App, Branch: r.m.key(i).App, AutoDeploy: true})
	}
	return idx, nil
}

func (modelAppsReader) NameGiven(context.Context, string, string, string) error { return nil }

func (modelAppsReader) FullName(context.Context, string, string) (string, error) {
	return "acme/web", nil
}

func (modelAppsReader) Renamed(context.Context, string, string) (string, error) {
	return "acme/web", nil
}

func (modelAppsReader) Variables(*storev1.App, string) ([]settings.Variable, error) { return nil, nil }

func (modelAppsReader) SawFile(context.Context, lane.Key, int64, *deployerv1.CodeConfig) error {
	return nil
}

func (modelAppsReader) Forget(context.Context, lane.Key, int64) error { return nil }

// modelGit knows what pushes changed: what the apps want. It fails, dies and sleeps.
type modelGit struct{ m *model }

func (g modelGit) Changes(ctx context.Context, _ *storev1.App, p policy.Push) (rules.Changes, error) {
	g.m.fault()
	modelSource{g.m}.stall(ctx, 200) //nolint:staticcheck // the two types only look alike
	if path, known := g.m.changes.Load(p.New); known {
		return rules.Changes{Paths: []string{path.(string)}}, nil // nothing else is stored
	}
	if g.m.rnd.n(20) == 0 {
		g.m.unread.Add(1)
		return rules.Changes{}, errors.New("git does not answer")
	}
	g.m.looked.Add(1)
	return rules.Changes{Paths: []string{"site/index.html"}}, nil
}

func (modelGit) File(context.Context, *storev1.App, policy.Push, string, int64) ([]byte, error) {
	return nil, policy.ErrNoFile
}

// modelTeller hears what the lanes tell deliveries.
type modelTeller struct{ m *model }

func (t modelTeller) Decided(_ context.Context, _ lane.Key, d *storev1.Decided) error {
	t.hear(d.GetAskers(), d.GetNumber())
	return nil
}

func (t modelTeller) Ended(_ context.Context, _ lane.Key, number int32, e *storev1.Ended) error {
	t.hear(e.GetAskers(), number)
	return nil
}

func (t modelTeller) hear(askers []*storev1.Asker, number int32) {
	t.m.fault()
	t.m.mu.Lock()
	for _, a := range askers {
		t.m.outcome(a.GetDelivery(), number)
	}
	t.m.mu.Unlock()
	t.m.fault()
}

// outcome notes a delivery's outcome; the lock is held.
func (m *model) outcome(delivery, number int32) {
	id := fmt.Sprintf("hook.%d.0", delivery)
	if m.outcomes[id] == nil {
		m.outcomes[id] = map[int32]bool{}
	}
	m.outcomes[id][number] = true
}

type modelConnections struct{}

func (modelConnections) Get(context.Context, string) (*storev1.Connection, error) {
	return &storev1.Connection{}, nil
}

type modelOutcomes struct{ m *model }

func (o modelOutcomes) Put(_ context.Context, outcomes ...*webhookv1.RecordedOutcome) error {
	o.m.fault()
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	for _, x := range outcomes {
		if x.GetOutcome().GetKind() != webhookv1.DeliveryOutcome_DECIDING { // the final one follows
			o.m.outcome(x.GetDelivery(), x.GetOutcome().GetDeployment())
		}
	}
	return nil
}

type modelAlarm struct{ m *model }

func (a modelAlarm) Arm(ctx context.Context, k lane.Key) error {
	return a.At(ctx, k, time.Now().Add(100*time.Millisecond))
}

func (a modelAlarm) At(_ context.Context, k lane.Key, at time.Time) error {
	a.m.fault()
	a.m.due.Store(k, at)
	a.m.fault()
	return nil
}

type modelWaker struct{ m *model }

func (w modelWaker) Wake(_ context.Context, _ string, k lane.Key) error {
	w.m.fault()
	w.m.work.publish(k.App, nil)
	w.m.fault()
	return nil
}

// WakeDecider tells that pushes wait to be decided about.
func (w modelWaker) WakeDecider(_ context.Context, _ string, k lane.Key) error {
	w.m.fault()
	w.m.decide.publish(k.App, nil)
	w.m.fault()
	return nil
}

// modelQueues are the wake-ups as the janitor looks for them.
type modelQueues struct{ m *model }

func (q modelQueues) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	return q.m.work.GetMsg(ctx, seq, opts...)
}

func (q modelQueues) GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	if strings.HasPrefix(subject, "devpilot.decide.") {
		return q.m.decide.GetLastMsgForSubject(ctx, subject)
	}
	return q.m.work.GetLastMsgForSubject(ctx, subject)
}

// modelSource has the branches' heads; it fails, dies and sleeps.
type modelSource struct{ m *model }

func (s modelSource) Fetch(ctx context.Context, src mirror.Source) (pipeline.Tree, error) {
	s.m.fault()
	pause(time.Duration(s.m.rnd.n(4)) * time.Millisecond)
	if !s.m.calm && s.m.rnd.n(40) == 0 {
		return nil, &remote.Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "down"}
	}
	s.stall(ctx, 60)
	if s.m.short != nil && s.m.short() {
		return nil, &remote.Error{Reason: remote.ReasonDiskFull, Temporary: true, Message: "full"}
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if src.Commit != "" {
		return modelTree{s, src.Commit}, nil
	}
	return modelTree{s, s.m.heads[src.Branch]}, nil
}

func (modelSource) Discard(context.Context, string, string) error { return nil }

// stall stops the process, keep-alive and all, for longer than its wake-up is its own.
func (s modelSource) stall(ctx context.Context, oneIn int) {
	if s.m.calm || s.m.rnd.n(oneIn) != 0 {
		return
	}
	msg, _ := ctx.Value(messageKey{}).(*message)
	s.m.stalls.Add(1)
	msg.stalled.Store(true)
	pause(3 * modelLease)
	msg.stalled.Store(false)
}

type modelTree struct {
	s    modelSource
	hash string
}

func (t modelTree) Head() mirror.Commit { return mirror.Commit{Hash: t.hash, Message: "m"} }

func (modelTree) Lacks(context.Context, string) bool { return false }

func (modelTree) Close() {}

func (modelTree) HasLFSPointers(context.Context) (bool, error) { return false, nil }

func (modelTree) WriteGit(context.Context, *os.Root) error { return nil }

func (t modelTree) Checkout(ctx context.Context, dir *os.Root, _ func(int, int)) (tree.Stats, error) {
	t.s.m.fault()
	err := dir.WriteFile("commit", []byte(t.hash), 0o644)
	t.s.stall(ctx, 60)
	t.s.m.fault()
	return tree.Stats{Files: 1}, err
}

// Update begins with a spare, which must be as its maker left it: no release's hook was in it.
func (t modelTree) Update(ctx context.Context, dir *os.Root, manifest []byte, progress func(int, int)) (tree.Stats, error) {
	t.s.m.fault()
	b, err := dir.ReadFile("commit")
	if err != nil || string(b) != string(manifest) {
		t.s.m.t.Errorf("a spare of %q holds %q (%v)", manifest, b, err)
	}
	if _, err := dir.Lstat("hooked"); err == nil {
		t.s.m.t.Error("a spare holds what a release's hook wrote")
	}
	if !t.s.m.calm && t.s.m.rnd.n(10) == 0 {
		return tree.Stats{}, tree.ErrPristine
	}
	t.s.m.spares.Add(1)
	if err := dir.Remove("commit"); err != nil {
		return tree.Stats{}, err
	}
	return t.Checkout(ctx, dir, progress)
}

func (t modelTree) Copier() tree.Copier {
	return func(ctx context.Context, dir *os.Root, pause func(context.Context) error) ([]byte, error) {
		if err := pause(ctx); err != nil {
			return nil, err
		}
		if t.s.m.copying != nil {
			t.s.m.copying <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return []byte(t.hash), dir.WriteFile("commit", []byte(t.hash), 0o644)
	}
}

// faultyReleases is the real data directory, whose users die before and after every call.
type faultyReleases struct {
	m *model
	*release.Store
	gate func() // if set, called right before the switch on disk
}

func (r faultyReleases) Claim(ctx context.Context, workspace, app string, epoch, first int64) error {
	r.m.fault()
	err := r.Store.Claim(ctx, workspace, app, epoch, first)
	r.m.fault()
	return err
}

func (r faultyReleases) TakeSpare(ctx context.Context, workspace, app string, epoch int64, directory string) (*os.Root, []byte, error) {
	r.m.fault()
	dir, manifest, err := r.Store.TakeSpare(ctx, workspace, app, epoch, directory)
	r.m.fault()
	return dir, manifest, err
}

// MakeSpare dies alone: it runs beside the deployments.
func (r faultyReleases) MakeSpare(ctx context.Context, workspace, app string, epoch int64, fill func(*os.Root) ([]byte, error)) error {
	err, died := r.m.survive(func() error {
		return r.Store.MakeSpare(ctx, workspace, app, epoch, func(tree *os.Root) ([]byte, error) {
			manifest, err := fill(tree)
			r.m.fault()
			return manifest, err
		})
	})
	if died {
		return errors.New("died")
	}
	return err
}

func (r faultyReleases) Announce(ctx context.Context, workspace, app string, epoch, generation int64, s release.SiteRelease) error {
	r.m.fault()
	return r.Store.Announce(ctx, workspace, app, epoch, generation, s)
}

func (r faultyReleases) Switch(ctx context.Context, workspace, app string, epoch int64, directory string) error {
	r.m.fault()
	// A hook writes in the release, before it is live and after.
	hooked := filepath.Join(r.m.dir, "apps", workspace, app, "releases", directory, "hooked")
	_ = os.WriteFile(hooked, []byte(directory), 0o644)
	modelSource{r.m}.stall(ctx, 6) // after all checks but that of the fence
	if r.gate != nil {
		r.gate()
	}
	r.m.mu.Lock() // so that the order noted is the order on disk
	err := r.Store.Switch(ctx, workspace, app, epoch, directory)
	if err == nil {
		r.m.switches[app] = append(r.m.switches[app], epoch)
	}
	r.m.mu.Unlock()
	if errors.Is(err, release.ErrStale) {
		r.m.stale.Add(1)
	}
	r.m.fault()
	return err
}

func (r faultyReleases) Sweep(ctx context.Context, workspace, app string, epoch int64, keep []string) error {
	r.m.fault()
	return r.Store.Sweep(ctx, workspace, app, epoch, keep)
}

type faultyLanes struct{ m *model }

type faultyRecords struct{ m *model }

func (f faultyRecords) Update(ctx context.Context, key string, fn func(*storev1.Deployment) (*storev1.Deployment, error)) (*storev1.Deployment, uint64, error) {
	f.m.fault()
	d, rev, err := f.m.records.Update(ctx, key, fn)
	f.m.fault()
	return d, rev, err
}

// modelLogs keeps the product's own lines about hooks, if it has where to.
type modelLogs struct{ lines *[]string }

func (l modelLogs) Open(context.Context, lane.Key, int32, int64, int64) (pipeline.Log, error) {
	return l, nil
}

func (modelLogs) Hide(map[string]seal.Secret) []string { return nil }

func (l modelLogs) HookLine(_ deployerv1.Deployment_Stage, _ string, _ deployerv1.LogRecord_Stream, text string) {
	if l.lines != nil {
		*l.lines = append(*l.lines, text)
	}
}

func (modelLogs) Line(deployerv1.Deployment_Stage, deployerv1.LogRecord_Stream, string) {}

func (modelLogs) Close(context.Context) {}

type modelObserver struct{ m *model }

func (o modelObserver) Run(context.Context, string, time.Duration) { o.m.runs.Add(1) }

func (modelObserver) Live(context.Context, time.Duration) {}
