package registry

import (
	"testing"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Repair is offered where it may help, and nowhere else.
func TestRepairable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state  webhookv1.Webhook_State
		health webhookv1.Webhook_Health
		reason string
		want   bool
	}{
		"well":                       {webhookv1.Webhook_ACTIVE, webhookv1.Webhook_REGISTERED, "", false},
		"nobody needs it":            {webhookv1.Webhook_REMOVED, webhookv1.Webhook_HEALTH_UNSPECIFIED, "", false},
		"switched off":               {webhookv1.Webhook_DRIFTED, webhookv1.Webhook_INACTIVE, "WEBHOOK_DEACTIVATED", true},
		"deliveries missing":         {webhookv1.Webhook_ACTIVE, webhookv1.Webhook_DELIVERIES_MISSING, "", true},
		"another secret":             {webhookv1.Webhook_ACTIVE, webhookv1.Webhook_SECRET_CHANGED, "", true},
		"as many as there may be":    {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_LIMIT_REACHED, "WEBHOOK_LIMIT_REACHED", true},
		"Bitbucket did not answer":   {webhookv1.Webhook_PENDING, webhookv1.Webhook_NOT_CHECKED, "BITBUCKET_UNAVAILABLE", true},
		"never an admin":             {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_ADMIN, "NOT_REPOSITORY_ADMIN", false},
		"an admin no more":           {webhookv1.Webhook_ACTIVE, webhookv1.Webhook_NOT_ADMIN, "NOT_REPOSITORY_ADMIN", false},
		"deleted, an admin no more":  {webhookv1.Webhook_DRIFTED, webhookv1.Webhook_DELETED, "NOT_REPOSITORY_ADMIN", false},
		"by hand, another secret":    {webhookv1.Webhook_MANUAL, webhookv1.Webhook_SECRET_CHANGED, "", false},
		"by hand, lost deliveries":   {webhookv1.Webhook_MANUAL, webhookv1.Webhook_DELIVERIES_MISSING, "", false},
		"refused by Bitbucket":       {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "WEBHOOK_REFUSED", false},
		"without a public URL":       {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "NO_PUBLIC_URL", false},
		"without a connection":       {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "NOT_CONNECTED", false},
		"a scope is missing":         {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "SCOPE_MISSING", false},
		"repository out of reach":    {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "REPOSITORY_NOT_FOUND", false},
		"outside what was narrowed":  {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "BITBUCKET_WORKSPACE_EXCLUDED", false},
		"refused for now, asked on":  {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "ACCESS_REFUSED", true},
		"the address is not allowed": {webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "ACCESS_RESTRICTED", false},
	} {
		if got := repairable(&webhookv1.Webhook{Health: c.health}, &storev1.WebhookRecord{State: c.state, Reason: c.reason}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if got := repairable(&webhookv1.Webhook{Health: c.health}, &storev1.WebhookRecord{State: c.state, Work: &storev1.Work{ErrorReason: c.reason}}); got != c.want {
			t.Errorf("%s, as the last run said: %v", name, got)
		}
	}
}
