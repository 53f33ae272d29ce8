package router

import (
	"bytes"
	"context"
	"crypto/sha256"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

const (
	// remembered is how many deliveries of a webhook are remembered at least, for recognising
	// Bitbucket's repeats.
	remembered = 128
	// margin is how many inbox messages below the acknowledged ones are remembered too: after a
	// crash of the server just acknowledged messages may come again (DESIGN.md#jetstream).
	margin = 1024
	// mostRemembered bounds a ledger whatever the margin holds; what is not acknowledged stays.
	mostRemembered = 4096
	// fingerprintSize makes an accidental match within a ledger as good as impossible.
	fingerprintSize = 12
)

// fingerprint tells deliveries apart. Bitbucket's repeats of a request have its id and body; where
// there is no id, our own stands in, so that only our own repeats of storing it match.
func fingerprint(d *storev1.InboxDelivery, body []byte) []byte {
	h := sha256.New()
	if id := d.GetRequestUuid(); id != "" {
		h.Write([]byte("bitbucket\x00" + id + "\x00"))
		h.Write(body)
	} else {
		h.Write([]byte("devpilot\x00" + d.GetId()))
	}
	return h.Sum(nil)[:fingerprintSize]
}

// number gives every delivery of the group its number, by compare-and-set on the ledger.
func (r *Router) number(ctx context.Context, g *group, floor uint64) error {
	return r.cfg.Store.UpdateLedger(ctx, g.workspace, g.webhook, func(l *storev1.LedgerRecord) error {
		changed := false
		for _, it := range g.items {
			if assign(l, it) {
				changed = true
			}
		}
		if !changed {
			return kv.ErrSkip
		}
		forget(l, floor)
		return nil
	})
}

// assign finds the delivery's number in the ledger or gives it the next one; it reports whether the
// ledger changed.
func assign(l *storev1.LedgerRecord, it *item) bool {
	for _, s := range l.GetSeen() {
		if s.GetInboxSequence() == it.sequence && s.GetInboxIndex() == it.place {
			it.number, it.duplicate = s.GetNumber(), false
			return false
		}
	}
	for _, s := range l.GetSeen() {
		if bytes.Equal(s.GetFingerprint(), it.print) {
			it.number, it.duplicate = s.GetNumber(), true
			return false
		}
	}
	l.LastNumber++
	it.number, it.duplicate = l.GetLastNumber(), false
	l.Seen = append(l.Seen, &storev1.SeenDelivery{
		Fingerprint: it.print, Number: it.number, InboxSequence: it.sequence, InboxIndex: it.place,
	})
	if at := it.delivery.GetReceiveTime().AsTime(); at.After(l.GetLastVerifiedTime().AsTime()) {
		l.LastVerifiedTime = timestamppb.New(at)
	}
	return true
}

// forget drops what need not be remembered any more: inbox messages up to floor are acknowledged.
func forget(l *storev1.LedgerRecord, floor uint64) {
	seen := l.GetSeen()
	for len(seen) > remembered {
		sequence := seen[0].GetInboxSequence()
		if sequence > floor || sequence+margin > floor && len(seen) <= mostRemembered {
			break
		}
		seen = seen[1:]
	}
	l.Seen = seen
}
