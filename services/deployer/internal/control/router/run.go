package router

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/fair"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	// Durable is the name of the router's consumer of push events, shared by all replicas.
	Durable = "deployer"
	// repositories is how many repositories' pushes one process decides about at once. Most take no
	// time; one that asks Bitbucket where a branch is may take seconds.
	repositories = 64
	// perWorkspace is how many of them may be of one workspace: where its git server answers slowly, the
	// others' pushes do not wait for it.
	perWorkspace = 24
	// turnMessages is how many messages, of up to 256 events each, of a repository are decided before
	// it is the next repository's turn.
	turnMessages = 16
)

// portion is one message: events of one repository, in their order.
type portion struct {
	events []*eventsv1.PushEvent
	// next is the first event that was not decided yet, and outcomes what came of those before: what
	// is tried again goes on where it stopped.
	next     int
	outcomes []*webhookv1.RecordedOutcome
}

// Run routes push events until ctx is done. A consumer that did not exist begins at the stream's
// start: events that came before the first deployer count too. Repositories take turns, so that one
// repository's burst, or a question about it that takes long, holds up no other.
func (r *Router) Run(ctx context.Context, js jetstream.JetStream, position stream.Position) error {
	queue := fair.New(fair.Config[*portion]{
		Workers: repositories, Turn: turnMessages, Group: workspaceOf, Share: perWorkspace, Handle: r.turn, Temporary: stream.Temporary,
		OnRetry: func(ctx context.Context, subject string, err error) {
			r.Logger.WarnContext(ctx, "pushes cannot be decided for now, trying again", slog.String(logs.KeyNATSSubject, subject), logs.Err(err))
		},
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		queue.Run(ctx, context.WithoutCancel(ctx))
		return nil
	})
	g.Go(func() error {
		return stream.Consume(ctx, stream.ConsumeConfig{
			JS: js, Stream: stream.PushesStream, Durable: Durable, Position: position, MaxAttempts: 30,
			Take: func(_ context.Context, m stream.Msg, done func(error)) {
				events, err := stream.PushEvents(m)
				if err != nil {
					done(stream.Parkf("cannot be decoded: %v", err))
					return
				}
				queue.Add(m.Subject, []*portion{{events: events}}, done)
			},
			Logger: r.Logger, Metrics: r.Metrics,
		})
	})
	return g.Wait()
}

// workspaceOf is the workspace of a subject's pushes.
func workspaceOf(subject string) string {
	workspace, _, _ := stream.ParsePushSubject(subject)
	return workspace
}

// turn decides about the events of some messages of one repository, and tells what came of them
// together.
func (r *Router) turn(ctx context.Context, _ string, portions []*portion) error {
	var outcomes []*webhookv1.RecordedOutcome
	var idx *storev1.RepositoryIndex
	for _, p := range portions {
		for ; p.next < len(p.events); p.next++ {
			e := p.events[p.next]
			if idx == nil {
				var err error
				if idx, err = r.Apps.Index(ctx, e.GetWorkspace(), e.GetRepository()); err != nil {
					return err
				}
			}
			added, err := r.event(stream.PushContext(ctx, e), e, idx)
			if err != nil {
				return err
			}
			if len(added) != 1 || added[0].GetOutcome().GetApp() != "" {
				idx = nil // something was decided, which takes time: what is watched may have changed
			}
			p.outcomes = append(p.outcomes, added...)
		}
		outcomes = append(outcomes, p.outcomes...)
	}
	return r.Outcomes.Put(ctx, outcomes...)
}

// Route decides about one event.
func (r *Router) Route(ctx context.Context, e *eventsv1.PushEvent) error {
	return r.turn(ctx, "", []*portion{{events: []*eventsv1.PushEvent{e}}})
}

// event decides about one event of a repository and says what came of it.
func (r *Router) event(ctx context.Context, e *eventsv1.PushEvent, idx *storev1.RepositoryIndex) ([]*webhookv1.RecordedOutcome, error) {
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, e.GetWorkspace()), slog.String(logs.KeyRepository, e.GetRepository()),
		slog.String(logs.KeyWebhook, e.GetWebhook()), slog.Int(logs.KeyDelivery, int(e.GetDelivery())))
	if name := e.GetRepositoryFullName(); name != "" && name != idx.GetFullName() && len(idx.GetWatches()) > 0 && !e.GetReplay() {
		if err := r.Apps.NameGiven(ctx, e.GetWorkspace(), e.GetRepository(), name); err != nil {
			return nil, err
		}
	}
	switch e.GetAction() { //nolint:exhaustive // the others change a branch or a tag
	case eventsv1.PushEvent_UNKNOWN:
		return nil, r.Poller.RequestPoll(ctx, e.GetWorkspace(), e.GetRepository(), &storev1.Ask{
			Event: e.GetId(), Webhook: e.GetWebhook(), Delivery: e.GetDelivery(), Change: e.GetChange(), ReceiveTime: e.GetReceiveTime(),
			Unreadable: e.GetUnreadable(),
		})
	case eventsv1.PushEvent_ACTION_UNSPECIFIED:
		return nil, nil
	}
	return r.ref(ctx, e, idx)
}
