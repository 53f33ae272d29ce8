package delivery

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// maxOutcomes is how many outcomes of a delivery are kept; a delivery of many branches that many
// apps watch may have more.
const maxOutcomes = 500

// owner names a webhook.
type owner struct{ workspace, webhook string }

// Record adds what came of deliveries, those of a webhook together. The same outcome twice is kept
// once. Deliveries that are no longer kept are passed over: nobody can see them any more. A push
// that was found without a delivery is listed with its first outcome.
func (l *Log) Record(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error {
	outcomes, err := l.placed(ctx, outcomes)
	if err != nil {
		return err
	}
	by := map[owner]map[int32][]*webhookv1.DeliveryOutcome{}
	for _, o := range outcomes {
		if o.GetOutcome() == nil {
			continue
		}
		at := owner{o.GetWorkspace(), o.GetWebhook()}
		if by[at] == nil {
			by[at] = map[int32][]*webhookv1.DeliveryOutcome{}
		}
		by[at][o.GetDelivery()] = append(by[at][o.GetDelivery()], o.GetOutcome())
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for at, deliveries := range by {
		changes := map[int32]func(*storev1.DeliveryRecord) error{}
		for number, added := range deliveries {
			changes[number] = func(cur *storev1.DeliveryRecord) error {
				if !l.add(cur.GetDelivery(), added) {
					return kv.ErrSkip
				}
				return nil
			}
		}
		g.Go(func() error {
			err := l.cfg.Store.UpdateDeliveries(ctx, at.workspace, at.webhook, changes)
			if errors.Is(err, kv.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

func (l *Log) add(d *webhookv1.Delivery, added []*webhookv1.DeliveryOutcome) (changed bool) {
	for _, o := range added {
		if o.GetTime() == nil {
			o.Time = timestamppb.New(l.cfg.Now())
		}
		if deciding(o) && slices.ContainsFunc(d.GetOutcomes(), func(x *webhookv1.DeliveryOutcome) bool { return sameChange(x, o) && !olderDeciding(x, o) }) {
			continue // outcomes may come in any order: this one is old
		}
		d.Outcomes = slices.DeleteFunc(d.GetOutcomes(), func(x *webhookv1.DeliveryOutcome) bool { return deciding(x) && sameChange(x, o) })
		at := slices.IndexFunc(d.GetOutcomes(), func(x *webhookv1.DeliveryOutcome) bool { return same(x, o) })
		switch {
		case at >= 0 && newer(d.GetOutcomes()[at], o):
			d.Outcomes[at] = o
		case at >= 0 || len(d.GetOutcomes()) >= maxOutcomes:
			continue
		default:
			d.Outcomes = append(d.Outcomes, o)
		}
		changed = true
	}
	return changed
}

// deciding tells whether an outcome says that a decision is still to come.
func deciding(o *webhookv1.DeliveryOutcome) bool {
	return o.GetKind() == webhookv1.DeliveryOutcome_DECIDING
}

// olderDeciding tells whether x said before o that a decision is still to come.
func olderDeciding(x, o *webhookv1.DeliveryOutcome) bool {
	return deciding(x) && x.GetTime().AsTime().Before(o.GetTime().AsTime())
}

// sameChange tells whether two outcomes are of the same change, for the same app.
func sameChange(x, o *webhookv1.DeliveryOutcome) bool {
	return x.GetChange() == o.GetChange() && x.GetApp() == o.GetApp()
}

// same tells whether two outcomes say the same, or the same of one deployment at two times.
func same(x, o *webhookv1.DeliveryOutcome) bool {
	if !sameChange(x, o) || x.GetKind() != o.GetKind() || x.GetDeployment() != o.GetDeployment() {
		return false
	}
	return x.GetReason() == o.GetReason() || o.GetKind() == webhookv1.DeliveryOutcome_DEPLOYMENT
}

// newer tells whether an outcome says more of its deployment than the one that is there: outcomes may
// come in any order, and a deployment ends once.
func newer(there, o *webhookv1.DeliveryOutcome) bool {
	const pending = "PENDING"
	was, is := there.GetDeploymentState(), o.GetDeploymentState()
	return was != is && (was == "" || was == pending && is != "")
}
