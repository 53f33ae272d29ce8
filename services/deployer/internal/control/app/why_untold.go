package app

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// refusedBefore is how long before a push was found a refused request may have been its delivery.
const refusedBefore = 3 * time.Minute

// untoldPush tells whether polling found the push, and no delivery told of it.
func (q *question) untoldPush() bool {
	_, by := q.foundTime()
	return !q.delivered() && by == foundByPolling
}

// readUntold reads why no delivery told of a push that polling found, where that is over: what was wrong with
// the webhook and was put right afterwards, or that a request came and was refused.
func (q *question) readUntold(ctx context.Context) {
	h := q.hook()
	if h == nil || q.silent || !q.untoldPush() {
		return
	}
	found, _ := q.foundTime()
	if h.GetLastRefusedTime() != nil {
		q.refused = q.cameIn(ctx, h, found.AsTime().Add(-refusedBefore), found.AsTime(), true)
	}
	repaired := h.GetLastRepairTime()
	if repaired == nil || repaired.AsTime().Before(found.AsTime()) {
		return
	}
	// A delivery that came in between says that the webhook was well then.
	q.repaired = !q.cameIn(ctx, h, found.AsTime(), repaired.AsTime(), false)
}

// cameIn tells whether a request came to a webhook in a time.
func (q *question) cameIn(ctx context.Context, h *webhookv1.Webhook, after, before time.Time, refused bool) bool {
	page, err := q.s.cfg.Deliveries.Deliveries(ctx, &webhookv1.ListDeliveriesRequest{
		Workspace: q.req.GetWorkspace(), Webhook: h.GetId(), Refused: refused, After: timestamppb.New(after), Before: timestamppb.New(before), PageSize: pagetoken.MaxPage,
	})
	if err != nil {
		q.unanswered(ctx, err)
		return false
	}
	for _, d := range page.GetDeliveries() {
		if d.GetFound() == webhookv1.Delivery_FOUND_UNSPECIFIED {
			return true
		}
	}
	return false
}

// untoldWhy says why no delivery told of the push, as far as that is known.
func (q *question) untoldWhy() (reason, message string) {
	h := q.hook()
	if h == nil {
		return "", ""
	}
	reason, message = hookTrouble(h)
	switch {
	case q.repaired:
		return hookReason(h.GetLastRepairHealth()), sentence(h.GetLastRepair())
	case q.refused && (reason == "" || reason == hookReason(webhookv1.Webhook_DELIVERIES_MISSING)):
		return hookReason(webhookv1.Webhook_SECRET_CHANGED), "A request to the webhook was refused shortly before, for its signature was wrong: the webhook's secret on Bitbucket may have been another one."
	}
	return reason, message
}

func hookReason(health webhookv1.Webhook_Health) string { return "WEBHOOK_" + health.String() }
