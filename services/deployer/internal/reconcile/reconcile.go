// Package reconcile finds pushes whose delivery never came (design.md section 5, "Nothing missed"):
// it compares every watched branch and tag with what the app's lane saw of it last, never with what
// is live, and says "delivery missing" only after a while. Where Bitbucket cannot reach us it is how
// auto-deploy works.
//
// A push is missed when a branch or tag that is watched points to another commit than was seen last,
// or is new. What was there when watching began is the baseline: auto-deploy was switched on, or
// other branches or tags are watched. A single branch's is its head at that moment; of what matches a
// pattern it is what the first look finds, which follows at once. A branch or tag that went and came
// back to the same commit between two looks is not noticed, and one that is deleted deploys nothing.
//
// It asks by `git ls-remote`, one question per repository however many apps, branches and tags there
// are; its budget at Bitbucket is 60 times that of the REST API (bitbucket.md section 4.9). All deployers run it; who moves a repository's
// next look on by compare-and-set has the turn.
//
// Depends on internal/lane and the interfaces below.
package reconcile

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/gate"
	"devpilot.io/bitbucket/services/deployer/internal/lane"
	"devpilot.io/bitbucket/services/deployer/internal/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// gitBudget is how many git requests Bitbucket takes in an hour, with a reserve for deployments
// (bitbucket.md section 4.9: 60,000).
const gitBudget = 50_000

// Heads asks Bitbucket for branches and tags; those that do not exist are left out.
type Heads interface {
	Heads(ctx context.Context, workspace, fullName string, want mirror.Wanted) (mirror.Heads, error)
}

// Gate decides whether a push deploys.
type Gate interface {
	Decide(ctx context.Context, a *storev1.App, p gate.Push) (rules.Verdict, error)
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

// Config is what a Reconciler needs.
type Config struct {
	Repositories *kv.Bucket[storev1.RepositoryIndex, *storev1.RepositoryIndex]
	States       *kv.Bucket[storev1.Reconciliation, *storev1.Reconciliation]
	Apps         Apps
	Connections  Connections
	Heads        Heads
	Witness      Witness // may be nil: then time alone tells
	Gate         Gate
	Outcomes     Outcomes
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

// turned notes when a repository is looked at next. One that answers again after it did not tells that
// the trouble is over: all others that do not answer are looked at at once.
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

// watchedPatterns is a digest of the patterns of branches and tags that are watched, 0 without any.
func watchedPatterns(idx *storev1.RepositoryIndex) uint64 {
	var all []string
	for _, w := range idx.GetWatches() {
		if w.GetAutoDeploy() && (rules.IsGlob(w.GetBranch()) || len(w.GetTags()) > 0) {
			all = append(all, w.GetApp()+"\n"+w.GetBranch()+"\n"+strings.Join(w.GetTags(), "\n"))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	h := fnv.New64a()
	_, _ = io.WriteString(h, strings.Join(slices.Compact(all), "\x00")) // never fails
	return h.Sum64()
}

func anyWatch(idx *storev1.RepositoryIndex) bool {
	for _, w := range idx.GetWatches() {
		if w.GetAutoDeploy() {
			return true
		}
	}
	return false
}

// turn takes the repository's turn if it is due and looks. It returns when to try again, and whether the
// last look failed.
func (r *Reconciler) turn(ctx context.Context, idx *storev1.RepositoryIndex, watched int) (next time.Time, failing bool) {
	workspace, repository := idx.GetWorkspace(), idx.GetRepository()
	key := workspace + "." + repository
	now := r.cfg.Now()
	state, rev, err := r.cfg.States.Get(ctx, key)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		state = &storev1.Reconciliation{}
	case err != nil:
		return now.Add(r.interval(watched)), false
	}
	if next := r.due(key, state, idx); next.After(now) {
		return next, state.GetFailures() > 0
	}
	state.Patterns = watchedPatterns(idx)
	state.LastTime, state.NextTime = timestamppb.New(now), timestamppb.New(now.Add(r.interval(watched)))
	if rev == 0 {
		rev, err = r.cfg.States.Create(ctx, key, state)
	} else {
		rev, err = r.cfg.States.CompareAndSet(ctx, key, state, rev)
	}
	if err != nil {
		if !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrExists) { // else another deployer has the turn
			r.cfg.Logger.WarnContext(ctx, "no turn taken", logs.Err(err))
		}
		return now.Add(time.Second), state.GetFailures() > 0
	}
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, workspace), slog.String(logs.KeyRepository, repository))
	next, err = r.look(ctx, workspace, repository, state)
	if err != nil && ctx.Err() == nil {
		r.cfg.Logger.InfoContext(ctx, "repository not looked at", logs.Err(err))
	}
	if !next.IsZero() && (next.Before(state.GetNextTime().AsTime()) || state.GetNotBefore() != nil) {
		state.NextTime = timestamppb.New(next)
	}
	if _, err := r.cfg.States.CompareAndSet(ctx, key, state, rev); err != nil {
		// Somebody asked for a look meanwhile, or the store is away: look again soon.
		return r.cfg.Now().Add(time.Second), state.GetFailures() > 0
	}
	return state.GetNextTime().AsTime(), state.GetFailures() > 0
}

// mostPause is the longest pause between looks at a repository that a deployment waits for.
const mostPause = 30 * time.Second

// due is when the repository is to be looked at. A process that starts looks at once, unless somebody
// has since it started; so does one that has others answer again, or what waits; but no sooner than
// Bitbucket asked for.
func (r *Reconciler) due(key string, state *storev1.Reconciliation, idx *storev1.RepositoryIndex) time.Time {
	r.mu.Lock()
	asked, answered := r.asked[key], r.answered
	r.mu.Unlock()
	last, next := state.GetLastTime().AsTime(), state.GetNextTime().AsTime()
	hurry := func(at time.Time) {
		if at.Before(next) {
			next = at
		}
	}
	if last.Before(r.start) {
		hurry(r.start)
	}
	if state.GetPatterns() != watchedPatterns(idx) && state.GetFailures() == 0 || state.GetFailures() > 0 && last.Before(answered) {
		hurry(last)
	}
	if asked {
		hurry(last.Add(min(r.cfg.Interval, mostPause) / 2))
	}
	if before := state.GetNotBefore().AsTime(); before.After(next) {
		return before
	}
	return next
}

// maxAsks bounds the deliveries that wait for a look.
const maxAsks = 50

// Ask has a repository looked at at once because a delivery listed no changes (bitbucket.md section
// 7.6, case 8).
func (r *Reconciler) Ask(ctx context.Context, workspace, repository string, ask *storev1.Ask) error {
	return r.request(ctx, workspace, repository, func(state *storev1.Reconciliation) {
		for _, a := range state.GetAsks() {
			if a.GetEvent() == ask.GetEvent() {
				return
			}
		}
		if len(state.Asks) < maxAsks {
			state.Asks = append(state.Asks, ask)
		}
	})
}

// Look has a repository looked at at once: the workspace was connected again.
func (r *Reconciler) Look(ctx context.Context, workspace, repository string) error {
	return r.request(ctx, workspace, repository, func(state *storev1.Reconciliation) { state.Failures = 0 })
}

func (r *Reconciler) request(ctx context.Context, workspace, repository string, fn func(*storev1.Reconciliation)) error {
	key := workspace + "." + repository
	_, _, err := r.cfg.States.Update(ctx, key, func(state *storev1.Reconciliation) (*storev1.Reconciliation, error) {
		if state == nil {
			state = &storev1.Reconciliation{}
		}
		fn(state)
		state.NextTime = timestamppb.New(r.cfg.Now())
		return state, nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.next[key] = r.cfg.Now()
	r.mu.Unlock()
	r.poke()
	return nil
}
