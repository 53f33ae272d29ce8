package registry

import (
	"context"
	"slices"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Get returns a webhook of the workspace.
func (r *Registry) Get(ctx context.Context, workspace, id string) (*storev1.WebhookRecord, error) {
	rec, err := r.cfg.Store.Get(ctx, workspace, id)
	return rec, notFound(err)
}

// Repair compares the webhook with Bitbucket's list and puts it right. It is a registration anew:
// the hook is always written, because whether its secret is right cannot be seen, and switched on.
func (r *Registry) Repair(ctx context.Context, workspace, id, etag string) (*storev1.WebhookRecord, error) {
	return r.ask(ctx, workspace, id, etag, activate)
}

// rotationPause is how long after a rotation the next one may begin: deliveries on their way are signed
// with the secret before, and two secrets are all that are accepted.
const rotationPause = time.Minute

// Rotate makes a new secret, accepted beside the old one, and puts it on Bitbucket. A rotation that
// has not reached Bitbucket is completed instead of beginning another. Where the webhook is added
// by hand the person replaces the secret; that we may not is then no error.
func (r *Registry) Rotate(ctx context.Context, workspace, id, etag, requestID string) (*storev1.WebhookRecord, error) {
	repeated := func(rec *storev1.WebhookRecord) bool {
		return requestID != "" && slices.Contains(rec.GetRotateRequestIds(), requestID)
	}
	rec, err := r.Get(ctx, workspace, id)
	if err != nil {
		return nil, err
	}
	if repeated(rec) {
		etag = "" // the first of these requests has changed it
	}
	rec, err = r.ask(ctx, workspace, id, etag, func(cur *storev1.WebhookRecord) error {
		if repeated(cur) {
			return nil
		}
		if requestID != "" {
			ids := append(cur.GetRotateRequestIds(), requestID)
			cur.RotateRequestIds = ids[max(0, len(ids)-keptRotations):]
		}
		return r.rotate(cur)
	})
	switch rec.GetState() {
	case webhookv1.Webhook_MANUAL, webhookv1.Webhook_NOT_REGISTERED:
		if byHand(rec.GetWork().GetErrorReason()) {
			return rec, nil
		}
	default:
	}
	return rec, err
}

// keptRotations is how many request ids of rotations are remembered: with a minute between two
// rotations they are those of the last hour at least, of a person's those of a day.
const keptRotations = 60

func (r *Registry) rotate(rec *storev1.WebhookRecord) error {
	now := r.cfg.Now()
	dropExpired(rec, now)
	switch {
	case rec.GetOldSecret() != nil && rec.GetOldSecretExpireTime() == nil:
		return nil
	case rec.GetOldSecret() != nil:
		if since := now.Sub(rec.GetSecret().GetConfirmTime().AsTime()); since < rotationPause {
			return apierr.New(apierr.ReasonRateLimited, "The secret was rotated a moment ago, and deliveries signed with the old one may be on their way. Wait a minute.",
				apierr.WithRetryAfter(rotationPause-since))
		}
	}
	fresh, err := r.cfg.Vault.fresh(rec, now)
	if err != nil {
		return err
	}
	rec.OldSecret, rec.OldSecretExpireTime, rec.Secret = rec.GetSecret(), nil, fresh
	if rec.GetState() == webhookv1.Webhook_MANUAL {
		rec.Message = manualMessage(rec)
	}
	r.touch(rec)
	return nil
}

// Reveal returns the secret to enter at Bitbucket.
func (r *Registry) Reveal(ctx context.Context, workspace, id string) (*storev1.WebhookRecord, seal.Secret, error) {
	rec, err := r.Get(ctx, workspace, id)
	if err != nil {
		return nil, seal.Secret{}, err
	}
	secret, err := r.cfg.Vault.open(rec, rec.GetSecret())
	return rec, secret, err
}

// Dismiss takes a webhook that was left on Bitbucket, or is not used any more, off the list. Its
// record stays: should the repository be watched again, its hook is found by the same URL.
func (r *Registry) Dismiss(ctx context.Context, workspace, id, etag string) error {
	_, err := r.cfg.Store.Update(ctx, workspace, id, func(cur *storev1.WebhookRecord) error {
		if err := CheckEtag(cur, etag); err != nil {
			return err
		}
		if cur.GetDismissed() {
			return kv.ErrSkip
		}
		switch cur.GetState() {
		case webhookv1.Webhook_LEFT_ON_BITBUCKET, webhookv1.Webhook_REMOVED:
		default:
			return apierr.New(apierr.ReasonWebhookInUse, "The webhook is in use. Switch auto-deploy off in the apps of its repository; Devpilot then removes it from Bitbucket.")
		}
		cur.Dismissed = true
		r.touch(cur)
		return nil
	})
	return notFound(err)
}

// Hidden reports whether a webhook is kept off the list.
func Hidden(rec *storev1.WebhookRecord) bool { return rec.GetDismissed() }
