package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// turn takes the repository's turn if it is due and polls. It returns when to try again, and whether the
// last poll failed. A poll that finds all as it was costs one write: that which takes the turn.
func (r *Reconciler) turn(ctx context.Context, key string, idx *storev1.RepositoryIndex) (next time.Time, failing bool) {
	workspace, repository := idx.GetWorkspace(), idx.GetRepository()
	now := r.cfg.Now()
	state, rev, err := r.cfg.States.Get(ctx, key)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		state = &storev1.Reconciliation{}
	case err != nil:
		return now.Add(r.interval(key)), false
	}
	if next := r.due(key, state, idx); next.After(now) {
		return next, state.GetFailures() > 0
	}
	state.Patterns = watchedPatterns(idx)
	state.LastTime, state.NextTime = timestamppb.New(now), timestamppb.New(now.Add(r.interval(key)))
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
	taken := proto.CloneOf(state)
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, workspace), slog.String(logs.KeyRepository, repository))
	next, err = r.poll(ctx, workspace, repository, state)
	r.metrics.poll(err)
	if err != nil && ctx.Err() == nil {
		r.cfg.Logger.InfoContext(ctx, "repository not polled", logs.Err(err))
	}
	if missed := state.GetMissedTime(); !proto.Equal(missed, taken.GetMissedTime()) {
		r.deliveryMissed(state)
	} else if err == nil && next.IsZero() && r.rely(ctx, key, workspace, repository, state) {
		next = now.Add(r.interval(key))
		state.NextTime = timestamppb.New(next)
	}
	if !next.IsZero() && (next.Before(state.GetNextTime().AsTime()) || state.GetNotBefore() != nil) {
		state.NextTime = timestamppb.New(next)
	}
	if proto.Equal(state, taken) {
		return state.GetNextTime().AsTime(), state.GetFailures() > 0
	}
	if _, err := r.cfg.States.CompareAndSet(ctx, key, state, rev); err != nil {
		// Somebody asked for a poll meanwhile, or the store is away: poll again soon.
		return r.cfg.Now().Add(time.Second), state.GetFailures() > 0
	}
	return state.GetNextTime().AsTime(), state.GetFailures() > 0
}

// mostPause is the longest pause between polls of a repository that a deployment waits for.
const mostPause = 30 * time.Second

// due returns when the repository is to be polled. At once after this process has started,
// unless another process has polled it since; at once when others answer again or a deployment waits
// for it; but never before the time that Bitbucket asked us to wait for.
func (r *Reconciler) due(key string, state *storev1.Reconciliation, idx *storev1.RepositoryIndex) time.Time {
	r.mu.Lock()
	asked, behind, answered, missed, often := r.asked[key], r.behind[key], r.answered, r.missed, r.often()
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
	if last.Before(missed) {
		hurry(last.Add(r.cfg.Interval))
	}
	if !anyAuto(idx) && state.GetFailures() == 0 { // it may have been put off for long while its webhook was relied on
		hurry(last.Add(often))
	}
	if asked || behind && state.GetFailures() == 0 {
		hurry(last.Add(min(r.cfg.Interval, mostPause) / 2))
	}
	if before := state.GetNotBefore().AsTime(); before.After(next) {
		return before
	}
	return next
}
