package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/pushes"
)

// keptReplays is how many replays of a delivery are remembered, for repeats of their requests.
const keptReplays = 20

// Replay has a delivery considered again: its push events are published anew, marked as a replay.
// They are made from the body as it came, so that a better reading of it counts. A request id makes
// a repeat of the request the same replay.
func (l *Log) Replay(ctx context.Context, webhook *storev1.WebhookRecord, number int32, requestID string) (*webhookv1.Delivery, error) {
	rec, err := l.cfg.Store.Delivery(ctx, webhook.GetWorkspace(), webhook.GetId(), number)
	if err != nil {
		return nil, notFound(err)
	}
	raw, err := l.raw(ctx, rec)
	if err != nil {
		return nil, err
	}
	push, err := l.read(webhook, raw)
	if err != nil {
		return nil, err
	}
	var replay int32
	rec, err = l.cfg.Store.UpdateDelivery(ctx, webhook.GetWorkspace(), webhook.GetId(), number, func(cur *storev1.DeliveryRecord) error {
		replay = 0
		for _, r := range cur.GetReplays() {
			if requestID != "" && r.GetRequestId() == requestID {
				replay = r.GetNumber()
				return kv.ErrSkip
			}
		}
		replay = cur.GetDelivery().GetReplays() + 1
		cur.Delivery.Replays = replay
		cur.Replays = append(cur.Replays, &storev1.Replay{Number: replay, RequestId: requestID, Time: timestamppb.New(l.cfg.Now())})
		if n := len(cur.GetReplays()); n > keptReplays {
			cur.Replays = cur.GetReplays()[n-keptReplays:]
		}
		return nil
	})
	if err != nil {
		return nil, notFound(err)
	}
	events := pushes.Events(pushes.Source{Webhook: webhook, Delivery: raw, Number: number, Push: pushes.Read(push), Replay: replay})
	if err := pushes.Publish(ctx, l.cfg.JS, events); err != nil {
		return nil, err
	}
	return rec.GetDelivery(), nil
}

// raw reads a delivery as it came.
func (l *Log) raw(ctx context.Context, rec *storev1.DeliveryRecord) (*storev1.InboxDelivery, error) {
	d := rec.GetDelivery()
	if d.GetFound() != webhookv1.Delivery_FOUND_UNSPECIFIED {
		return nil, apierr.InvalidArgument("delivery", "Devpilot found this push by polling: there is no delivery of Bitbucket. Deploy the branch from the app instead")
	}
	raw, err := l.cfg.Store.InboxDelivery(ctx, rec.GetInboxSequence(), rec.GetInboxIndex())
	if err == nil && (raw.GetWorkspace() != d.GetWorkspace() || raw.GetWebhook() != d.GetWebhook() || !raw.GetReceiveTime().AsTime().Equal(d.GetReceiveTime().AsTime())) {
		err = natsstore.ErrBodyGone // the inbox was made again: its sequences name other deliveries
	}
	if errors.Is(err, natsstore.ErrBodyGone) {
		return nil, apierr.New(apierr.ReasonDeliveryNotFound, fmt.Sprintf("The delivery's body is no longer kept: bodies are kept for %d days. Deploy the branch from the app instead.", inbox.KeptFor/(24*time.Hour)), apierr.WithCause(err))
	}
	return raw, err
}

// MaxReplays is how many deliveries one request may have considered again.
const MaxReplays = 50

// ReplayRange has deliveries considered again, the oldest first, so that the newest of a branch is the
// one that is deployed in the end. Those that cannot be are skipped. After an error a repeat of the
// request goes on: what was replayed under its id is not replayed again.
func (l *Log) ReplayRange(ctx context.Context, webhook *storev1.WebhookRecord, first, last int32, requestID string) (done []*webhookv1.Delivery, skipped []*webhookv1.SkippedDelivery, err error) {
	for i := range last - first + 1 { // counted from the first: the last may be the highest number that there is
		number := first + i
		d, err := l.Replay(ctx, webhook, number, requestID)
		switch e := apierr.From(err); {
		case err == nil:
			done = append(done, d)
		case e.Reason() == apierr.ReasonDeliveryNotFound:
			skipped = append(skipped, &webhookv1.SkippedDelivery{Delivery: number, Message: e.Message()})
		case e.Reason() == apierr.ReasonInvalidArgument && len(e.Fields()) > 0:
			skipped = append(skipped, &webhookv1.SkippedDelivery{Delivery: number, Message: e.Fields()[0].Message})
		default:
			return nil, nil, err
		}
	}
	return done, skipped, nil
}

// Body is a delivery's body as it came, and until when it is kept.
func (l *Log) Body(ctx context.Context, workspace, webhook string, number int32) (body []byte, until time.Time, err error) {
	rec, err := l.cfg.Store.Delivery(ctx, workspace, webhook, number)
	if err != nil {
		return nil, time.Time{}, notFound(err)
	}
	raw, err := l.raw(ctx, rec)
	if err != nil {
		return nil, time.Time{}, err
	}
	body, err = l.cfg.Codec.Body(raw)
	return body, raw.GetReceiveTime().AsTime().Add(inbox.KeptFor), err
}

// read parses the push of a delivery that can be replayed.
func (l *Log) read(webhook *storev1.WebhookRecord, raw *storev1.InboxDelivery) (hook.Push, error) {
	if raw.GetEventKey() != hook.EventPush {
		return hook.Push{}, apierr.InvalidArgument("delivery", "it is not a push: there is nothing to consider again")
	}
	body, err := l.cfg.Codec.Body(raw)
	if err != nil {
		return hook.Push{}, err
	}
	push, err := hook.Parse(body)
	if err != nil {
		return hook.Push{}, fmt.Errorf("delivery: read the stored body: %w", err)
	}
	if push.Repository.UUID != "" && push.Repository.UUID != webhook.GetRepository() {
		return hook.Push{}, apierr.InvalidArgument("delivery", "it is about another repository than the webhook's")
	}
	return push, nil
}
