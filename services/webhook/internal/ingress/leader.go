package ingress

import (
	"context"
	"errors"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// leaderTimeout bounds the one read before a 404 or 401.
const leaderTimeout = 2 * time.Second

// leader reads the webhook from the store's leader; nil when there is none.
func (h *Handler) leader(ctx context.Context, id string) (*storev1.WebhookRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	h.metrics.leaderReads.Inc()
	rec, err := h.cfg.Leader.GetByID(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	return rec, err
}
