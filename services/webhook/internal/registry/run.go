package registry

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// slots is how many webhooks this process works on at once; one more for those somebody waits for.
const slots = 4

// acquireTimeout bounds taking a lease.
const acquireTimeout = 5 * time.Second

// finishTimeout bounds storing what came of a run; after it others take the lease over.
const finishTimeout = 20 * time.Second

// reschedule notes when a webhook is to be worked on next, whenever it changed. The cache calls it.
func (r *Registry) reschedule(rec *storev1.WebhookRecord) {
	due, ok := r.dueIn(rec)
	if !ok {
		r.schedule.drop(rec.GetId())
		return
	}
	// All replicas see the same change; the first one to begin takes the lease.
	r.schedule.at(rec.GetWorkspace(), rec.GetId(), due+rand.N(300*time.Millisecond))
}

// dueIn says when a webhook is to be worked on next; false when there is nothing to do.
func (r *Registry) dueIn(rec *storev1.WebhookRecord) (time.Duration, bool) {
	w := rec.GetWork()
	if w.GetDueTime() == nil {
		return 0, false
	}
	return max(w.GetDueTime().AsTime().Sub(r.cfg.Now()), 0), true
}

// Run works until ctx is done and returns when all runs have ended.
func (r *Registry) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer r.schedule.close()
	wg.Go(func() { r.sweepLoop(ctx) })
	ended := make(chan struct{})
	for running := 0; ; {
		for {
			t, ok := task{}, false
			if running <= slots {
				t, ok = r.schedule.next(running == slots)
			}
			if !ok {
				break
			}
			running++
			wg.Go(func() {
				r.work(ctx, t)
				r.schedule.finished(t)
				select {
				case ended <- struct{}{}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			running--
		case <-r.schedule.wake:
		}
	}
}

// work takes the lease of a webhook that needs work, does it, and stores what came of it.
func (r *Registry) work(ctx context.Context, t task) {
	// A stop must not cut this short: a lease whose write went through unnoticed would keep the
	// others waiting.
	rec, ok, err := r.acquire(context.WithoutCancel(ctx), t)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, kv.ErrNotFound) {
			r.cfg.Logger.WarnContext(ctx, "webhook not checked, trying again", slog.String(logs.KeyWebhook, t.id), logs.Err(err))
			r.schedule.at(t.workspace, t.id, time.Second+rand.N(time.Second))
		}
		return
	}
	if !ok {
		return
	}
	serving := rec.GetWork().GetWanted()
	action, f, err := r.atBitbucket(ctx, rec, t.hurry)
	if ctx.Err() != nil && err != nil {
		r.release(ctx, rec) // our own stop is nobody's failure: another replica begins anew
		return
	}
	r.finish(ctx, rec, serving, action, f, err)
}

// acquire takes the lease, if there is something to do and nobody else does it.
func (r *Registry) acquire(ctx context.Context, t task) (rec *storev1.WebhookRecord, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	var later time.Duration // until it is worth trying again
	rec, err = r.cfg.Store.Update(ctx, t.workspace, t.id, func(cur *storev1.WebhookRecord) error {
		ok, later = false, 0
		due, needed := r.dueIn(cur)
		if !needed {
			return kv.ErrSkip
		}
		if due > 0 && cur.GetWork().GetDone() >= cur.GetWork().GetWanted() {
			later = due
			return kv.ErrSkip
		}
		if later = r.freeIn(cur); later > 0 {
			return kv.ErrSkip
		}
		cur.Epoch++
		cur.Lease = &storev1.Lease{Holder: r.holder, Epoch: cur.GetEpoch()}
		ok = true
		return nil
	})
	if err == nil && later > 0 {
		r.schedule.at(t.workspace, t.id, later)
	}
	return rec, ok && err == nil, err
}

// freeIn says when the lease may be taken: now (0), or once it was seen unchanged for long enough.
// A lease of this very process is left from a write whose answer was lost: one webhook is worked on
// by one goroutine at a time, and that is the caller.
func (r *Registry) freeIn(rec *storev1.WebhookRecord) time.Duration {
	lease := rec.GetLease()
	if lease == nil || lease.GetHolder() == r.holder {
		r.schedule.forget(rec.GetId())
		return 0
	}
	return r.schedule.heldFor(rec.GetId(), lease.GetHolder(), lease.GetEpoch(), r.cfg.Timing.Takeover)
}

// release gives the lease back with nothing done.
func (r *Registry) release(ctx context.Context, rec *storev1.WebhookRecord) {
	r.store(ctx, rec, func(*storev1.WebhookRecord) {})
}

// finish stores what came of a run.
func (r *Registry) finish(ctx context.Context, rec *storev1.WebhookRecord, serving int64, a action, f found, err error) {
	result := "ok"
	var problem *apierr.Error
	if err != nil {
		problem = apierr.From(kv.ToAPI(err))
		result = string(problem.Reason())
		r.cfg.Logger.InfoContext(ctx, "webhook work did not succeed", slog.String("action", string(a)), slog.String(logs.KeyWebhook, rec.GetId()),
			slog.String(logs.KeyWorkspace, rec.GetWorkspace()), slog.String(logs.KeyRepository, rec.GetRepository()),
			slog.String(logs.KeyReason, result), logs.Err(err))
	}
	r.runs.WithLabelValues(string(a), result).Inc()
	r.store(ctx, rec, func(cur *storev1.WebhookRecord) {
		r.conclude(cur, serving, a, f, problem)
	})
}

// store changes the record under the lease that rec holds and gives the lease back. A record whose
// lease has another epoch by now is left alone: the result is out of date.
func (r *Registry) store(ctx context.Context, rec *storev1.WebhookRecord, change func(*storev1.WebhookRecord)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	for {
		_, err := r.cfg.Store.Update(ctx, rec.GetWorkspace(), rec.GetId(), func(cur *storev1.WebhookRecord) error {
			if cur.GetLease().GetEpoch() != rec.GetLease().GetEpoch() {
				return kv.ErrSkip
			}
			change(cur)
			cur.Lease = nil
			return nil
		})
		if err == nil || errors.Is(err, kv.ErrNotFound) {
			return
		}
		select {
		case <-ctx.Done():
			r.cfg.Logger.WarnContext(ctx, "result of webhook work not stored, it will be done again", slog.String(logs.KeyWebhook, rec.GetId()), logs.Err(err))
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}
