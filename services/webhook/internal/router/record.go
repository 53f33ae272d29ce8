package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/pushes"
)

// Reasons of outcomes that are decided here; the deployer decides the others.
const (
	ReasonEventNotUsed    = "EVENT_NOT_USED"
	ReasonOtherRepository = "OTHER_REPOSITORY"
	ReasonNotWatched      = "NOT_WATCHED"
	ReasonBodyUnreadable  = "BODY_UNREADABLE"
)

// record stores the group's deliveries.
func (r *Router) record(ctx context.Context, rec *storev1.WebhookRecord, g *group) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallel)
	for _, it := range g.items {
		if it.duplicate {
			eg.Go(func() error { return r.noteAttempt(ctx, g, it) })
			continue
		}
		eg.Go(func() error {
			return r.cfg.Store.PutDelivery(ctx, &storev1.DeliveryRecord{
				Delivery: r.delivery(rec, it), InboxSequence: it.sequence, InboxIndex: it.place,
			})
		})
	}
	return eg.Wait()
}

// noteAttempt notes on the delivery that Bitbucket sent it once more.
func (r *Router) noteAttempt(ctx context.Context, g *group, it *item) error {
	_, err := r.cfg.Store.UpdateDelivery(ctx, g.workspace, g.webhook, it.number, func(cur *storev1.DeliveryRecord) error {
		if cur.GetDelivery().GetAttempt() >= it.delivery.GetAttempt() {
			return kv.ErrSkip
		}
		cur.Delivery.Attempt = it.delivery.GetAttempt()
		return nil
	})
	if errors.Is(err, kv.ErrNotFound) { // it gave way to newer ones
		return nil
	}
	return err
}

func (r *Router) delivery(rec *storev1.WebhookRecord, it *item) *webhookv1.Delivery {
	d := it.delivery
	out := &webhookv1.Delivery{
		Webhook: rec.GetId(), Workspace: rec.GetWorkspace(), Repository: rec.GetRepository(),
		RepositoryFullName: pushes.FullName(rec, it.push), Number: it.number,
		ReceiveTime: d.GetReceiveTime(), EventKey: d.GetEventKey(), RequestUuid: d.GetRequestUuid(), Attempt: d.GetAttempt(),
		AnswerStatus: d.GetAnswerStatus(), AnswerMessage: d.GetAnswerMessage(), BodyBytes: d.GetBodyBytes(),
		Changes: pushes.Changes(it.push), ActorLabel: it.push.Actor.Label(),
	}
	if o := r.outcome(rec, it); o != nil {
		o.Time = timestamppb.New(r.cfg.Now())
		out.Outcomes = append(out.Outcomes, o)
	}
	return out
}

// outcome is what can be said of a delivery without push events; nil where the deployer's rules
// decide, about tags too.
func (r *Router) outcome(rec *storev1.WebhookRecord, it *item) *webhookv1.DeliveryOutcome {
	ignored := func(reason, message string) *webhookv1.DeliveryOutcome {
		return &webhookv1.DeliveryOutcome{Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: reason, Message: message}
	}
	switch {
	case it.delivery.GetEventKey() != hook.EventPush:
		return ignored(ReasonEventNotUsed, "Devpilot deploys on pushes only.")
	case it.unread != nil:
		return &webhookv1.DeliveryOutcome{Kind: webhookv1.DeliveryOutcome_FAILED, Reason: ReasonBodyUnreadable,
			Message: "The stored delivery could not be read. Devpilot looks at the repository instead."}
	case foreign(rec, it.push):
		return ignored(ReasonOtherRepository, fmt.Sprintf(
			"The delivery is about %s, but the webhook belongs to %s.", it.push.Repository.FullName, rec.GetRepositoryFullName()))
	case rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET:
		if rec.GetReason() == string(apierr.ReasonNotConnected) {
			return ignored(string(apierr.ReasonNotConnected), "Bitbucket is disconnected in Devpilot. Connect it again under Integrations.")
		}
		return ignored(ReasonNotWatched, "No app deploys this repository on push.")
	}
	return nil
}

// foreign reports whether a push is about another repository than the webhook's.
func foreign(rec *storev1.WebhookRecord, push hook.Push) bool {
	return push.Repository.UUID != "" && push.Repository.UUID != rec.GetRepository()
}

// publish publishes the push events of a delivery, if it has any.
func (r *Router) publish(ctx context.Context, rec *storev1.WebhookRecord, it *item) error {
	if it.delivery.GetEventKey() != hook.EventPush || foreign(rec, it.push) || rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET {
		return nil
	}
	if it.unread != nil {
		r.cfg.Logger.ErrorContext(ctx, "stored delivery cannot be read", slog.String(logs.KeyWebhook, rec.GetId()),
			slog.Int(logs.KeyDelivery, int(it.number)), logs.Err(it.unread))
	}
	return pushes.Publish(ctx, r.cfg.JS, it.delivery, pushes.Events(pushes.Source{
		Webhook: rec, Delivery: it.delivery, Number: it.number, Push: it.push,
	}))
}
