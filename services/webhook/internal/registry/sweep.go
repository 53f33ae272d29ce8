package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// sweepLoop looks through all webhooks at the start and now and then, for what no event tells: the
// settings changed, a secret expired, a check was never planned.
func (r *Registry) sweepLoop(ctx context.Context) {
	pauses := stream.Pauses(50*time.Millisecond, time.Second) // until the webhooks are known
	wait := pauses.NextBackOff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if r.cfg.Cache.Ready(ctx) != nil {
			wait = pauses.NextBackOff()
			continue
		}
		wait = r.cfg.Timing.Sweep
		rotated := 0
		for _, rec := range r.cfg.Cache.All() {
			if ctx.Err() != nil {
				return
			}
			if r.aged(rec) {
				if rotated++; rotated > agedPerSweep {
					continue
				}
			}
			if err := r.sweep(ctx, rec); err != nil && ctx.Err() == nil && !errors.Is(err, kv.ErrNotFound) {
				r.cfg.Logger.WarnContext(ctx, "webhook not swept", slog.String(logs.KeyWebhook, rec.GetId()), logs.Err(err))
			}
		}
	}
}

func (r *Registry) sweep(ctx context.Context, rec *storev1.WebhookRecord) error {
	if !r.neglected(rec) && !r.aged(rec) && (rec.GetOldSecret() == nil || !oldExpired(rec, r.cfg.Now())) {
		return nil
	}
	_, err := r.cfg.Store.Update(ctx, rec.GetWorkspace(), rec.GetId(), func(cur *storev1.WebhookRecord) error {
		changed := dropExpired(cur, r.cfg.Now())
		if r.neglected(cur) {
			changed = true
			r.want(cur, false)
		}
		if r.aged(cur) {
			changed = true
			if err := r.rotate(cur); err != nil {
				return err
			}
			r.want(cur, false)
		}
		if !changed {
			return kv.ErrSkip
		}
		return nil
	})
	return err
}

// neglected reports whether a webhook needs work at Bitbucket that is not planned.
func (r *Registry) neglected(rec *storev1.WebhookRecord) bool {
	if rec.GetLease() != nil || rec.GetWork().GetWanted() > rec.GetWork().GetDone() && rec.GetWork().GetDueTime() != nil {
		return false // somebody is at it, or will be
	}
	switch rec.GetState() {
	case webhookv1.Webhook_ACTIVE, webhookv1.Webhook_DRIFTED:
		// The public URL changed, and the hook has the old one.
		if rec.GetRegisteredUrl() != r.cfg.View.Address.URL(rec.GetId()) {
			return true
		}
	case webhookv1.Webhook_MANUAL:
		return r.moved(rec)
	case webhookv1.Webhook_NOT_REGISTERED:
		// The public URL changed, and Bitbucket can reach us now.
		if rec.GetReason() == string(apierr.ReasonNoPublicURL) && r.cfg.View.Address.Unreachable() == nil {
			return len(rec.GetWatches()) > 0
		}
		return false
	case webhookv1.Webhook_REMOVED:
		return len(rec.GetWatches()) > 0 && rec.GetWork().GetDueTime() == nil
	case webhookv1.Webhook_PENDING:
		// Made, or asked for, and then nobody came.
	default:
		return false
	}
	return rec.GetWork().GetDueTime() == nil
}
