package reconcile

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// A repository whose webhook is known to work is polled far less often than others: its pushes are
// told. Known to work is a webhook that is on Bitbucket as far as we know, of which a signed delivery
// has come, and of whose pushes none was found missing since. A delivery that gets lost all the same is
// found by the next poll; from then on the webhook is not relied on until another delivery comes. And
// since deliveries are often lost for a cause that all webhooks share, no other webhook is relied on
// either for a while.

const (
	// reliedLeast is how many times longer the pause between polls is at least at a repository whose webhook is
	// relied on: 2 minutes for 30 seconds.
	reliedLeast = 4
	// reliedMost is how many times longer it is at most: 10 minutes for 30 seconds.
	reliedMost = 20
	// reliedPolls is how many polls in an hour repositories have together whose webhooks are relied on: the
	// pause grows with their number, from 400 to 2,000 of them.
	reliedPolls = 12_000
	// lively is for how long after a delivery a repository is polled at the shortest pause of those that are
	// relied on: where somebody pushes now, the next delivery is the likeliest to be lost.
	lively = time.Hour
	// doubtAll is for how long no webhook is relied on after a delivery of any of them was missing.
	doubtAll = time.Hour
	// webhookCheckFactor is after how many pauses webhook is asked again about a webhook that is not relied on.
	webhookCheckFactor = 10
)

// reliance is what is known of a repository's webhook.
type reliance struct {
	works    bool
	asked    time.Time // when webhook was last asked
	verified time.Time // when a delivery last came, as far as webhook said then
}

func (w *repository) relies() bool { return w != nil && w.works }

// interval is the pause after a poll. It keeps all polls together within the budget.
func (r *Reconciler) interval(key string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.pause(key)
	return d - d/10 + rand.N(d/5+1)
}

// pause is the pause between polls of a repository. r.mu is held.
func (r *Reconciler) pause(key string) time.Duration {
	w := r.watched[key]
	if !w.relies() {
		return r.often()
	}
	calm := min(max(reliedLeast*r.cfg.Interval, within(r.relied, reliedPolls)), reliedMost*r.cfg.Interval)
	calm = max(calm, within(r.relied, gitBudget))
	if r.cfg.Now().Sub(w.verified) < lively {
		calm = min(calm, r.livelyPause())
	}
	return max(calm, r.often())
}

// livelyPause is the pause between polls of a repository that is relied on and was pushed to a moment ago.
// If all are, they take half of the budget. r.mu is held.
func (r *Reconciler) livelyPause() time.Duration {
	return max(reliedLeast*r.cfg.Interval, within(r.relied, gitBudget/2))
}

// often is the pause between polls where no webhook is relied on: the budget that the others leave is for
// these. r.mu is held.
func (r *Reconciler) often() time.Duration {
	left := gitBudget
	if r.relied > 0 {
		left -= int(time.Duration(r.relied) * time.Hour / r.livelyPause())
	}
	return max(r.cfg.Interval, within(len(r.watched)-r.relied, left))
}

// within is the pause that lets so many repositories have so many polls in an hour together.
func within(repositories, polls int) time.Duration {
	return time.Duration(repositories) * time.Hour / time.Duration(polls)
}

// FindsWithin is how long it takes, as a rule at most, until a push is found whose delivery does not come:
// the longest pause between polls, and how long a delivery is waited for.
func (r *Reconciler) FindsWithin(workspace, repository string) time.Duration {
	return r.PollsWithin(workspace, repository) + r.cfg.Grace
}

// PollsWithin is the longest pause between two polls of a repository, as a rule.
func (r *Reconciler) PollsWithin(workspace, repository string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.pause(workspace + "." + repository)
	return d + d/10
}

// rely finds out whether the repository's webhook can be relied on after a poll that found nothing new.
// It tells whether that is another answer than before.
func (r *Reconciler) rely(ctx context.Context, key, workspace, repository string, state *storev1.Reconciliation) bool {
	if r.cfg.Webhooks == nil {
		return false
	}
	now := r.cfg.Now()
	r.mu.Lock()
	w := r.watched[key]
	if w == nil || !anyAuto(w.idx) || !w.works && !w.asked.IsZero() && now.Sub(w.asked) < webhookCheckFactor*r.cfg.Interval {
		r.mu.Unlock()
		return false
	}
	w.asked = now
	doubt := !r.missed.IsZero() && now.Sub(r.missed) < doubtAll
	r.mu.Unlock()
	works := false
	var verified time.Time
	if !doubt {
		hooks, err := r.cfg.Webhooks.Webhooks(ctx, workspace, []string{repository})
		if err != nil {
			r.cfg.Logger.DebugContext(ctx, "webhook not known to work", logs.Err(err))
		}
		works = err == nil && hookWorks(hooks[repository], state)
		verified = hooks[repository].GetLastVerifiedTime().AsTime()
	}
	return r.setWorks(key, works, verified)
}

// hookWorks tells whether a webhook is on Bitbucket and its deliveries come.
func hookWorks(h *webhookv1.Webhook, state *storev1.Reconciliation) bool {
	there := h.GetState() == webhookv1.Webhook_ACTIVE || h.GetState() == webhookv1.Webhook_MANUAL
	verified := h.GetLastVerifiedTime()
	return there && h.GetReason() == "" && verified != nil && verified.AsTime().After(state.GetMissedTime().AsTime())
}

func (r *Reconciler) setWorks(key string, works bool, verified time.Time) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[key]
	if w == nil {
		return false
	}
	if works {
		w.verified = verified
	}
	if w.works == works {
		return false
	}
	w.works = works
	if works {
		r.relied++
	} else {
		r.relied--
	}
	return true
}

// deliveryMissed notes that a push was found whose delivery never came: all repositories are polled
// as if no webhook were known to work.
func (r *Reconciler) deliveryMissed(state *storev1.Reconciliation) {
	now := r.cfg.Now()
	state.MissedTime = timestamppb.New(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = now
	if r.relied == 0 {
		return
	}
	spread := max(r.cfg.Interval, within(len(r.watched), gitBudget))
	for key, w := range r.watched {
		if w.works {
			w.works = false
			r.loop.Set(key, now.Add(rand.N(spread)))
		}
	}
	r.relied = 0
}
