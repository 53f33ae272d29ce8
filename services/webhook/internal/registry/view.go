package registry

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// events are what our hooks are subscribed to. Renames show in every push's payload; the other
// events would only spend deliveries.
var events = []string{bitbucket.EventPush}

// View shows webhooks to people.
type View struct {
	Site    bitbucket.Site
	Address Address
}

// Webhook is the webhook as people see it, without what its ledger knows (last delivery, last
// verified, last refused).
func (v View) Webhook(rec *storev1.WebhookRecord, now time.Time) *webhookv1.Webhook {
	w := &webhookv1.Webhook{
		Id: rec.GetId(), Workspace: rec.GetWorkspace(), Repository: rec.GetRepository(), RepositoryFullName: rec.GetRepositoryFullName(),
		State: rec.GetState(), Reason: rec.GetReason(), Message: rec.GetMessage(),
		Url: v.Address.URL(rec.GetId()), Events: events, BitbucketUuid: rec.GetBitbucketUuid(),
		SettingsUrl: v.Site.WebhookSettingsURL(rec.GetRepositoryFullName()), ManualSteps: v.steps(rec, now), Branches: branches(rec),
		LastCheckTime: rec.GetLastCheckTime(), CreateTime: rec.GetCreateTime(), UpdateTime: rec.GetUpdateTime(),
	}
	if rec.GetOldSecret() != nil && !oldExpired(rec, now) {
		w.OldSecretExpireTime = rec.GetOldSecretExpireTime()
	}
	if rec.GetWork().GetErrorReason() != "" {
		w.RetryTime = rec.GetWork().GetDueTime()
	}
	w.LastRepairTime, w.LastRepair = rec.GetLastRepairTime(), rec.GetLastRepair()
	w.LastRepairHealth = rec.GetLastRepairHealth()
	w.FoundPushes, w.LastFoundTime = rec.GetFoundPushes(), rec.GetLastFoundTime()
	if rec.GetState() == webhookv1.Webhook_ACTIVE {
		w.CheckReason = rec.GetWork().GetErrorReason()
	}
	w.Etag = Etag(rec)
	return w
}

// Etag changes with everything that people see of the record, and not with who works on it.
func Etag(rec *storev1.WebhookRecord) string {
	seen := proto.CloneOf(rec)
	seen.Lease, seen.Epoch, seen.Work, seen.UpdateTime, seen.LastCheckTime = nil, 0, nil, nil, nil
	seen.OldSecretExpireTime = nil
	seen.FoundPushes, seen.SecretRepairs, seen.LastFoundTime, seen.SuspectTime, seen.SecretRepairTime, seen.TroubleTime = 0, 0, nil, nil, nil, nil
	seen.StrayChecks, seen.StrayCheckTime = 0, nil
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(seen)
	if err != nil { // a record that was just decoded
		return ""
	}
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// CheckEtag is an ETAG_MISMATCH when the caller saw another webhook than there is now. An empty etag
// matches everything.
func CheckEtag(rec *storev1.WebhookRecord, etag string) error {
	if etag == "" || etag == Etag(rec) {
		return nil
	}
	return apierr.New(apierr.ReasonEtagMismatch, "The webhook was changed meanwhile. Load it again and repeat the change.")
}

func branches(rec *storev1.WebhookRecord) []string {
	names := make([]string, 0, len(rec.GetWatches()))
	for _, w := range rec.GetWatches() {
		names = append(names, w.GetBranch())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// steps tell how to add the webhook by hand, where that is needed and can help.
func (v View) steps(rec *storev1.WebhookRecord, now time.Time) []string {
	name := rec.GetRepositoryFullName()
	settings := v.Site.WebhookSettingsURL(name)
	switch {
	case rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET:
		return []string{
			fmt.Sprintf("As an admin of %s, open %s.", name, settings),
			fmt.Sprintf("Delete the webhook whose URL is %s.", v.Address.URL(rec.GetId())),
			"Then dismiss the entry here.",
		}
	case len(rec.GetWatches()) == 0 || v.Address.Unreachable() != nil:
		return nil
	case rec.GetState() == webhookv1.Webhook_MANUAL && rec.GetOldSecret() != nil && rec.GetSecret().GetConfirmTime() == nil && !oldExpired(rec, now):
		return []string{
			fmt.Sprintf("As an admin of %s, open %s and edit the webhook whose URL is %s.", name, settings, v.Address.URL(rec.GetId())),
			"Replace its secret with the new one, which Reveal secret shows here.",
			"The old secret is accepted until a day after the first delivery that is signed with the new one.",
		}
	case rec.GetState() == webhookv1.Webhook_NOT_REGISTERED && byHand(rec.GetReason()):
		open := fmt.Sprintf("As an admin of %s, open %s and press Add webhook.", name, settings)
		if rec.GetReason() == string(apierr.ReasonWebhookLimit) {
			open = fmt.Sprintf("As an admin of %s, open %s and delete a webhook that is no longer needed. Then press Register here, or Add webhook there.", name, settings)
		}
		return []string{
			open,
			"Title: " + hookTitle(rec),
			"URL: " + v.Address.URL(rec.GetId()),
			"Secret: the one that Reveal secret shows here.",
			"Leave Status at Active and under Triggers tick Repository push, nothing else.",
			"Save. The next push shows here as a verified delivery.",
		}
	}
	return nil
}

// byHand reports whether somebody else can add the webhook that we may not add.
func byHand(reason string) bool {
	switch apierr.Reason(reason) {
	case apierr.ReasonNotRepositoryAdmin, apierr.ReasonAccessRestricted, apierr.ReasonScopeMissing,
		apierr.ReasonReconnectRequired, apierr.ReasonRepositoryNotFound, apierr.ReasonConsumerRefused,
		apierr.ReasonAccessRefused, apierr.ReasonWebhookRefused, apierr.ReasonWebhookLimit:
		return true
	default:
		return false
	}
}

// hookTitle is the hook's description at Bitbucket, which its pages show as the title.
func hookTitle(rec *storev1.WebhookRecord) string { return "Devpilot (" + rec.GetWorkspace() + ")" }
