package registry

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// finding is what somebody did to our hook; nothing where we never had one, or all is as it should be.
func (w wanted) finding(mine []bitbucket.Hook) webhookv1.Webhook_Health {
	switch {
	case len(mine) > 0 && !mine[0].Active:
		return webhookv1.Webhook_INACTIVE
	case w.known == "":
		return webhookv1.Webhook_HEALTH_UNSPECIFIED
	case len(mine) == 0 || mine[0].UUID != w.known:
		return webhookv1.Webhook_DELETED
	case mine[0].URL != w.url && mine[0].URL != w.registered:
		return webhookv1.Webhook_URL_CHANGED
	case !slices.Equal(mine[0].Events, events):
		return webhookv1.Webhook_EVENTS_CHANGED
	case !mine[0].SecretSet:
		return webhookv1.Webhook_SECRET_CHANGED
	default:
		return webhookv1.Webhook_HEALTH_UNSPECIFIED
	}
}

// noteFinding notes what a run found and left as it was, and since when something is wrong.
func (r *Registry) noteFinding(rec *storev1.WebhookRecord, f found, problem *apierr.Error) {
	switch {
	case f.listed && (problem == nil || f.written) && !f.off:
		rec.Finding = webhookv1.Webhook_HEALTH_UNSPECIFIED
	case f.listed:
		rec.Finding = f.finding
	}
	switch {
	case problem == nil && rec.GetFinding() == webhookv1.Webhook_HEALTH_UNSPECIFIED:
		rec.TroubleTime = nil
	case rec.GetTroubleTime() == nil:
		rec.TroubleTime = timestamppb.New(r.cfg.Now())
	}
}

// moved reports whether a webhook that was added by hand has an address that Devpilot had before.
func (r *Registry) moved(rec *storev1.WebhookRecord) bool {
	return rec.GetRegisteredUrl() != "" && rec.GetRegisteredUrl() != r.cfg.View.Address.URL(rec.GetId())
}

// after reports whether something happened, and after all of what else may have.
func after(t *timestamppb.Timestamp, others ...*timestamppb.Timestamp) bool {
	for _, o := range others {
		if o != nil && !t.AsTime().After(o.AsTime()) {
			return false
		}
	}
	return t != nil
}

// Health says what is wrong with a webhook: of the record, and of what came to it, which w has. What keeps
// Devpilot from looking or repairing comes first, because a person can do something about it.
func (View) Health(w *webhookv1.Webhook, rec *storev1.WebhookRecord) {
	w.Health, w.HealthTime = health(w, rec)
	w.HealthMessage = healthWords(w.GetHealth(), rec)
	w.Repairable = repairable(w, rec)
}

// repairable reports whether a run at Bitbucket may put right what is wrong, as things are. That too many
// webhooks are there somebody mends first, and then presses Repair: the message says so.
func repairable(w *webhookv1.Webhook, rec *storev1.WebhookRecord) bool {
	switch w.GetHealth() { //nolint:exhaustive // of the others the reason decides
	case webhookv1.Webhook_HEALTH_UNSPECIFIED, webhookv1.Webhook_REGISTERED, webhookv1.Webhook_NOT_ADMIN:
		return false
	}
	reason := rec.GetWork().GetErrorReason()
	if reason == "" {
		reason = rec.GetReason()
	}
	switch apierr.Reason(reason) { //nolint:exhaustive // others pass, or are what a run mends
	case apierr.ReasonNotRepositoryAdmin, apierr.ReasonNoPublicURL, apierr.ReasonNotConnected, apierr.ReasonReconnectRequired, apierr.ReasonScopeMissing,
		apierr.ReasonConsumerRefused, apierr.ReasonAccessRestricted, apierr.ReasonRepositoryNotFound, apierr.ReasonWebhookRefused, apierr.ReasonWorkspaceExcluded:
		return false
	}
	return rec.GetState() != webhookv1.Webhook_MANUAL
}

func health(w *webhookv1.Webhook, rec *storev1.WebhookRecord) (webhookv1.Webhook_Health, *timestamppb.Timestamp) {
	state, problem := rec.GetState(), apierr.Reason(rec.GetWork().GetErrorReason())
	if state == webhookv1.Webhook_MANUAL {
		problem = "" // that Devpilot may not look after it is why somebody added it by hand
	}
	written := rec.GetSecretRepairTime()
	if planned(rec) {
		written = nil // it is to be written then
	}
	switch {
	case len(rec.GetWatches()) == 0, state == webhookv1.Webhook_LEFT_ON_BITBUCKET, state == webhookv1.Webhook_REMOVED:
		return webhookv1.Webhook_HEALTH_UNSPECIFIED, nil
	case problem == apierr.ReasonNotRepositoryAdmin:
		return webhookv1.Webhook_NOT_ADMIN, rec.GetTroubleTime()
	case problem == apierr.ReasonWebhookLimit:
		return webhookv1.Webhook_LIMIT_REACHED, rec.GetTroubleTime()
	case rec.GetFinding() != webhookv1.Webhook_HEALTH_UNSPECIFIED:
		return rec.GetFinding(), rec.GetTroubleTime()
	case state != webhookv1.Webhook_ACTIVE && state != webhookv1.Webhook_MANUAL:
		return webhookv1.Webhook_NOT_CHECKED, rec.GetTroubleTime()
	case after(w.GetLastRefusedTime(), w.GetLastVerifiedTime(), rec.GetSecret().GetConfirmTime(), written):
		return webhookv1.Webhook_SECRET_CHANGED, w.GetLastRefusedTime()
	case after(rec.GetLastFoundTime(), w.GetLastVerifiedTime(), rec.GetLastRepairTime(), written):
		return webhookv1.Webhook_DELIVERIES_MISSING, rec.GetLastFoundTime()
	case problem != "":
		return webhookv1.Webhook_NOT_CHECKED, rec.GetTroubleTime()
	default:
		return webhookv1.Webhook_REGISTERED, nil
	}
}

// foundByPolling says what becomes of pushes while no delivery comes. How long that takes the deployer knows.
const foundByPolling = "Until then pushes are found by polling, a little later."

// healthWords says what is wrong with a webhook, and what to do; empty where nothing is.
func healthWords(h webhookv1.Webhook_Health, rec *storev1.WebhookRecord) string {
	name, why := rec.GetRepositoryFullName(), rec.GetWork().GetErrorMessage()
	byHand := rec.GetState() == webhookv1.Webhook_MANUAL
	switch h {
	case webhookv1.Webhook_INACTIVE:
		return deactivatedMessage
	case webhookv1.Webhook_DELETED, webhookv1.Webhook_URL_CHANGED, webhookv1.Webhook_EVENTS_CHANGED:
		return fmt.Sprintf("%s It could not be put right: %s %s", did(h, name), why, foundByPolling)
	case webhookv1.Webhook_SECRET_CHANGED:
		if byHand {
			return fmt.Sprintf("A request to the webhook of %s had a wrong signature. If its secret on Bitbucket is another one, an admin of the repository replaces it there with the one that Reveal secret shows. %s", name, foundByPolling)
		}
		return fmt.Sprintf("A request to the webhook of %s had a wrong signature: its secret on Bitbucket may be another one. Devpilot writes it again by itself within the hour; Repair does it now. %s", name, foundByPolling)
	case webhookv1.Webhook_NOT_ADMIN:
		if rec.GetFinding() != webhookv1.Webhook_HEALTH_UNSPECIFIED {
			return fmt.Sprintf("%s It could not be put right: %s %s", did(rec.GetFinding(), name), why, foundByPolling)
		}
		return fmt.Sprintf("%s, so Devpilot cannot register its webhook, look at it or repair it. Give it the right on Bitbucket, or have an admin add the webhook by hand with the URL and the secret that are shown. %s", bitbucket.NotAdmin(name), foundByPolling)
	case webhookv1.Webhook_LIMIT_REACHED:
		return fmt.Sprintf("%s has as many webhooks as Bitbucket allows. Delete one there that is no longer needed, then press Repair. %s", name, foundByPolling)
	case webhookv1.Webhook_DELIVERIES_MISSING:
		if byHand {
			return fmt.Sprintf("A push to %s came without a delivery. Ask an admin of the repository to check the webhook on Bitbucket: it must be active, with the URL and the secret that are shown here. %s", name, foundByPolling)
		}
		return fmt.Sprintf("A push to %s came without a delivery. Devpilot compares the webhook with Bitbucket's and puts right what differs; if more are lost, look at the webhook's requests on Bitbucket. %s", name, foundByPolling)
	case webhookv1.Webhook_NOT_CHECKED:
		if why == "" {
			return "The webhook is being registered."
		}
		return "Devpilot could not compare the webhook with Bitbucket's: " + why
	default:
		return ""
	}
}

// did says what somebody did to a hook.
func did(h webhookv1.Webhook_Health, name string) string {
	what := map[webhookv1.Webhook_Health]string{
		webhookv1.Webhook_INACTIVE: "switched off", webhookv1.Webhook_URL_CHANGED: "changed the URL of", webhookv1.Webhook_EVENTS_CHANGED: "changed the triggers of",
		webhookv1.Webhook_SECRET_CHANGED: "removed the secret of", webhookv1.Webhook_DELETED: "deleted",
	}[h]
	return fmt.Sprintf("Somebody %s the webhook of %s on Bitbucket.", what, name)
}
