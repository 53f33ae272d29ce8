// Package router turns push events into decisions of lanes (DESIGN.md#a-push-becomes-a-deployment):
// for each change it finds the apps that watch the branch, has their lanes decide,
// and says what came of it, in words, for the delivery's log.
//
// What it costs depends on how many apps watch the repository, not on how many there are. An event
// that comes again is decided as before.
//
// Depends on pkg/stream and on the interfaces below.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Apps reads what people saved.
type Apps interface {
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
	Index(ctx context.Context, workspace, repository string) (*storev1.RepositoryIndex, error)
	// NameGiven takes the name that a delivery gives the repository.
	NameGiven(ctx context.Context, workspace, repository, fullName string) error
}

// Connections knows the workspaces' integrations.
type Connections interface {
	Get(ctx context.Context, workspace string) (*storev1.Connection, error)
}

// Poller has a repository polled because a delivery listed no changes, or some that cannot be read; the
// outcome follows.
type Poller interface {
	RequestPoll(ctx context.Context, workspace, repository string, ask *storev1.Ask) error
}

// Outcomes takes what came of a change.
type Outcomes interface {
	Put(ctx context.Context, outcomes ...*webhookv1.RecordedOutcome) error
}

// Router is safe for concurrent use.
type Router struct {
	Apps        Apps
	Connections Connections
	Poller      Poller
	Outcomes    Outcomes
	Dispatcher  *lane.Dispatcher
	SiteURL     string
	Logger      *slog.Logger
	Metrics     *stream.Metrics
	Now         func() time.Time
	// Heads tells where a branch is when a push may be a repeat; nil: every such push is taken for new.
	Heads Heads
	// Deployments tells how a deployment stands that a repeat is answered with; nil: not at all.
	Deployments Deployments
	// Servers tells whether a server has workers that decide; nil: not at all.
	Servers Servers
	// Tracer records a push's decision; may be nil.
	Tracer trace.Tracer
	// Count counts what comes of pushes, in the words of package verdict; nil: nobody does.
	Count func(verdict string)
}

// Heads asks Bitbucket for branches and tags; those that do not exist are left out.
type Heads interface {
	Heads(ctx context.Context, workspace, fullName string, want remote.Wanted) (remote.Heads, error)
}

// Servers knows the servers.
type Servers interface {
	Offline(server string) (since time.Time, offline bool)
}

// Deployments reads deployments.
type Deployments interface {
	Deployment(ctx context.Context, k lane.Key, number int32) (*deployerv1.Deployment, error)
}

// ref decides about a change of a branch or a tag, for each app that may watch it.
func (r *Router) ref(ctx context.Context, e *eventsv1.PushEvent, idx *storev1.RepositoryIndex) ([]*webhookv1.RecordedOutcome, error) {
	var outcomes []*webhookv1.RecordedOutcome
	for _, id := range candidates(idx, e) {
		o, err := r.app(ctx, e, lane.Key{Workspace: e.GetWorkspace(), App: id})
		if err != nil {
			return nil, err
		}
		if o != nil {
			outcomes = append(outcomes, o)
		}
	}
	outcomes, all := slices.DeleteFunc(outcomes, func(o *webhookv1.RecordedOutcome) bool { return o == follows }), len(outcomes)
	if all > 0 && len(outcomes) == 0 {
		return nil, nil
	}
	if len(outcomes) == 0 {
		outcomes = append(outcomes, r.ignored(e, "", notWatchedReason(e), notWatched(e, idx)))
	}
	return outcomes, nil
}

func isTag(e *eventsv1.PushEvent) bool { return e.GetRefType() == eventsv1.PushEvent_TAG }

// candidates are the apps that the index says may watch a branch or a tag.
func candidates(idx *storev1.RepositoryIndex, e *eventsv1.PushEvent) []string {
	var out []string
	for _, w := range idx.GetWatches() {
		if watches(e, w.GetBranch(), w.GetTags()) && !slices.Contains(out, w.GetApp()) {
			out = append(out, w.GetApp())
		}
	}
	return out
}

func watches(e *eventsv1.PushEvent, branch string, tags []string) bool {
	if isTag(e) {
		return rules.MatchTag(tags, e.GetRef())
	}
	return rules.MatchBranch(branch, e.GetRef())
}

func notWatchedReason(e *eventsv1.PushEvent) string {
	if isTag(e) {
		return rules.ReasonTagNotWatched
	}
	return rules.ReasonBranchNotWatched
}

func notWatched(e *eventsv1.PushEvent, idx *storev1.RepositoryIndex) string {
	kind := "Branch"
	var watched []string
	for _, w := range idx.GetWatches() {
		names := []string{w.GetBranch()}
		if isTag(e) {
			kind, names = "Tag", w.GetTags()
		}
		for _, n := range names {
			if w.GetAutoDeploy() && !slices.Contains(watched, n) {
				watched = append(watched, n)
			}
		}
	}
	switch {
	case len(watched) > 0:
		slices.Sort(watched)
		return fmt.Sprintf("%s %s is not watched; watching %s", kind, e.GetRef(), strings.Join(watched, ", "))
	case isTag(e) && len(idx.GetWatches()) > 0:
		return fmt.Sprintf("Tag %s does not deploy: no app of this repository deploys tags", e.GetRef())
	}
	return fmt.Sprintf("%s %s is not watched; no app watches this repository", kind, e.GetRef())
}

// app decides for one app; nil when the app does not watch the branch after all.
func (r *Router) app(ctx context.Context, e *eventsv1.PushEvent, k lane.Key) (_ *webhookv1.RecordedOutcome, err error) {
	ctx, span := tracing.Start(ctx, r.Tracer, "decide push", tracing.About{Workspace: k.Workspace, App: k.App, Repository: e.GetRepository(), Delivery: e.GetDelivery()})
	defer func() { span.End(err) }()
	a, err := r.Apps.App(ctx, k)
	switch {
	case apierr.Has(err, apierr.ReasonAppNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case a.GetRepository() != e.GetRepository(), !watches(e, a.GetBranch(), a.GetRules().GetTags()):
		return nil, nil
	}
	ask := r.ask(e, a)
	ask.Traceparent = tracing.Traceparent(ctx)
	l, _, err := r.Dispatcher.Get(ctx, k)
	if err != nil {
		return nil, err
	}
	if number, seen := lane.Seen(l, ask.Event); seen && number > 0 {
		if err := r.Dispatcher.Dispatch(ctx, k, l); err != nil {
			return nil, err
		}
		return r.answer(ctx, e, k, lane.Decision{Number: number})
	}
	if !a.GetAutoDeploy() {
		if err := r.note(ctx, e, k, a, l); err != nil {
			return nil, err
		}
		reason, message := policy.AutoDeployOff(a)
		return r.ignored(e, k.App, reason, message), nil
	}
	connection, err := r.Connections.Get(ctx, k.Workspace)
	if err != nil {
		return nil, err
	}
	if connection.GetDisconnected() {
		return r.ignored(e, k.App, string(apierr.ReasonNotConnected), apps.Disconnected), nil
	}
	if len(connection.GetNarrowedTo()) > 0 {
		idx, err := r.Apps.Index(ctx, k.Workspace, a.GetRepository())
		if err != nil {
			return nil, err
		}
		if t := apps.Outside(connection, idx); t != nil {
			return r.ignored(e, k.App, t.GetReason(), strings.TrimSuffix(t.GetMessage(), ".")), nil
		}
	}
	o, err := r.decide(ctx, e, k, a, l, ask)
	if errors.Is(err, lane.ErrUndecided) {
		return r.propose(ctx, e, k, a, ask)
	}
	return o, err
}

// decide decides about a push that needs no git; lane.ErrUndecided about one that does, or that comes
// after one that waits for its decision.
func (r *Router) decide(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, a *storev1.App, l *storev1.Lane, ask lane.Request) (*webhookv1.RecordedOutcome, error) {
	if lane.Undecided(l) {
		return nil, lane.ErrUndecided
	}
	place, err := r.locate(ctx, k, l, &ask)
	switch {
	case err != nil:
		return nil, err
	case place == lane.Past && !ask.Deleted:
		return r.past(ctx, e, k, ask)
	}
	if ask.Deleted {
		_, err := r.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
			if lane.Undecided(l) {
				return lane.ErrUndecided
			}
			return lane.RefDeleted(l, ask)
		})
		if err != nil && !isRetired(err) {
			return nil, err
		}
		reason, message := policy.Deleted(ask)
		return r.ignored(e, k.App, reason, message), nil
	}
	said, decided, err := policy.Quick(ctx, a, policy.Of(l, ask))
	switch {
	case err != nil:
		return nil, err
	case !decided:
		return nil, lane.ErrUndecided
	case !said.Deploys:
		return r.turnAway(ctx, e, k, ask, said)
	}
	ask.Notes = said.Notes
	return r.accept(ctx, e, k, ask)
}

// turnAway notes that a rule turned the push away.
func (r *Router) turnAway(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, ask lane.Request, v rules.Verdict) (*webhookv1.RecordedOutcome, error) {
	if _, err := r.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
		if lane.Undecided(l) {
			return lane.ErrUndecided
		}
		ask.Reason, ask.Message = v.Reason, v.Message
		return lane.TurnAway(l, ask)
	}); err != nil {
		if isRetired(err) {
			return nil, nil
		}
		return nil, err
	}
	return r.ignored(e, k.App, v.Reason, strings.TrimSuffix(v.Message, ".")), nil
}

func (r *Router) accept(ctx context.Context, e *eventsv1.PushEvent, k lane.Key, ask lane.Request) (*webhookv1.RecordedOutcome, error) {
	for {
		var d lane.Decision
		into, span := tracing.Start(ctx, r.Tracer, "change lane", tracing.About{Workspace: k.Workspace, App: k.App})
		l, err := r.Dispatcher.Change(into, k, func(l *storev1.Lane) (err error) {
			if lane.Undecided(l) {
				return lane.ErrUndecided
			}
			d, err = lane.Accept(l, ask)
			return err
		})
		span.End(err)
		switch {
		case isRetired(err):
			return nil, nil
		case isBacklog(err):
			if l, _, err = r.Dispatcher.Get(ctx, k); err == nil {
				err = r.Dispatcher.Flush(ctx, k, l)
			}
			if err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		}
		if err := r.Dispatcher.Dispatch(ctx, k, l); err != nil {
			return nil, err
		}
		r.Logger.InfoContext(ctx, "push accepted", slog.String(logs.KeyApp, k.App), slog.Int(logs.KeyDeployment, int(d.Number)), slog.Bool("new", d.New))
		return r.answer(ctx, e, k, d)
	}
}

func (r *Router) ask(e *eventsv1.PushEvent, a *storev1.App) lane.Request {
	ask := lane.Request{
		Event: e.GetId(), Replay: e.GetReplay(), ReceiveTime: e.GetReceiveTime().AsTime(), Trigger: deployerv1.Deployment_PUSH,
		Repository: e.GetRepository(), Branch: e.GetRef(), Server: a.GetServer(), Now: r.Now(),
		Delivery: &deployerv1.DeliveryReference{Webhook: e.GetWebhook(), Number: e.GetDelivery()},
		Actor:    &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_BITBUCKET_ACCOUNT, Label: e.GetActor().GetLabel()},
	}
	ask.CancelRunning = a.GetCancelRunning()
	ask.Askers = []*storev1.Asker{{Webhook: e.GetWebhook(), Delivery: e.GetDelivery(), Change: e.GetChange()}}
	ask.Step, ask.Old = step(e), e.GetOld().GetHash()
	ask.Created, ask.Deleted, ask.Forced = e.GetAction() == eventsv1.PushEvent_CREATED, e.GetAction() == eventsv1.PushEvent_DELETED, e.GetForced()
	ask.MessageKnown = e.GetNew().GetMessage() != ""
	if e.GetForced() {
		ask.ForcedFrom = e.GetOld().GetHash()
	}
	if isTag(e) {
		ask.Branch, ask.Tag = "", e.GetRef()
	}
	if c := e.GetNew(); c.GetHash() != "" {
		ask.Commit = &deployerv1.DeploymentCommit{
			Hash: c.GetHash(), Message: c.GetMessage(), AuthorName: c.GetAuthorName(), AuthorEmail: c.GetAuthorEmail(), Time: c.GetTime(),
			Url: r.SiteURL + "/" + e.GetRepositoryFullName() + "/commits/" + c.GetHash(),
		}
	}
	return ask
}

func (r *Router) count(what string) {
	if r.Count != nil {
		r.Count(what)
	}
}

func (r *Router) ignored(e *eventsv1.PushEvent, app, reason, message string) *webhookv1.RecordedOutcome {
	r.count(verdict.Ignored)
	return r.outcome(e, &webhookv1.DeliveryOutcome{App: app, Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: reason, Message: message})
}

func (r *Router) outcome(e *eventsv1.PushEvent, o *webhookv1.DeliveryOutcome) *webhookv1.RecordedOutcome {
	o.Change, o.Time = e.GetChange(), timestamppb.New(r.Now())
	return &webhookv1.RecordedOutcome{Workspace: e.GetWorkspace(), Webhook: e.GetWebhook(), Delivery: e.GetDelivery(), Outcome: o}
}
