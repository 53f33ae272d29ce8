package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// askTime bounds the question where a branch is. Unanswered, the push is taken for new, and the worker
// that fetches the branch decides.
const askTime = 10 * time.Second

// step is what the event says was done; nil where it does not say what was there before.
func step(e *eventsv1.PushEvent) *lane.Step {
	s := &lane.Step{Old: e.GetOld().GetHash(), New: e.GetNew().GetHash()}
	if s.Old == "" && e.GetAction() != eventsv1.PushEvent_CREATED {
		return nil
	}
	return s
}

// locate finds the place of a push in its branch's history. It asks Bitbucket where the branch is only
// where the lane cannot tell.
func (r *Router) locate(ctx context.Context, k lane.Key, l *storev1.Lane, ask *lane.Request) (lane.Place, error) {
	if r.Heads == nil {
		return r.Dispatcher.Locate(ctx, k, l, ask, nil)
	}
	return r.Dispatcher.Locate(ctx, k, l, ask, func(ctx context.Context, ref lane.Ref) (string, error) {
		head, err := r.headNow(ctx, k.Workspace, ask.Repository, ref)
		if err != nil {
			r.Logger.InfoContext(ctx, "not known whether a push is new", slog.String(logs.KeyApp, k.App), logs.Err(err))
		}
		return head, err
	})
}

// headNow asks Bitbucket where a branch or tag is; empty where there is none.
func (r *Router) headNow(ctx context.Context, workspace, repository string, ref lane.Ref) (string, error) {
	idx, err := r.Apps.Index(ctx, workspace, repository)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	is := func(name string) bool { return name == ref.Name() }
	if ref.IsTag() {
		heads, err := r.Heads.Heads(ctx, workspace, idx.GetFullName(), remote.Wanted{Tag: is})
		return heads.Tags[ref.Name()], err
	}
	heads, err := r.Heads.Heads(ctx, workspace, idx.GetFullName(), remote.Wanted{Branch: is})
	return heads.Branches[ref.Name()], err
}

// note has an app whose auto-deploy is off know at once where a branch of it is, where the push goes on from
// what was seen last. All else is left to the polls: a push that comes late must not hide a newer one.
func (r *Router) note(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, a *storev1.App, l *storev1.Lane) error {
	ref := lane.Branch(e.GetRef())
	seen := lane.HeadOf(l, a.GetRepository(), ref)
	if isTag(e) || e.GetNew().GetHash() == "" || seen.GetHash() == "" || seen.GetHash() != e.GetOld().GetHash() {
		return nil
	}
	now, err := r.Apps.App(ctx, k)
	switch {
	case apierr.Has(err, apierr.ReasonAppNotFound):
		return nil
	case err != nil:
		return err
	case now.GetVersion() != a.GetVersion(): // switched on since, perhaps: then this push is not to be passed over
		return nil
	}
	_, err = r.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
		if proto.Equal(lane.HeadOf(l, a.GetRepository(), ref), seen) {
			lane.Baseline(l, a.GetRepository(), ref.Name(), e.GetNew().GetHash(), r.Now())
		}
		return nil
	})
	if isRetired(err) {
		return nil
	}
	return err
}

// past answers a push that was seen, or passed by, with what came of it then.
func (r *Router) past(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, ask lane.Request) (*webhookv1.RecordedOutcome, error) {
	var d lane.Decision
	l, err := r.Dispatcher.Change(ctx, k, func(l *storev1.Lane) (err error) {
		if lane.Undecided(l) {
			return lane.ErrUndecided
		}
		d, err = lane.Repeat(l, ask)
		return err
	})
	switch {
	case isRetired(err):
		return nil, nil
	case errors.Is(err, lane.ErrMoved):
		return nil, fmt.Errorf("%w: %w", stream.ErrTemporary, err) // decided anew
	case err != nil:
		return nil, err
	}
	if err := r.Dispatcher.Dispatch(ctx, k, l); err != nil {
		return nil, err
	}
	return r.answer(ctx, e, k, d)
}

// answer is the outcome of a push about which the lane has decided.
func (r *Router) answer(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, d lane.Decision) (*webhookv1.RecordedOutcome, error) {
	if d.New {
		r.count(verdict.Deploys)
	} else {
		r.count(verdict.Repeated)
	}
	made := &deployerv1.Deployment{Number: d.Number}
	if d.Number != 0 && !d.New && r.Deployments != nil {
		have, err := r.Deployments.Deployment(ctx, k, d.Number)
		switch {
		case err == nil:
			made = have
		case !apierr.Has(err, apierr.ReasonDeploymentNotFound) && !apierr.Has(err, apierr.ReasonAppNotFound):
			return nil, err
		}
	}
	return r.outcome(e, outcome.Answer(k.App, e.GetRef(), d, made)), nil
}

// propose lets a worker decide about a push: its rules need the repository, or one that does came before.
func (r *Router) propose(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, a *storev1.App, ask lane.Request) (*webhookv1.RecordedOutcome, error) {
	for {
		l, err := r.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error { return lane.Propose(l, ask.Candidate()) })
		switch {
		case isRetired(err):
			return nil, nil
		case errors.Is(err, lane.ErrFull):
			if err := r.decideOldest(ctx, k, a, l); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		}
		if err := r.Dispatcher.Dispatch(ctx, k, l); err != nil {
			return nil, err
		}
		if number, seen := lane.Seen(l, ask.Event); seen && number > 0 {
			return r.answer(ctx, e, k, lane.Decision{Number: number})
		}
		r.count(verdict.Deciding)
		if r.Servers != nil {
			if _, offline := r.Servers.Offline(lane.Decider(l)); offline {
				return r.outcome(e, outcome.Deciding(k.App, lane.Decider(l), true)), nil
			}
		}
		return follows, nil
	}
}

// follows is the outcome of a push about which a worker decides: most are decided so soon that nobody
// needs to hear of it before. The worker tells of those that are not.
var follows = &webhookv1.RecordedOutcome{}

// decideOldest decides about the oldest push that waits, without the repository: too many wait.
func (r *Router) decideOldest(ctx context.Context, k lane.Key, a *storev1.App, l *storev1.Lane) error {
	if !lane.Undecided(l) {
		return nil
	}
	d := policy.About(l.GetCandidates()[0], a, r.Now())
	if d.Reason == "" && !d.Request.Deleted {
		verdict, err := policy.Unread(ctx, a, policy.Of(l, d.Request))
		if err != nil {
			return err
		}
		d.Rules(verdict)
	}
	l, err := r.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
		err := d.Apply(l)
		if errors.Is(err, lane.ErrLost) {
			return lane.ErrSkip // decided meanwhile
		}
		return err
	})
	if isBacklog(err) {
		return r.Dispatcher.Flush(ctx, k, l)
	}
	if err != nil {
		return err
	}
	return r.Dispatcher.Dispatch(ctx, k, l)
}
