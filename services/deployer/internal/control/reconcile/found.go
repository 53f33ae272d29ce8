package reconcile

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// A push that a poll finds stands in webhook's list of deliveries, as if one had told of it. Webhook hears
// of it as deliveries' outcomes are told: from the lane's outbox, in which the decision put it.

// finder is the one who is to hear what comes of a push that no delivery told of. All apps that a poll,
// or the polls of one wait for a delivery, decide about speak of the same push.
func (r *Reconciler) finder(s seen, c change, l *polling) *storev1.Asker {
	changed := &webhookv1.DeliveryChange{
		RefType: webhookv1.DeliveryChange_BRANCH, Ref: c.ref.Name(), Action: webhookv1.DeliveryChange_UPDATED, OldHash: c.old, NewHash: c.new,
	}
	if c.ref.IsTag() {
		changed.RefType = webhookv1.DeliveryChange_TAG
	}
	if c.old == "" {
		changed.Action = webhookv1.DeliveryChange_CREATED
	}
	since := l.firstFound(&storev1.Missing{Branch: c.ref.Branch(), Tag: c.ref.Tag(), Hash: c.new})
	found, message := r.whyFound(l)
	return &storev1.Asker{Found: &webhookv1.FoundPush{
		Key: fmt.Sprintf("%s\n%s\n%d", c.ref, c.new, since.UnixNano()), Repository: s.app.GetRepository(), Change: changed,
		Found: found, Message: message, Time: timestamppb.New(l.time),
	}}
}

const (
	// foundFor is how long apps that decide later about what was found speak of the same push.
	foundFor = time.Hour
	// maxFound is how many heads that were found are remembered for that.
	maxFound = 100
)

// firstFound is when a head was found first, by this poll or by one before it. It is kept for the polls to
// come, whose apps may decide later.
func (l *polling) firstFound(m *storev1.Missing) time.Time {
	if i := slices.IndexFunc(l.state.GetFound(), func(f *storev1.Missing) bool { return missingKey(f) == missingKey(m) }); i >= 0 {
		return l.state.GetFound()[i].GetTime().AsTime()
	}
	since, known := l.since[missingKey(m)]
	if !known {
		since = l.time
	}
	m.Time = timestamppb.New(since)
	l.state.Found = append(l.state.Found, m)
	l.state.Found = l.state.Found[max(0, len(l.state.Found)-maxFound):]
	return since
}

// forget drops what was found long ago, and what has moved since: a branch that comes back was pushed anew.
func (l *polling) forget() {
	l.state.Found = slices.DeleteFunc(l.state.Found, func(m *storev1.Missing) bool {
		at := l.found.Branches[m.GetBranch()]
		if m.GetTag() != "" {
			at = l.found.Tags[m.GetTag()]
		}
		return at != m.GetHash() || l.time.Sub(m.GetTime().AsTime()) > foundFor
	})
}

// tellFound has the one who is to hear of a push that was found hear what was decided. Deliveries that
// made us poll are answered when the poll is over.
func (d decision) tellFound(now *storev1.Lane, told *storev1.Decided) {
	for _, a := range d.ask.Askers {
		if a.GetFound() != nil {
			told.Askers = append(told.Askers, a)
		}
	}
	told.Time = timestamppb.New(d.ask.Now)
	lane.Tell(now, told)
}

// whyFound says why polling, and not a delivery, told of a push.
func (r *Reconciler) whyFound(l *polling) (webhookv1.Delivery_Found, string) {
	if l.resumed {
		return webhookv1.Delivery_RESUMED, "Found by polling: pushes were turned away while the workspace was disconnected or narrowed"
	}
	switch l.hook.GetState() {
	case webhookv1.Webhook_ACTIVE.String(), webhookv1.Webhook_MANUAL.String():
		return webhookv1.Delivery_DELIVERY_MISSING, fmt.Sprintf("Found by polling: the delivery did not come in %s", seconds(r.cfg.Grace))
	}
	return webhookv1.Delivery_NO_WEBHOOK, "Found by polling: no working webhook"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%g s", d.Seconds()) }
