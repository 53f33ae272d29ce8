package delivery

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
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
	raw, err := l.cfg.Store.InboxDelivery(ctx, rec.GetInboxSequence(), rec.GetInboxIndex())
	if errors.Is(err, natsstore.ErrBodyGone) {
		return nil, apierr.New(apierr.ReasonDeliveryNotFound, "The delivery's body is no longer kept: bodies are kept for 7 days. Deploy the branch from the app instead.", apierr.WithCause(err))
	}
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
