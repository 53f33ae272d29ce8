package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	// whyPages is how many pages of deliveries one question reads, of all webhooks together.
	whyPages = 20
	// whyLooked is how many deliveries webhook looks through for such a page.
	whyLooked = 400
)

// deliveriesOf looks for what told of the commit.
func (q *question) deliveriesOf(ctx context.Context) error {
	if q.hash != "" {
		q.deliveries = slices.DeleteFunc(q.scan(ctx, &webhookv1.ListDeliveriesRequest{Commit: q.hash}), func(d *webhookv1.Delivery) bool { return !q.tells(d) })
	}
	return nil
}

// tells tells whether a delivery tells of the commit.
func (q *question) tells(d *webhookv1.Delivery) bool {
	return d.GetRepository() == q.repository && slices.ContainsFunc(d.GetChanges(), func(c *webhookv1.DeliveryChange) bool {
		return q.hash != "" && c.GetNewHash() == q.hash && (q.ref == "" || q.req.GetBranch() == "" || changeRef(c) == q.ref)
	})
}

// scan looks through the deliveries of the webhooks for those that the filter asks for, oldest first: those
// of the webhooks that were busy last before the others, until enough was read. Of a branch only the newest
// page of each webhook is read: what it tells of last counts.
func (q *question) scan(ctx context.Context, filter *webhookv1.ListDeliveriesRequest) []*webhookv1.Delivery {
	hooks := slices.SortedFunc(slices.Values(q.hooks), func(a, b *webhookv1.Webhook) int {
		return b.GetLastVerifiedTime().AsTime().Compare(a.GetLastVerifiedTime().AsTime())
	})
	filter = proto.CloneOf(filter)
	filter.Workspace, filter.PageSize = q.req.GetWorkspace(), pagetoken.MaxPage
	var found []*webhookv1.Delivery
	for _, h := range hooks {
		if filter.GetRefused() && h.GetLastRefusedTime() == nil || !filter.GetRefused() && h.GetLastDelivery() == 0 {
			continue
		}
		for filter.Webhook, filter.PageToken = h.GetId(), ""; ; {
			if q.pages == 0 {
				q.limit(fmt.Sprintf("Only the last %d deliveries were looked through. Name the app or the repository to look through more of its own.", whyPages*whyLooked))
				return oldestFirst(found)
			}
			q.pages--
			page, err := q.s.cfg.Deliveries.Deliveries(ctx, filter)
			if err != nil {
				q.unanswered(ctx, err)
				break
			}
			found = append(found, page.GetDeliveries()...)
			filter.PageToken = page.GetNextPageToken()
			if filter.GetPageToken() == "" || filter.GetBranch() != "" && len(page.GetDeliveries()) > 0 {
				break
			}
		}
	}
	return oldestFirst(found)
}

// limit notes, once, what was not looked at.
func (q *question) limit(said string) {
	if !slices.Contains(q.limits, said) {
		q.limits = append(q.limits, said)
	}
}

func oldestFirst(ds []*webhookv1.Delivery) []*webhookv1.Delivery {
	slices.SortStableFunc(ds, func(a, b *webhookv1.Delivery) int {
		return cmp.Or(a.GetReceiveTime().AsTime().Compare(b.GetReceiveTime().AsTime()), cmp.Compare(a.GetNumber(), b.GetNumber()))
	})
	return ds
}
