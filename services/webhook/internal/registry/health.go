package registry

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// What Bitbucket does to a webhook, nobody tells us. Besides the check at intervals there is evidence: a
// push whose delivery did not come, a signature that is refused, a delivery of a webhook that is said to be
// off. Evidence has the webhook checked at once, or once a pause since the last time is over: it is bounded,
// since anybody may send wrong signatures, and deliveries also get lost on the way (see Timing).

// checkedInTime is how many webhooks are each checked once in Timing.CheckEvery; of more the pause grows with
// their number. It makes one call a minute of the 1,000 that Bitbucket takes in an hour (BITBUCKET.md#budgets).
const checkedInTime = 360

// foundTogether is how long after a found push another one counts with it.
const foundTogether = 24 * time.Hour

// offCheck is how often a webhook is checked that somebody switched off.
const offCheck = time.Hour

// agedPerSweep is how many secrets one sweep rotates for their age.
const agedPerSweep = 20

const deactivatedMessage = "Somebody switched the webhook off on Bitbucket, so that pushes are found by polling. If that was not meant, press Repair: Devpilot switches it on again."

// checkIn is the pause until a webhook that is as it should be is compared with Bitbucket's list again.
func (r *Registry) checkIn(rec *storev1.WebhookRecord) time.Duration {
	every := max(r.cfg.Timing.CheckEvery, r.cfg.Timing.CheckEvery/checkedInTime*time.Duration(r.cfg.Cache.Len()))
	if rec.GetState() == webhookv1.Webhook_DRIFTED {
		every = min(every, offCheck)
	}
	// Spread, so that what was registered together is not checked together for ever.
	return every - rand.N(every/4+1)
}

// noteRepair notes what a run found changed and put right.
func (*Registry) noteRepair(rec *storev1.WebhookRecord, f found, now time.Time) {
	if !f.written || len(f.changed) == 0 {
		return
	}
	what := strings.Join(f.changed, ", ")
	if n := len(f.changed); n > 1 {
		what = strings.Join(f.changed[:n-1], ", ") + " and " + f.changed[n-1]
	}
	rec.LastRepairTime, rec.LastRepair = timestamppb.New(now), "Something was changed about the webhook on Bitbucket: "+what+". Devpilot put it right."
	rec.LastRepairHealth = f.finding
}

// ours reports whether we have a hook at Bitbucket that evidence may be about.
func ours(rec *storev1.WebhookRecord) bool {
	s := rec.GetState()
	return len(rec.GetWatches()) > 0 && rec.GetBitbucketUuid() != "" && (s == webhookv1.Webhook_ACTIVE || s == webhookv1.Webhook_DRIFTED)
}

// planned reports whether a run at Bitbucket is asked for that has not begun.
func planned(rec *storev1.WebhookRecord) bool {
	return rec.GetLease() == nil && rec.GetWork().GetWanted() > rec.GetWork().GetDone()
}

// suspect has the webhook checked for evidence that something is wrong with it, also where a run is planned
// for later: what strangers had planned keeps no real sign waiting.
func (r *Registry) suspect(rec *storev1.WebhookRecord) {
	at := r.cfg.Now()
	for _, last := range []time.Time{rec.GetSuspectTime().AsTime(), rec.GetLastCheckTime().AsTime()} {
		if end := last.Add(r.cfg.Timing.Suspect); end.After(at) {
			at = end
		}
	}
	due := timestamppb.New(at)
	if !planned(rec) {
		r.want(rec, true)
	} else if !rec.GetWork().GetDueTime().AsTime().After(at) {
		return
	}
	rec.Work.DueTime, rec.SuspectTime = due, due
	if rec.GetSecretRepairTime().AsTime().After(at) {
		rec.SecretRepairTime = due
	}
	if rec.GetStrayCheckTime().AsTime().After(at) {
		rec.StrayCheckTime = due
	}
}

// switchedOff reports whether a hook of ours was last seen switched off: a verified delivery then tells that
// it is on again, and a push without one tells nothing new.
func switchedOff(rec *storev1.WebhookRecord) bool {
	return rec.GetState() == webhookv1.Webhook_DRIFTED && rec.GetReason() == string(apierr.ReasonWebhookDeactivated)
}

// Missed notes that a push was found whose delivery did not come, and has the webhook checked.
func (r *Registry) Missed(ctx context.Context, workspace, id string, at time.Time) error {
	_, err := r.cfg.Store.Update(ctx, workspace, id, func(cur *storev1.WebhookRecord) error {
		if len(cur.GetWatches()) == 0 {
			return kv.ErrSkip
		}
		if at.Sub(cur.GetLastFoundTime().AsTime()) > foundTogether {
			cur.FoundPushes = 0
		}
		cur.FoundPushes++
		cur.LastFoundTime = timestamppb.New(at)
		if ours(cur) && !switchedOff(cur) {
			r.suspect(cur)
		}
		return nil
	})
	return notFound(err)
}

// Doubted has the webhook checked for a push that was found, of which a delivery may have come or not.
func (r *Registry) Doubted(ctx context.Context, workspace, id string) error {
	_, err := r.cfg.Store.Update(ctx, workspace, id, func(cur *storev1.WebhookRecord) error {
		if !ours(cur) || switchedOff(cur) {
			return kv.ErrSkip
		}
		r.suspect(cur)
		return nil
	})
	return notFound(err)
}

// Refused notes a request that was refused. Where it may be that somebody changed the secret of a hook of
// ours, it is written anew: whether it is right cannot be seen. A request of another hook, or one to another
// address that ours sent, does not speak of our secret: it has the hook compared with Bitbucket's list.
// Whoever sends such requests for ever causes some ten runs in the first hour and one an hour afterwards.
func (r *Registry) Refused(ctx context.Context, d *webhookv1.Delivery) error {
	_, err := r.cfg.Store.Update(ctx, d.GetWorkspace(), d.GetWebhook(), func(cur *storev1.WebhookRecord) error {
		if !ours(cur) || cur.GetState() != webhookv1.Webhook_ACTIVE {
			return kv.ErrSkip
		}
		if !ofSecret(d, cur.GetBitbucketUuid()) {
			return r.stray(cur)
		}
		return r.mistrust(cur)
	})
	return notFound(err)
}

// ofSecret reports whether a refused request tells that the secret of a hook may be another one: its signature
// was wrong, and no other hook sent it, as far as it says.
func ofSecret(d *webhookv1.Delivery, hookUUID string) bool {
	sender := d.GetHookUuid()
	return d.GetAnswerStatus() == http.StatusUnauthorized && (sender == "" || hookUUID == "" || sender == bitbucket.NormalizeUUID(hookUUID))
}

// LastRefused is when the last request was refused that tells of the webhook's own secret; nil when none was.
func LastRefused(rec *storev1.WebhookRecord, refused []*webhookv1.Delivery) *timestamppb.Timestamp {
	for _, d := range slices.Backward(refused) {
		if ofSecret(d, rec.GetBitbucketUuid()) {
			return d.GetReceiveTime()
		}
	}
	return nil
}

// mistrust has the secret written anew.
func (r *Registry) mistrust(rec *storev1.WebhookRecord) error {
	if planned(rec) && !rec.GetWork().GetCheckOnly() {
		return kv.ErrSkip
	}
	at := r.doubling(rec.GetSecretRepairTime(), &rec.SecretRepairs)
	if planned(rec) && rec.GetWork().GetDueTime().AsTime().Before(at) {
		return kv.ErrSkip // the check that is planned comes first; the next evidence counts after it
	}
	r.want(rec, false)
	rec.Work.DueTime = timestamppb.New(at)
	rec.SecretRepairTime = rec.GetWork().GetDueTime()
	return nil
}

// stray has the hook checked.
func (r *Registry) stray(rec *storev1.WebhookRecord) error {
	if planned(rec) {
		return kv.ErrSkip
	}
	at := r.doubling(rec.GetStrayCheckTime(), &rec.StrayChecks)
	r.want(rec, true)
	rec.Work.DueTime = timestamppb.New(at)
	rec.StrayCheckTime = rec.GetWork().GetDueTime()
	return nil
}

// doubling is when evidence that strangers may make has something done again: the pause since the last time
// doubles with each in a row. It counts one more.
func (r *Registry) doubling(last *timestamppb.Timestamp, times *int32) time.Time {
	now, before := r.cfg.Now(), last.AsTime()
	if now.Sub(before) > r.cfg.Timing.Mistrust {
		*times = 0
	}
	end := before.Add(min(r.cfg.Timing.Suspect<<min(*times, 20), r.cfg.Timing.Mistrust))
	*times++
	if end.After(now) {
		return end
	}
	return now
}

// aged reports whether a secret of a hook of ours is so old that it is rotated.
func (r *Registry) aged(rec *storev1.WebhookRecord) bool {
	return r.cfg.Timing.SecretAge > 0 && ours(rec) && rec.GetState() == webhookv1.Webhook_ACTIVE && rec.GetOldSecret() == nil &&
		rec.GetWork().GetErrorReason() == "" && r.cfg.Now().Sub(rec.GetSecret().GetCreateTime().AsTime()) >= r.cfg.Timing.SecretAge
}
