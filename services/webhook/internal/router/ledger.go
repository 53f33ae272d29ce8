package router

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

const (
	// remembered is how many deliveries of a webhook are remembered for recognising Bitbucket's
	// repeats.
	remembered = 1024
	// checkSize is how much of a fingerprint tells one inbox message from another of its sequence.
	checkSize = 4
	// crowdedLedger is how many inbox messages a ledger remembers before those that do not come again are
	// forgotten.
	crowdedLedger = 64
)

// errCrowded says that the ledger remembers so many inbox messages that some are to be forgotten.
var errCrowded = errors.New("router: the ledger is crowded")

// number gives every delivery of the turn its number, by compare-and-set on the ledger. How far the inbox is
// routed is asked only where the ledger is to forget what lies before.
func (r *Router) number(ctx context.Context, t *turn) error {
	err := r.numberAbove(ctx, t, nil)
	if !errors.Is(err, errCrowded) {
		return err
	}
	floor, err := r.cfg.Store.RoutedUpTo(ctx, Durable)
	if err != nil {
		return err
	}
	return r.numberAbove(ctx, t, &floor)
}

// numberAbove does that and forgets inbox messages up to floor, where that is known.
func (r *Router) numberAbove(ctx context.Context, t *turn, floor *uint64) error {
	return r.cfg.Store.UpdateLedger(ctx, t.workspace, t.webhook, func(l *storev1.LedgerRecord) error {
		if floor == nil && (len(l.GetRouted()) >= crowdedLedger || len(l.GetSeen()) > 0) {
			return errCrowded
		}
		changed := false
		for _, p := range t.portions {
			if assign(l, p.items) {
				changed = true
			}
		}
		if !changed {
			return kv.ErrSkip
		}
		if floor != nil {
			forget(l, *floor)
		} else {
			forgetPrints(l)
		}
		return nil
	})
}

// assign finds the numbers of one inbox message's deliveries in the ledger or gives them the next
// ones; it reports whether the ledger changed.
func assign(l *storev1.LedgerRecord, items []*item) bool {
	check := items[0].print[:checkSize]
	at := slices.IndexFunc(l.GetRouted(), func(m *storev1.RoutedMessage) bool { return m.GetSequence() == items[0].sequence })
	if at >= 0 && bytes.Equal(l.GetRouted()[at].GetCheck(), check) {
		repeat(l.GetRouted()[at], items)
		return false
	}
	if at >= 0 { // of a stream that is gone
		l.Routed = slices.Delete(l.Routed, at, at+1)
	}
	m := &storev1.RoutedMessage{Sequence: items[0].sequence, FirstNumber: l.GetLastNumber() + 1, Check: check}
	earlier := false // routed by an earlier version, which remembered each delivery for itself
	for _, it := range items {
		it.again, it.duplicate = false, false
		if s := seenAt(l, it); s != nil {
			it.number, it.again, earlier = s.GetNumber(), true, true
			continue
		}
		if number, known := natsstore.NumberOf(l, it.print); known {
			it.number, it.duplicate = number, true
			m.Repeats = append(m.Repeats, &storev1.RoutedRepeat{Place: it.place, Number: number})
			continue
		}
		natsstore.NextNumber(l, it.print)
		it.number = l.GetLastNumber()
		if at := it.delivery.GetReceiveTime().AsTime(); at.After(l.GetLastVerifiedTime().AsTime()) {
			l.LastVerifiedTime = timestamppb.New(at)
		}
	}
	if earlier {
		return l.GetLastNumber() >= m.GetFirstNumber()
	}
	l.Routed = append(l.Routed, m)
	return true
}

// repeat gives the deliveries of a message that was routed before the numbers that they got then.
func repeat(m *storev1.RoutedMessage, items []*item) {
	next := m.GetFirstNumber()
	for _, it := range items {
		it.again, it.duplicate = true, false
		at := slices.IndexFunc(m.GetRepeats(), func(r *storev1.RoutedRepeat) bool { return r.GetPlace() == it.place })
		if at >= 0 {
			it.number, it.duplicate = m.GetRepeats()[at].GetNumber(), true
			continue
		}
		it.number = next
		next++
	}
}

// seenAt finds a delivery that an earlier version routed.
func seenAt(l *storev1.LedgerRecord, it *item) *storev1.SeenDelivery {
	for _, s := range l.GetSeen() {
		if s.GetInboxSequence() == it.sequence && s.GetInboxIndex() == it.place && bytes.Equal(s.GetFingerprint(), it.print) {
			return s
		}
	}
	return nil
}

// forget drops what need not be remembered any more: inbox messages up to floor do not come again.
func forget(l *storev1.LedgerRecord, floor uint64) {
	l.Routed = slices.DeleteFunc(l.Routed, func(m *storev1.RoutedMessage) bool { return m.GetSequence() <= floor })
	forgetPrints(l)
	if n := len(l.GetSeen()); n > 0 && l.GetSeen()[n-1].GetInboxSequence() <= floor && len(l.GetFingerprints()) == remembered*inbox.FingerprintSize {
		l.Seen = nil
	}
}

// forgetPrints drops the fingerprints of the oldest deliveries.
func forgetPrints(l *storev1.LedgerRecord) {
	if more := len(l.GetFingerprints()) - remembered*inbox.FingerprintSize; more > 0 {
		l.Fingerprints = l.GetFingerprints()[more:]
	}
}
