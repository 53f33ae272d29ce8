package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// What is live is compared with what should be: a push whose deployment failed for reasons outside its
// commit is asked for again, once a poll tells that they have ended. Deployments that wait for Bitbucket
// have a poll asked for instead of trying one by one, and go on when it succeeds.

// retry asks for the push that a lane owes.
func (r *Reconciler) retry(ctx context.Context, s seen, now *storev1.Lane, l *polling) error {
	o := now.GetOwed()
	if o == nil || now.GetRunning() != nil || lane.Upcoming(now) != nil || lane.Undecided(now) || !r.stillWatched(s, o, l) {
		return nil
	}
	if at := lane.OwedAt(o); at.After(r.cfg.Now()) {
		l.again(at)
		return nil
	}
	failed, ask := o.GetJob().GetNumber(), r.requestAgain(s, o)
	var d lane.Decision
	now, err := r.cfg.Dispatcher.Change(ctx, s.key, func(now *storev1.Lane) (err error) {
		d = lane.Decision{}
		if now.GetGeneration() != s.lane.GetGeneration() || now.GetOwed().GetJob().GetNumber() != failed {
			return lane.ErrSkip // another deployer was faster, or something newer came
		}
		d, err = lane.Accept(now, ask)
		return err
	})
	switch {
	case errors.Is(err, lane.ErrRetired):
		return nil
	case errors.Is(err, lane.ErrBacklog):
		l.again(r.cfg.Now().Add(time.Second))
		return nil
	case err != nil:
		return err
	case !d.New:
		return nil
	}
	r.cfg.Logger.InfoContext(ctx, "failed push is tried again", slog.String(logs.KeyApp, s.key.App), slog.Int(logs.KeyDeployment, int(d.Number)), slog.String(logs.KeyReason, o.GetReason()))
	return r.cfg.Dispatcher.Dispatch(ctx, s.key, now)
}

// stillWatched tells whether the app still watches what is owed, and the poll found it.
func (r *Reconciler) stillWatched(s seen, o *storev1.Owed, l *polling) bool {
	ref := lane.OwedRef(o)
	if ref.IsTag() {
		_, there := l.found.Tags[ref.Name()]
		return there && rules.MatchTag(s.tags(), ref.Name())
	}
	_, there := l.found.Branches[ref.Name()]
	return there && rules.MatchBranch(s.app.GetBranch(), ref.Name())
}

func (r *Reconciler) requestAgain(s seen, o *storev1.Owed) lane.Request {
	job, now := o.GetJob(), r.cfg.Now()
	ask := lane.Request{
		Event: fmt.Sprintf("owed:%d:%d", s.lane.GetGeneration(), job.GetNumber()), ReceiveTime: now, Trigger: deployerv1.Deployment_RECONCILED,
		Repository: s.app.GetRepository(), Branch: job.GetBranch(), Tag: job.GetTag(), Server: s.app.GetServer(), Now: now,
		Actor:        &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_SYSTEM, Label: "Devpilot"},
		SourceNumber: job.GetNumber(), Retries: job.GetRetries() + 1, Askers: job.GetAskers(), ForcedFrom: job.GetForcedFrom(),
		Notes: []string{fmt.Sprintf("Deployment %d failed (%s) for a reason outside its commit, so that Devpilot tries again.", job.GetNumber(), o.GetReason())},
	}
	if job.GetHash() != "" {
		ask.Commit = &deployerv1.DeploymentCommit{Hash: job.GetHash()}
	}
	return ask
}

// Waits has the app's repository polled soon, because its deployment waits for Bitbucket. When
// that poll succeeds, all deployments that wait for the repository go on.
func (r *Reconciler) Waits(ctx context.Context, k lane.Key) error {
	a, err := r.cfg.Apps.App(ctx, k)
	if apierr.Has(err, apierr.ReasonAppNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	key := k.Workspace + "." + a.GetRepository()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[key] = true
	r.hurry(key)
	return nil
}

// carryOn lets the deployments go on that waited for Bitbucket to answer about a repository.
func (r *Reconciler) carryOn(ctx context.Context, workspace string, idx *storev1.RepositoryIndex) error {
	for _, w := range idx.GetWatches() {
		k := lane.Key{Workspace: workspace, App: w.GetApp()}
		l, _, err := r.cfg.Dispatcher.Get(ctx, k)
		if err != nil {
			return err
		}
		if lane.ReleaseRemote(l) != nil { // the usual case costs no write
			continue
		}
		if l, err = r.cfg.Dispatcher.Change(ctx, k, lane.ReleaseRemote); err != nil {
			return err
		}
		if err := r.cfg.Dispatcher.Dispatch(ctx, k, l); err != nil {
			return err
		}
	}
	return nil
}

// asksAround is how often Bitbucket's REST API is asked at most about what polls did not find.
const asksAround = time.Minute

// around tells whether the REST API may be asked now.
func (r *Reconciler) around(state *storev1.Reconciliation) bool {
	now := r.cfg.Now()
	if r.cfg.Witness == nil || now.Sub(state.GetWitnessTime().AsTime()) < min(asksAround, r.cfg.Doubt) {
		return false
	}
	state.WitnessTime = timestamp(now)
	return true
}

// settledEmpty tells whether the app knows of no branch and no tag, so that none being listed is no news.
func settledEmpty(s seen) bool {
	for _, h := range s.lane.GetHeads() {
		if h.GetHash() != "" && h.GetRepository() == s.app.GetRepository() {
			return false
		}
	}
	settled := len(s.tags()) == 0 || s.known.Complete(true, s.tags())
	if glob := s.glob(); len(glob) > 0 {
		settled = settled && s.known.Complete(false, glob)
	} else if hash, known := s.known.Head(lane.Branch(s.app.GetBranch())); !known || hash != "" {
		return false
	}
	return settled && s.known.Nothing()
}
