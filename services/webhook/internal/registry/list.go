package registry

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	// examined is how many places of the directory one page reads.
	examined     = 1000
	listParallel = 8 // webhooks that are read at a time
)

// List returns webhooks of a workspace by the places of its directory, newest first, from a place
// downwards (0: from the newest), and the place to go on from, 0 after the last. Those that were
// dismissed are left out. A page examines a bounded number of places and may be short.
func (r *Registry) List(ctx context.Context, workspace string, state webhookv1.Webhook_State, from int32, size int) (page []*storev1.WebhookRecord, next int32, err error) {
	ws, err := r.cfg.Store.Workspace(ctx, workspace)
	if err != nil {
		return nil, 0, err
	}
	last := ws.GetLastNumber() + 1
	if from > 0 {
		last = min(last, from+1)
	}
	for seen := int32(0); len(page) < size && seen < examined && last > 1; {
		n := min(int32(max(size-len(page), 2*listParallel)), last-1, examined-seen)
		found, err := r.places(ctx, workspace, last-1, n)
		if err != nil {
			return nil, 0, err
		}
		for _, rec := range found {
			last--
			seen++
			if rec == nil || Hidden(rec) || state != webhookv1.Webhook_STATE_UNSPECIFIED && rec.GetState() != state {
				continue
			}
			if page = append(page, rec); len(page) == size {
				break
			}
		}
	}
	return page, last - 1, nil
}

// places reads n places of the directory from one downwards; nil where there is no webhook.
func (r *Registry) places(ctx context.Context, workspace string, from, n int32) ([]*storev1.WebhookRecord, error) {
	found := make([]*storev1.WebhookRecord, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(listParallel)
	for i := range n {
		g.Go(func() error {
			rec, err := r.cfg.Store.GetByNumber(ctx, workspace, from-i)
			switch {
			case errors.Is(err, kv.ErrNotFound):
				return nil
			case err != nil:
				return err
			case rec.GetNumber() == from-i:
				found[i] = rec
			}
			return nil
		})
	}
	return found, g.Wait()
}

// All returns the webhooks of a workspace in no order, but those that were dismissed.
func (r *Registry) All(ctx context.Context, workspace string) ([]*storev1.WebhookRecord, error) {
	all, err := r.cfg.Store.All(ctx, workspace)
	return slices.DeleteFunc(all, Hidden), err
}

// Urgency orders webhooks by what is wrong with them, the smallest first: what a person must do something
// about, what Devpilot is about to put right, what is as it should be, what no app needs.
func Urgency(w *webhookv1.Webhook) int {
	switch w.GetHealth() {
	case webhookv1.Webhook_NOT_ADMIN, webhookv1.Webhook_LIMIT_REACHED, webhookv1.Webhook_INACTIVE:
		return 1
	case webhookv1.Webhook_DELETED, webhookv1.Webhook_URL_CHANGED, webhookv1.Webhook_EVENTS_CHANGED, webhookv1.Webhook_SECRET_CHANGED:
		return 2
	case webhookv1.Webhook_DELIVERIES_MISSING:
		return 3
	case webhookv1.Webhook_NOT_CHECKED:
		return 4
	case webhookv1.Webhook_REGISTERED:
		return 5
	case webhookv1.Webhook_HEALTH_UNSPECIFIED:
	}
	return 6
}
