package reconcile

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/control/timequeue"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// gitBudget is how many polls Bitbucket takes in an hour, with a reserve for deployments
// (BITBUCKET.md#budgets: 60,000).
const gitBudget = 50_000

// Heads asks Bitbucket for branches and tags; those that do not exist are left out.
type Heads interface {
	Heads(ctx context.Context, workspace, fullName string, want remote.Wanted) (remote.Heads, error)
}

// Apps notes what is found out about repositories.
type Apps interface {
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
	FullName(ctx context.Context, workspace, repository string) (string, error)
	Renamed(ctx context.Context, workspace, repository string) (string, error)
	Reached(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error
	Answered(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error
}

// Connections knows the workspaces' integrations.
type Connections interface {
	Shown(ctx context.Context, workspace string) (*storev1.Connection, error)
}

// Witness asks Bitbucket's REST API about what git did not list.
type Witness interface {
	// Well tells whether the rest is well, and whether the API has not got it either.
	Well(ctx context.Context, workspace, repository, branch, reason string) (well, confirmed bool)
	// Empty tells whether the API says that the repository has no branches.
	Empty(ctx context.Context, workspace, repository string) (bool, error)
}

// Webhooks tells how webhooks stand.
type Webhooks interface {
	Webhooks(ctx context.Context, workspace string, repositories []string) (map[string]*webhookv1.Webhook, error)
}

// Outcomes takes what came of deliveries that listed no changes.
type Outcomes interface {
	Put(ctx context.Context, outcomes ...*webhookv1.RecordedOutcome) error
}

// Servers knows the servers.
type Servers interface {
	Offline(server string) (since time.Time, offline bool)
}

// Config is what a Reconciler needs.
type Config struct {
	Repositories *kv.Bucket[storev1.RepositoryIndex, *storev1.RepositoryIndex]
	States       *kv.Bucket[storev1.Reconciliation, *storev1.Reconciliation]
	Copies       *store.Copies // what a poll compares with; see view
	Apps         Apps
	Connections  Connections
	Heads        Heads
	Distances    Distances // may be nil: then nobody counts how far a branch is behind
	Witness      Witness   // may be nil: then time alone tells
	Webhooks     Webhooks  // may be nil: then none is relied on
	Outcomes     Outcomes
	Servers      Servers
	Dispatcher   *lane.Dispatcher
	SiteURL      string
	// Found counts what came of pushes that polls found; see metrics.Metrics.Push. It may be nil.
	Found func(verdict string)
	// Learn is told which Bitbucket workspace a repository is in; may be nil.
	Learn  func(workspace, fullName, bitbucketWorkspace string)
	Logger *slog.Logger
	Now    func() time.Time
	// Interval is the least pause between two polls of a repository; 30 s when zero. It is relied times
	// as long where a webhook is known to work. Grace is how long a delivery may be on its way; 60 s when zero. Doubt is for how long something must be missing
	// to be gone; 3 min when zero.
	Interval, Grace, Doubt time.Duration
}

// Reconciler is safe for concurrent use.
type Reconciler struct {
	cfg    Config
	mirror *kv.Mirror[storev1.RepositoryIndex, *storev1.RepositoryIndex]
	start  time.Time
	loop   *timequeue.Loop

	mu       sync.Mutex
	watched  map[string]*repository // by key: those that are polled
	asked    map[string]bool        // deployments wait for a poll
	behind   map[string]bool        // commits are to be counted
	failing  map[string]bool        // whose last poll failed
	answered time.Time              // when one of those succeeded
	relied   int                    // how many of watched are
	missed   time.Time              // when a delivery was last found missing, of any repository
	looked   time.Time              // when a repository was last looked at, or was first there to be

	metrics *standing
}

// repository is a repository that is polled.
type repository struct {
	idx      *storev1.RepositoryIndex
	patterns uint64 // that were watched when its index was last seen
	reliance
}

// New makes a reconciler.
func New(cfg Config) *Reconciler {
	if cfg.Interval == 0 {
		cfg.Interval = 30 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Minute
	}
	if cfg.Doubt == 0 {
		cfg.Doubt = 3 * time.Minute
	}
	r := &Reconciler{
		cfg: cfg, mirror: kv.NewMirror(cfg.Repositories), start: cfg.Now(), loop: timequeue.NewLoop(parallel, cfg.Now),
		watched: map[string]*repository{}, asked: map[string]bool{}, behind: map[string]bool{}, failing: map[string]bool{},
	}
	r.mirror.OnChange(r.changed)
	r.metrics = newStanding(r)
	return r
}

// Metrics tell how the reconciler stands.
func (r *Reconciler) Metrics() prometheus.Collector { return r.metrics }

// parallel is how many repositories one process asks about at once.
const parallel = 4

// Run polls all watched repositories, over and over, until ctx is done. The first round begins
// at once: pushes that came while nobody listened are found.
func (r *Reconciler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := r.mirror.Run(ctx); err != nil {
			r.cfg.Logger.ErrorContext(ctx, "watched repositories no longer followed", logs.Err(err))
		}
	})
	r.loop.Run(ctx, r.round)
	return nil
}

// Ready is nil once the watched repositories are known.
func (r *Reconciler) Ready(ctx context.Context) error { return r.mirror.Ready(ctx) }

// round has one poll of a repository, and returns when the next is due.
func (r *Reconciler) round(ctx context.Context, key string) time.Time {
	r.mu.Lock()
	w := r.watched[key]
	if w == nil {
		r.mu.Unlock()
		return time.Time{}
	}
	idx := w.idx
	r.mu.Unlock()
	next, failing := r.turn(ctx, key, idx)
	return r.turned(key, next, failing)
}

// changed takes a repository's index as it is now; nil when it is gone.
func (r *Reconciler) changed(key string, idx *storev1.RepositoryIndex) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !anyWatch(idx) && (idx == nil || !r.asked[key]) {
		r.forget(key)
		return
	}
	digest := watchedPatterns(idx)
	w := r.watched[key]
	if len(r.watched) == 0 {
		r.looked = r.cfg.Now()
	}
	if w == nil { // spread the first round
		r.watched[key] = &repository{idx: idx, patterns: digest}
		r.loop.Set(key, r.start.Add(rand.N(min(r.cfg.Interval/10, 2*time.Second)+1)))
		return
	}
	w.idx = idx
	if w.works && !anyAuto(idx) { // its webhook goes: from now on polls alone tell of pushes
		w.works = false
		r.relied--
		r.loop.Set(key, r.cfg.Now().Add(rand.N(r.cfg.Interval)+1))
	}
	if w.patterns != digest { // what is there now is the baseline: it is noted before more comes
		w.patterns = digest
		r.loop.Set(key, r.cfg.Now())
	}
}

// hurry has a repository polled now.
func (r *Reconciler) hurry(key string) {
	if r.watched[key] == nil {
		idx, _, known := r.mirror.Get(key)
		if !known { // its turn comes when it is
			return
		}
		r.watched[key] = &repository{idx: idx, patterns: watchedPatterns(idx)}
	}
	r.loop.Set(key, r.cfg.Now())
}

// turned notes how a poll went, and returns when the next is due. A repository that answers again after
// it did not tells that the trouble is over: all others that do not answer are polled at once.
func (r *Reconciler) turned(key string, next time.Time, failing bool) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked = r.cfg.Now()
	switch {
	case failing:
		r.failing[key] = true
	case r.failing[key]:
		delete(r.failing, key)
		r.answered = r.cfg.Now()
		for other := range r.failing {
			r.loop.Set(other, r.answered)
		}
	}
	if w := r.watched[key]; w == nil || !anyWatch(w.idx) && !r.asked[key] {
		r.forget(key)
		return time.Time{}
	}
	return next
}

func (r *Reconciler) forget(key string) {
	if r.watched[key].relies() {
		r.relied--
	}
	delete(r.watched, key)
	delete(r.failing, key)
	delete(r.behind, key)
	r.loop.Remove(key)
}
