package registry

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Removal is how far the webhooks of a workspace that is being deleted are removed from Bitbucket.
type Removal struct {
	// Waiting are those that Bitbucket may still have, and that are being worked on.
	Waiting int
	// Left are those that Bitbucket did not let us remove.
	Left []*storev1.WebhookRecord
}

// Removal looks at the webhooks of a workspace whose apps were deleted. One that Bitbucket may have and nobody works
// on, such as one that was added by hand, is worked on from now on.
func (r *Registry) Removal(ctx context.Context, workspace string) (Removal, error) {
	all, err := r.cfg.Store.All(ctx, workspace)
	if err != nil {
		return Removal{}, err
	}
	var out Removal
	for _, rec := range all {
		switch {
		case rec.GetState() == webhookv1.Webhook_REMOVED, !mayExist(rec) && rec.GetLease() == nil && len(rec.GetWatches()) == 0 && !asked(rec):
		case rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET && !asked(rec):
			out.Left = append(out.Left, rec)
		case len(rec.GetWatches()) > 0, asked(rec), rec.GetLease() != nil:
			out.Waiting++
		default:
			if err := r.askForRemoval(ctx, rec); err != nil {
				return Removal{}, err
			}
			out.Waiting++
		}
	}
	return out, nil
}

// asked tells whether somebody is to work on the webhook because something was asked for, or tried in vain.
func asked(rec *storev1.WebhookRecord) bool {
	w := rec.GetWork()
	return w.GetWanted() > w.GetDone() || w.GetDueTime() != nil && w.GetAttempts() > 0
}

func (r *Registry) askForRemoval(ctx context.Context, rec *storev1.WebhookRecord) error {
	_, err := r.cfg.Store.Update(ctx, rec.GetWorkspace(), rec.GetId(), func(cur *storev1.WebhookRecord) error {
		if asked(cur) || len(cur.GetWatches()) > 0 {
			return kv.ErrSkip
		}
		r.want(cur, false)
		return nil
	})
	r.schedule.now(rec.GetWorkspace(), rec.GetId())
	return err
}

// EraseWorkspace forgets a workspace's webhooks and all that was delivered to them. From the first step on their
// addresses answer that there is nothing.
func (r *Registry) EraseWorkspace(ctx context.Context, workspace string) error {
	return r.cfg.Store.EraseWorkspace(ctx, workspace)
}
