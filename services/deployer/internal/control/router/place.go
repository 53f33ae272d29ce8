package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"

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
// where the lane cannot tell: a push that came before, of a branch that is again where that push began.
func (r *Router) locate(ctx context.Context, k lane.Key, l *storev1.Lane, ask *lane.Ask, ref lane.Ref) (lane.Place, error) {
	if lane.HeadOf(l, ask.Repository, ref) == nil {
		known, err := r.Keeper.Known(ctx, k, l, ask.Repository)
		if err != nil {
			return 0, err
		}
		if head, seen := known.Head(ref); seen {
			ask.Head = &head
		}
	}
	place, _ := lane.PlaceOf(l, *ask)
	if place != lane.Doubtful || r.Heads == nil {
		return place, nil
	}
	head, err := r.headNow(ctx, k.Workspace, ask.Repository, ref)
	if err != nil {
		r.Logger.InfoContext(ctx, "not known whether a push is new", slog.String(logs.KeyApp, k.App), logs.Err(err))
		return place, ctx.Err()
	}
	ask.Actual = &head
	place, _ = lane.PlaceOf(l, *ask)
	return place, nil
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
		heads, err := r.Heads.Heads(ctx, workspace, idx.GetFullName(), mirror.Wanted{Tag: is})
		return heads.Tags[ref.Name()], err
	}
	heads, err := r.Heads.Heads(ctx, workspace, idx.GetFullName(), mirror.Wanted{Branch: is})
	return heads.Branches[ref.Name()], err
}

// past answers a push that was seen, or passed by, with what came of it then.
func (r *Router) past(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, ask lane.Ask) (*webhookv1.RecordedOutcome, error) {
	var d lane.Decision
	l, err := r.Keeper.Change(ctx, k, func(l *storev1.Lane) (err error) {
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
	if err := r.Keeper.Settle(ctx, k, l); err != nil {
		return nil, err
	}
	return r.answer(ctx, e, k, d)
}

// answer is the outcome of a push about which the lane has decided.
func (r *Router) answer(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, d lane.Decision) (*webhookv1.RecordedOutcome, error) {
	if d.Number == 0 {
		message := "This push was seen before"
		if d.Past {
			message = fmt.Sprintf("This push was seen before, or %s had moved on when it came: nothing changes", e.GetRef())
		}
		return r.ignored(e, k.App, "SEEN_BEFORE", message), nil
	}
	made := &deployerv1.Deployment{Number: d.Number}
	if !d.New && r.Deployments != nil {
		have, err := r.Deployments.Deployment(ctx, k, d.Number)
		switch {
		case err == nil:
			made = have
		case !apierr.Has(err, apierr.ReasonDeploymentNotFound) && !apierr.Has(err, apierr.ReasonAppNotFound):
			return nil, err
		}
	}
	o := outcome.Deployment(k.App, made)
	switch {
	case d.Reconciled && made.GetState() == deployerv1.Deployment_COMPLETED:
		o.Message += ", which Devpilot had found by itself before this delivery came"
	case d.Reconciled:
		o.Message += ". It is what Devpilot had found by itself before this delivery came"
	case d.Past:
		o.Message += ". This delivery came late, or once more, and changed nothing"
	}
	return r.outcome(e, o), nil
}
