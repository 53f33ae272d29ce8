package reconcile

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// gitBudget is how many git requests Bitbucket takes in an hour, with a reserve for deployments
// (BITBUCKET.md#budgets: 60,000).
const gitBudget = 50_000

// Heads asks Bitbucket for branches and tags; those that do not exist are left out.
type Heads interface {
	Heads(ctx context.Context, workspace, fullName string, want mirror.Wanted) (mirror.Heads, error)
}

// Apps reads what people saved and notes what is found out about repositories.
type Apps interface {
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
	Index(ctx context.Context, workspace, repository string) (*storev1.RepositoryIndex, error)
	FullName(ctx context.Context, workspace, repository string) (string, error)
	Renamed(ctx context.Context, workspace, repository string) (string, error)
	Reached(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error
}

// Connections knows the workspaces' integrations.
type Connections interface {
	Get(ctx context.Context, workspace string) (*storev1.Connection, error)
}

// Witness asks Bitbucket's REST API about what git did not list.
type Witness interface {
	// Well tells whether the rest is well, and whether the API has not got it either.
	Well(ctx context.Context, workspace, repository, branch, reason string) (well, confirmed bool)
	// Empty tells whether the API says that the repository has no branches.
	Empty(ctx context.Context, workspace, repository string) (bool, error)
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
	Apps         Apps
	Connections  Connections
	Heads        Heads
	Witness      Witness // may be nil: then time alone tells
	Outcomes     Outcomes
	Servers      Servers
	Keeper       *lane.Keeper
	SiteURL      string
	Logger       *slog.Logger
	Now          func() time.Time
	// Interval is the least pause between two looks at a repository; 30 s when zero. Grace is how
	// long a delivery may be on its way; 60 s when zero. Doubt is for how long something must be missing
	// to be gone; 3 min when zero.
	Interval, Grace, Doubt time.Duration
}

// Reconciler is safe for concurrent use.
type Reconciler struct {
	cfg    Config
	mirror *kv.Mirror[storev1.RepositoryIndex, *storev1.RepositoryIndex]
	start  time.Time
	wake   chan struct{}

	mu       sync.Mutex
	next     map[string]time.Time // when this process looks, by key
	patterns map[string]uint64    // that were watched when it looked last
	busy     map[string]bool
	asked    map[string]bool // deployments wait for a look
	failing  map[string]bool // whose last look failed
	answered time.Time       // when one of those succeeded
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
		cfg: cfg, mirror: kv.NewMirror(cfg.Repositories), start: cfg.Now(), wake: make(chan struct{}, 1), next: map[string]time.Time{}, patterns: map[string]uint64{},
		busy: map[string]bool{}, asked: map[string]bool{}, failing: map[string]bool{},
	}
	r.mirror.OnChange(func(string, *storev1.RepositoryIndex) { r.poke() })
	return r
}

func (r *Reconciler) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// parallel is how many repositories one process asks about at once.
const parallel = 4

// Run looks at all watched repositories, over and over, until ctx is done. The first round begins
// at once: pushes that came while nobody listened are found.
func (r *Reconciler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := r.mirror.Run(ctx); err != nil {
			r.cfg.Logger.ErrorContext(ctx, "watched repositories no longer followed", logs.Err(err))
		}
	})
	slots := make(chan struct{}, parallel)
	for ctx.Err() == nil {
		pause := r.round(ctx, slots, &wg)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// Ready is nil once the watched repositories are known.
func (r *Reconciler) Ready(ctx context.Context) error { return r.mirror.Ready(ctx) }

// interval keeps all looks together within the budget.
func (r *Reconciler) interval(repositories int) time.Duration {
	d := max(r.cfg.Interval, time.Duration(repositories)*time.Hour/gitBudget)
	return d - d/10 + rand.N(d/5+1)
}

// round starts a look at each repository whose time has come, and returns how long until the next.
func (r *Reconciler) round(ctx context.Context, slots chan struct{}, wg *sync.WaitGroup) time.Duration {
	all := r.mirror.All()
	watched := 0
	for _, idx := range all {
		if anyWatch(idx) {
			watched++
		}
	}
	now := r.cfg.Now()
	pause := max(r.cfg.Interval/2, 10*time.Millisecond)
	for key, idx := range all {
		r.mu.Lock()
		if !anyWatch(idx) && !r.asked[key] {
			r.mu.Unlock()
			continue
		}
		at, known := r.next[key]
		if !known { // spread the first round
			at = r.start.Add(rand.N(min(r.cfg.Interval/10, 2*time.Second) + 1))
			r.next[key] = at
		}
		if digest := watchedPatterns(idx); r.patterns[key] != digest {
			r.patterns[key] = digest
			if known { // what is there now is the baseline: it is noted before more comes
				at = now
				r.next[key] = at
			}
		}
		due := !r.busy[key] && !at.After(now)
		if due {
			r.busy[key] = true
		}
		r.mu.Unlock()
		if !due {
			if wait := at.Sub(now); wait > 0 {
				pause = min(pause, wait)
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return 0
		}
		wg.Go(func() {
			defer func() { <-slots }()
			next, failing := r.turn(ctx, idx, watched)
			r.turned(key, idx, next, failing)
		})
	}
	r.forget(all)
	return max(pause, 5*time.Millisecond)
}

// turned notes when a repository is looked at next. When one answers again after it did not, the
// trouble is probably over, so all others that did not answer are looked at at once.
func (r *Reconciler) turned(key string, idx *storev1.RepositoryIndex, next time.Time, failing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.patterns[key] == watchedPatterns(idx) { // else it is due by now
		r.next[key] = next
	}
	switch {
	case failing:
		r.failing[key] = true
	case r.failing[key]:
		delete(r.failing, key)
		r.answered = r.cfg.Now()
		for other := range r.failing {
			r.next[other] = r.answered
		}
	}
	delete(r.busy, key)
	r.poke()
}

func (r *Reconciler) forget(all map[string]*storev1.RepositoryIndex) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.next {
		if !anyWatch(all[key]) && !r.busy[key] && !r.asked[key] {
			delete(r.next, key)
			delete(r.patterns, key)
			delete(r.failing, key)
		}
	}
}
