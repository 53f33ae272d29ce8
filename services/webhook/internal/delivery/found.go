package delivery

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/pushes"
)

// Pushes that were found without a delivery stand in the list of their repository's webhook under
// numbers of the same series. The ledger knows each by its fingerprint, as it knows deliveries: told
// again, by whomever and after whatever crash, it has the number that it got first.

// foundRecently is how long after a push was found the end of its deployment may be told before its
// beginning: outcomes that waited for webhook come in any order. After that, one that is not known was
// known once and is no longer kept.
const foundRecently = 24 * time.Hour

// place finds the found push that outcomes are about, and lists it when it is new. It returns the
// webhook and the number; kv.ErrNotFound when the push is no longer kept, or its repository has no
// webhook.
func (l *Log) place(ctx context.Context, workspace string, f *webhookv1.FoundPush) (webhook string, number int32, err error) {
	w, err := l.cfg.Store.GetByRepository(ctx, workspace, f.GetRepository())
	if err != nil {
		return "", 0, err
	}
	print, fresh := foundPrint(f), false
	lists := !f.GetTold() || l.cfg.Now().Sub(f.GetTime().AsTime()) < foundRecently
	err = l.cfg.Store.UpdateLedger(ctx, workspace, w.GetId(), func(ledger *storev1.LedgerRecord) error {
		var known bool
		fresh = false
		if number, known = natsstore.NumberOf(ledger, print); known {
			return kv.ErrSkip
		}
		if !lists {
			return kv.ErrNotFound
		}
		natsstore.NextNumber(ledger, print)
		number, fresh = ledger.GetLastNumber(), true
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	if fresh {
		if err := l.evidence(ctx, w, f); err != nil {
			return "", 0, err
		}
	}
	return w.GetId(), number, l.list(ctx, w, number, f, lists)
}

// evidence tells what the push says of the webhook.
func (l *Log) evidence(ctx context.Context, w *storev1.WebhookRecord, f *webhookv1.FoundPush) error {
	switch f.GetFound() {
	case webhookv1.Delivery_DELIVERY_MISSING:
		return l.cfg.Missed(ctx, w.GetWorkspace(), w.GetId(), f.GetTime().AsTime())
	case webhookv1.Delivery_RESUMED:
		// A delivery of it was turned away, or there was none: the push may have come after all was well again.
		return l.cfg.Doubted(ctx, w.GetWorkspace(), w.GetId())
	case webhookv1.Delivery_NO_WEBHOOK, webhookv1.Delivery_FOUND_UNSPECIFIED:
	}
	return nil
}

// list stores the found push, unless it is there, and completes it with what is known by now.
func (l *Log) list(ctx context.Context, w *storev1.WebhookRecord, number int32, f *webhookv1.FoundPush, lists bool) error {
	change := proto.CloneOf(f.GetChange())
	change.Message, change.AuthorName = pushes.FirstLine(change.GetMessage()), pushes.FirstLine(change.GetAuthorName())
	if lists {
		err := l.cfg.Store.PutDeliveries(ctx, w.GetWorkspace(), w.GetId(), []*storev1.DeliveryRecord{{Delivery: &webhookv1.Delivery{
			Webhook: w.GetId(), Workspace: w.GetWorkspace(), Repository: w.GetRepository(), RepositoryFullName: w.GetRepositoryFullName(),
			Number: number, ReceiveTime: f.GetTime(), Found: f.GetFound(), FoundMessage: f.GetMessage(), Changes: []*webhookv1.DeliveryChange{change},
		}}})
		if err != nil {
			return err
		}
	}
	if change.GetMessage() == "" && change.GetAuthorName() == "" {
		return nil
	}
	_, err := l.cfg.Store.UpdateDelivery(ctx, w.GetWorkspace(), w.GetId(), number, func(cur *storev1.DeliveryRecord) error {
		changes := cur.GetDelivery().GetChanges()
		if len(changes) != 1 || changes[0].GetNewHash() != change.GetNewHash() || changes[0].GetMessage() != "" {
			return kv.ErrSkip
		}
		changes[0].Message, changes[0].AuthorName = change.GetMessage(), change.GetAuthorName()
		return nil
	})
	return err
}

// foundPrint tells a found push from others and from deliveries, whose fingerprints are made of other
// texts.
func foundPrint(f *webhookv1.FoundPush) []byte {
	sum := sha256.Sum256([]byte("found\n" + f.GetRepository() + "\n" + f.GetKey()))
	return sum[:inbox.FingerprintSize]
}

// placed turns outcomes of found pushes into outcomes of their places in the list. Those of pushes that
// are not kept are left out.
func (l *Log) placed(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) ([]*webhookv1.RecordedOutcome, error) {
	out := make([]*webhookv1.RecordedOutcome, 0, len(outcomes))
	for _, o := range outcomes {
		if o.GetFound() == nil {
			out = append(out, o)
			continue
		}
		webhook, number, err := l.place(ctx, o.GetWorkspace(), o.GetFound())
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, &webhookv1.RecordedOutcome{Workspace: o.GetWorkspace(), Webhook: webhook, Delivery: number, Outcome: o.GetOutcome()})
	}
	return out, nil
}
