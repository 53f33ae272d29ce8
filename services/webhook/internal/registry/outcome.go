package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// action is what a run is to do.
type action string

const (
	actionRegister action = "register"
	actionCheck    action = "check"
	actionRemove   action = "remove"
)

// atBitbucket does what the record wants. It changes nothing of ours.
func (r *Registry) atBitbucket(ctx context.Context, rec *storev1.WebhookRecord, hurry bool) (action, found, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timing.Run)
	defer cancel()
	a := actionRegister
	switch {
	case len(rec.GetWatches()) == 0:
		a = actionRemove
	case rec.GetWork().GetCheckOnly():
		a = actionCheck
	}
	if err := r.cfg.View.Address.Unreachable(); err != nil {
		if a == actionRemove && !mayExist(rec) {
			return a, found{}, nil
		}
		if a != actionRemove {
			return a, found{}, err
		}
	}
	secret, err := r.cfg.Vault.open(rec, rec.GetSecret())
	if err != nil {
		return a, found{}, err
	}
	w := wanted{
		repository: rec.GetRepository(), fullName: rec.GetRepositoryFullName(), url: r.cfg.View.Address.URL(rec.GetId()),
		known: rec.GetBitbucketUuid(), title: hookTitle(rec), secret: secret, checkOnly: a == actionCheck,
		registered: rec.GetRegisteredUrl(), activate: rec.GetWork().GetActivate(),
	}
	hooks := r.cfg.Account(rec.GetWorkspace(), rec.GetBitbucketWorkspace(), !hurry)
	var f found
	if a == actionRemove {
		f, err = remove(ctx, hooks, w)
	} else {
		f, err = ensure(ctx, hooks, w)
	}
	return a, f, witnessed(ctx, hooks, rec, err)
}

// believedAfter is how often Bitbucket must have said that a repository is not there, or that it does
// not accept the token for it, before that is believed: some two minutes. Bitbucket has said so of all
// there is, for three quarters of an hour (BITBUCKET.md#no-access).
const believedAfter = 6

// doubtful are the answers that may be passing untruths.
func doubtful(reason apierr.Reason) bool {
	return reason == apierr.ReasonRepositoryNotFound || reason == apierr.ReasonAccessRefused
}

// witnessed turns a doubtful answer that is about to be believed into trouble with Bitbucket, unless
// Bitbucket answers something else as it should.
func witnessed(ctx context.Context, hooks Hooks, rec *storev1.WebhookRecord, err error) error {
	if err == nil || !doubtful(apierr.ReasonOf(err)) || rec.GetWork().GetAttempts()+1 < believedAfter {
		return err
	}
	if _, other := hooks.User(ctx); other != nil {
		return apierr.New(apierr.ReasonBitbucketUnavailable,
			"Bitbucket has trouble at the moment: it does not even know the connected account. Devpilot asks again.", apierr.WithCause(errors.Join(err, other)))
	}
	return err
}

// unbelieved reports whether a problem is not taken for the truth yet.
func unbelieved(rec *storev1.WebhookRecord, problem *apierr.Error) bool {
	return problem != nil && doubtful(problem.Reason()) && rec.GetWork().GetAttempts()+1 < believedAfter
}

// mayExist reports whether Bitbucket may have a hook of ours, as far as we know.
func mayExist(rec *storev1.WebhookRecord) bool {
	switch rec.GetState() {
	case webhookv1.Webhook_ACTIVE, webhookv1.Webhook_MANUAL, webhookv1.Webhook_DRIFTED, webhookv1.Webhook_LEFT_ON_BITBUCKET:
		return true
	default:
		return rec.GetBitbucketUuid() != "" || rec.GetSecret().GetConfirmTime() != nil
	}
}

// conclude writes what came of a run into the record.
func (r *Registry) conclude(rec *storev1.WebhookRecord, serving int64, a action, f found, problem *apierr.Error) {
	now := r.cfg.Now()
	before := Etag(rec)
	w := rec.GetWork()
	w.Done, w.CheckOnly = max(w.GetDone(), serving), false
	if w.GetDone() == w.GetWanted() && (problem == nil || !temporary(problem) && !unbelieved(rec, problem)) {
		w.Activate = false
	}
	w.ErrorReason, w.ErrorMessage, w.ErrorRetrySeconds = "", "", 0
	if unbelieved(rec, problem) {
		problem = apierr.New(problem.Reason(), problem.Message()+" Devpilot asks again before it believes that.", apierr.WithCause(problem))
	}
	if f.listed && problem == nil {
		rec.LastCheckTime = timestamppb.New(now)
	}
	if a == actionRemove {
		r.concludeRemoval(rec, f, problem)
	} else {
		r.concludeRegistration(rec, f, problem)
	}
	if problem != nil {
		w.ErrorReason, w.ErrorMessage = string(problem.Reason()), problem.Message()
		w.ErrorRetrySeconds = int32((problem.RetryAfter() + time.Second - 1) / time.Second)
	}
	r.plan(rec, a, problem)
	dropExpired(rec, now)
	if Etag(rec) != before {
		r.touch(rec)
	}
}

func (r *Registry) concludeRegistration(rec *storev1.WebhookRecord, f found, problem *apierr.Error) {
	now := r.cfg.Now()
	if f.uuid != "" && f.listed {
		rec.BitbucketUuid = f.uuid
	}
	if f.uuid != "" && f.listed && (f.written || problem == nil) { // else it has the URL that it had
		rec.RegisteredUrl, rec.Events = r.cfg.View.Address.URL(rec.GetId()), events
	}
	r.noteFinding(rec, f, problem)
	if f.written {
		ConfirmSecret(rec, now)
	}
	r.noteRepair(rec, f, now)
	switch {
	case problem == nil && f.off:
		rec.State, rec.Reason, rec.Message = webhookv1.Webhook_DRIFTED, string(apierr.ReasonWebhookDeactivated), deactivatedMessage
		return
	case problem == nil:
		rec.State, rec.Reason, rec.Message = webhookv1.Webhook_ACTIVE, "", ""
		return
	case f.listed && f.drifted && !f.written:
		// We saw that it is not as it should be, and could not put it right.
		rec.State = webhookv1.Webhook_DRIFTED
		if f.uuid == "" {
			rec.BitbucketUuid = ""
		}
	case f.written:
		// Ours is right; an extra one is still there, or could not be looked for.
		rec.State, rec.Reason, rec.Message = webhookv1.Webhook_ACTIVE, "", ""
		return
	}
	reason, message := string(problem.Reason()), problem.Message()
	state := rec.GetState()
	if r.cfg.View.Address.Unreachable() != nil && state != webhookv1.Webhook_LEFT_ON_BITBUCKET {
		state = webhookv1.Webhook_NOT_REGISTERED // whatever Bitbucket has, it leads nowhere
	}
	switch state {
	case webhookv1.Webhook_ACTIVE:
		// A hook stays on the repository whatever becomes of our access (BITBUCKET.md#whose-webhooks).
		rec.Reason, rec.Message = "", "The webhook could not be compared with Bitbucket's: "+message
	case webhookv1.Webhook_MANUAL:
		if r.moved(rec) {
			rec.State, rec.Reason, rec.RegisteredUrl = webhookv1.Webhook_NOT_REGISTERED, reason, ""
			rec.Message = "Devpilot has another address now, and the webhook that was added by hand has the old one: " + message
			return
		}
		rec.Reason, rec.Message = "", manualMessage(rec)
	case webhookv1.Webhook_LEFT_ON_BITBUCKET, webhookv1.Webhook_DRIFTED:
		rec.Reason, rec.Message = reason, message
	default:
		rec.State = webhookv1.Webhook_NOT_REGISTERED
		if temporary(problem) || unbelieved(rec, problem) {
			rec.State = webhookv1.Webhook_PENDING
		}
		rec.Reason, rec.Message = reason, message
	}
}

// manualMessage is what a webhook says that was added by hand.
func manualMessage(rec *storev1.WebhookRecord) string {
	if rec.GetOldSecret() != nil && rec.GetSecret().GetConfirmTime() == nil {
		return "The webhook was added at Bitbucket by hand and still has the secret from before the rotation: replace it there with the new one."
	}
	return "The webhook was added at Bitbucket by hand, and its deliveries are signed as they should be. After the connected account was made an admin of the repository, Register lets Devpilot look after it."
}

func (r *Registry) concludeRemoval(rec *storev1.WebhookRecord, f found, problem *apierr.Error) {
	gone := problem != nil && problem.Reason() == apierr.ReasonRepositoryNotFound // with all its webhooks
	if problem == nil || gone && (!unbelieved(rec, problem) || !mayExist(rec)) {
		rec.State, rec.Reason, rec.Message = webhookv1.Webhook_REMOVED, "", ""
		rec.BitbucketUuid, rec.RegisteredUrl, rec.Events = "", "", nil
		return
	}
	if removalWaits(problem) || unbelieved(rec, problem) {
		rec.Message = "The webhook is to be removed from Bitbucket: " + problem.Message()
		return
	}
	if f.uuid == "" && !mayExist(rec) {
		rec.State, rec.Reason, rec.Message = webhookv1.Webhook_REMOVED, "", ""
		return
	}
	rec.State, rec.Reason = webhookv1.Webhook_LEFT_ON_BITBUCKET, string(problem.Reason())
	rec.Message = fmt.Sprintf("No app uses the webhook any more, and it could not be removed from Bitbucket: %s", problem.Message())
}

// removalWaits tells trouble that passes from an answer that will stay. At a removal a refused token
// (401) counts as the latter (BITBUCKET.md#whose-webhooks).
func removalWaits(problem *apierr.Error) bool {
	return temporary(problem) && problem.Reason() != apierr.ReasonTokenExpired && problem.Reason() != apierr.ReasonConsumerRefused
}

// temporary reports whether a problem may pass without anybody's doing.
func temporary(problem *apierr.Error) bool {
	switch problem.Reason() {
	case apierr.ReasonBitbucketRateLimited, apierr.ReasonBitbucketUnavailable, apierr.ReasonStorageUnavailable, apierr.ReasonServiceUnavailable,
		apierr.ReasonTimeout, apierr.ReasonCanceled, apierr.ReasonTokenExpired, apierr.ReasonConsumerRefused, apierr.ReasonInternal, apierr.ReasonRateLimited:
		return true
	default:
		return false
	}
}

// plan says when to work on the webhook next.
func (r *Registry) plan(rec *storev1.WebhookRecord, a action, problem *apierr.Error) {
	w, t := rec.GetWork(), r.cfg.Timing
	in := time.Duration(-1)
	switch {
	case w.GetWanted() > w.GetDone():
		in, w.Attempts = 0, 0
	case a == actionRemove && rec.GetState() == webhookv1.Webhook_REMOVED:
		w.Attempts = 0
	case problem == nil:
		// Spread, so that what was registered together is not checked together for ever.
		in, w.Attempts = r.checkIn(rec), 0
		w.CheckOnly = true
	case a == actionRemove && removalWaits(problem), a != actionRemove && temporary(problem), unbelieved(rec, problem):
		w.Attempts++
		in = backoff(t, w.GetAttempts())
		if asked := problem.RetryAfter(); asked > 0 { // Bitbucket's word counts, be it shorter or longer
			in = asked
		}
	case a == actionRemove, problem.Reason() == apierr.ReasonNotConnected, problem.Reason() == apierr.ReasonNoPublicURL:
		w.Attempts = 0 // a change of the integration, or of the settings, begins anew
	default:
		w.Attempts++
		in = refusedPause(t, w.GetAttempts())
	}
	w.DueTime = nil
	if in >= 0 {
		w.DueTime = timestamppb.New(r.cfg.Now().Add(in))
	}
}

// refusedPause is the pause after the n-th refusal that somebody must cure: a person may be at it just now,
// and some days later nobody is.
func refusedPause(t Timing, n int32) time.Duration {
	d := t.RetryGiven
	if n < 16 {
		d = min(12*t.RetryFirst<<(max(n, 1)-1), t.RetryGiven)
	}
	return d - rand.N(d/4+1)
}

// backoff is the pause after the n-th failure in a row, less up to a quarter at random.
func backoff(t Timing, n int32) time.Duration {
	d := t.RetryMost
	if n < 16 {
		d = min(t.RetryFirst<<(max(n, 1)-1), t.RetryMost)
	}
	return d - rand.N(d/4+1)
}
