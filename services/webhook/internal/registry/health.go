package registry

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/cache"
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

// offCheck is how often a webhook is looked at that somebody switched off.
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

// after asks for a run, once the pause since the last one of its kind is over.
func (r *Registry) after(rec *storev1.WebhookRecord, checkOnly bool, pause time.Duration, last ...time.Time) {
	at := r.cfg.Now()
	for _, t := range last {
		if end := t.Add(pause); end.After(at) {
			at = end
		}
	}
	r.want(rec, checkOnly)
	rec.Work.DueTime = timestamppb.New(at)
}

// suspect has the webhook checked for evidence that something is wrong with it.
func (r *Registry) suspect(rec *storev1.WebhookRecord) {
	if planned(rec) {
		return
	}
	r.after(rec, true, r.cfg.Timing.Suspect, rec.GetSuspectTime().AsTime(), rec.GetLastCheckTime().AsTime())
	rec.SuspectTime = rec.GetWork().GetDueTime()
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

// Refused notes that a delivery's signature was wrong or missing. Where it may be that somebody changed the
// secret of a hook of ours, it is written anew: whether it is right cannot be seen. Whoever sends wrong
// signatures for ever has it written some ten times in the first hour and once an hour afterwards.
func (r *Registry) Refused(ctx context.Context, workspace, id string) error {
	_, err := r.cfg.Store.Update(ctx, workspace, id, func(cur *storev1.WebhookRecord) error {
		if !ours(cur) || cur.GetState() != webhookv1.Webhook_ACTIVE || planned(cur) && !cur.GetWork().GetCheckOnly() {
			return kv.ErrSkip
		}
		last := cur.GetSecretRepairTime().AsTime()
		if r.cfg.Now().Sub(last) > r.cfg.Timing.Mistrust {
			cur.SecretRepairs = 0
		}
		pause := min(r.cfg.Timing.Suspect<<min(cur.GetSecretRepairs(), 20), r.cfg.Timing.Mistrust)
		if planned(cur) && cur.GetWork().GetDueTime().AsTime().Before(last.Add(pause)) {
			return kv.ErrSkip // the check that is planned comes first; the next evidence counts after it
		}
		cur.SecretRepairs++
		r.after(cur, false, pause, last)
		cur.SecretRepairTime = cur.GetWork().GetDueTime()
		return nil
	})
	return notFound(err)
}

// aged reports whether a secret of a hook of ours is so old that it is rotated.
func (r *Registry) aged(rec *storev1.WebhookRecord) bool {
	return r.cfg.Timing.SecretAge > 0 && ours(rec) && rec.GetState() == webhookv1.Webhook_ACTIVE && rec.GetOldSecret() == nil &&
		rec.GetWork().GetErrorReason() == "" && r.cfg.Now().Sub(rec.GetSecret().GetCreateTime().AsTime()) >= r.cfg.Timing.SecretAge
}

// census counts webhooks by how they stand, at each scrape.
type census struct{ cache *cache.Webhooks }

var webhooksByState = prometheus.NewDesc("devpilot_webhook_webhooks", "Webhooks by how they stand and the reason why not better; all replicas tell the same.", []string{"state", "reason"}, nil)

// Describe implements prometheus.Collector.
func (census) Describe(ch chan<- *prometheus.Desc) { ch <- webhooksByState }

// Collect implements prometheus.Collector.
func (c census) Collect(ch chan<- prometheus.Metric) {
	type standing struct{ state, reason string }
	counts := map[standing]int{}
	for _, rec := range c.cache.All() {
		if len(rec.GetWatches()) > 0 || rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET && !rec.GetDismissed() {
			counts[standing{rec.GetState().String(), rec.GetReason()}]++
		}
	}
	for s, n := range counts {
		ch <- prometheus.MustNewConstMetric(webhooksByState, prometheus.GaugeValue, float64(n), s.state, s.reason)
	}
}
