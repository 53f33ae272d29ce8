package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
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

// record stores the turn's deliveries, and notes those that Bitbucket sent once more.
func (r *Router) record(ctx context.Context, rec *storev1.WebhookRecord, t *turn) error {
	var recs []*storev1.DeliveryRecord
	attempts := map[int32]func(*storev1.DeliveryRecord) error{}
	for _, it := range t.items {
		if it.duplicate {
			attempts[it.number] = noteAttempt(it, attempts[it.number])
			continue
		}
		if it.again { // an earlier version may have stored it, in another place
			_, err := r.cfg.Store.Delivery(ctx, t.workspace, t.webhook, it.number)
			if err == nil {
				continue
			}
			if !errors.Is(err, kv.ErrNotFound) {
				return err
			}
		}
		recs = append(recs, &storev1.DeliveryRecord{Delivery: r.delivery(rec, it), InboxSequence: it.sequence, InboxIndex: it.place})
	}
	if err := r.cfg.Store.PutDeliveries(ctx, t.workspace, t.webhook, recs); err != nil {
		return err
	}
	err := r.cfg.Store.UpdateDeliveries(ctx, t.workspace, t.webhook, attempts)
	if errors.Is(err, kv.ErrNotFound) { // it gave way to newer ones
		return nil
	}
	return err
}

// noteAttempt notes on the delivery that Bitbucket sent it once more, after what is noted already.
func noteAttempt(it *item, before func(*storev1.DeliveryRecord) error) func(*storev1.DeliveryRecord) error {
	return func(cur *storev1.DeliveryRecord) error {
		changed := error(kv.ErrSkip) //nolint:unconvert // as the record has it
		if before != nil {
			changed = before(cur)
		}
		if cur.GetDelivery().GetAttempt() >= it.delivery.GetAttempt() {
			return changed
		}
		cur.Delivery.Attempt = it.delivery.GetAttempt()
		return nil
	}
}

func (r *Router) delivery(rec *storev1.WebhookRecord, it *item) *webhookv1.Delivery {
	d := it.delivery
	out := &webhookv1.Delivery{
		Webhook: rec.GetId(), Workspace: rec.GetWorkspace(), Repository: rec.GetRepository(),
		RepositoryFullName: pushes.FullName(rec, it.push), Number: it.number,
		ReceiveTime: d.GetReceiveTime(), EventKey: d.GetEventKey(), RequestUuid: d.GetRequestUuid(), Attempt: d.GetAttempt(),
		AnswerStatus: d.GetAnswerStatus(), AnswerMessage: d.GetAnswerMessage(), BodyBytes: d.GetBodyBytes(),
		Changes: pushes.Changes(it.push), ActorLabel: it.push.GetActorLabel(),
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
			Message: "The stored delivery could not be read. Devpilot asks Bitbucket for its branches instead."}
	case foreign(rec, it.push):
		return ignored(ReasonOtherRepository, fmt.Sprintf(
			"The delivery is about %s, but the webhook belongs to %s.", it.push.GetFullName(), rec.GetRepositoryFullName()))
	case rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET:
		if rec.GetReason() == string(apierr.ReasonNotConnected) {
			return ignored(string(apierr.ReasonNotConnected), "Bitbucket is disconnected in Devpilot. Connect it again under Integrations.")
		}
		return ignored(ReasonNotWatched, "No app deploys this repository on push.")
	}
	return nil
}

// foreign reports whether a push is about another repository than the webhook's.
func foreign(rec *storev1.WebhookRecord, push *storev1.ReadPush) bool {
	return push.GetRepository() != "" && push.GetRepository() != rec.GetRepository()
}

// publish publishes the push events of the turn's deliveries, as far as they have any.
func (r *Router) publish(ctx context.Context, rec *storev1.WebhookRecord, t *turn) error {
	var events []*eventsv1.PushEvent
	again := map[string]bool{} // ids of events that may have been published before
	since := time.Now()
	for _, p := range t.portions {
		for _, it := range p.items {
			made := r.events(ctx, rec, it)
			events = append(events, made...)
			for _, e := range made {
				if it.again {
					again[e.GetId()] = true
				}
			}
		}
		if p.stored.Before(since) {
			since = p.stored
		}
	}
	if len(again) > 0 {
		// After a crash. The stream's own memory for repeats is for the packs as they were.
		there, err := pushes.Published(ctx, r.cfg.JS, rec.GetWorkspace(), rec.GetRepository(), since.Add(-clockSkew))
		if err != nil {
			return err
		}
		events = slices.DeleteFunc(events, func(e *eventsv1.PushEvent) bool { return there[e.GetId()] && again[e.GetId()] })
	}
	return pushes.Publish(ctx, r.cfg.JS, events)
}

// clockSkew is how far the clocks of two servers of NATS may be apart.
const clockSkew = time.Minute

// events are the push events of a delivery.
func (r *Router) events(ctx context.Context, rec *storev1.WebhookRecord, it *item) []*eventsv1.PushEvent {
	if it.duplicate || it.delivery.GetEventKey() != hook.EventPush || foreign(rec, it.push) || rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET {
		return nil
	}
	if it.unread != nil {
		r.cfg.Logger.ErrorContext(ctx, "stored delivery cannot be read", slog.String(logs.KeyWebhook, rec.GetId()),
			slog.Int(logs.KeyDelivery, int(it.number)), logs.Err(it.unread))
	}
	return pushes.Events(pushes.Source{Webhook: rec, Delivery: it.delivery, Number: it.number, Push: it.push})
}
