package app

import (
	"context"
	"testing"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func TestRemedy_offersOnlyWhatCanMendIt(t *testing.T) {
	t.Parallel()
	gone := &storev1.Trouble{Reason: "REPOSITORY_NOT_FOUND"}
	told := &webhookv1.Delivery{Webhook: "w", Number: 7}
	ignored := &webhookv1.DeliveryOutcome{Kind: webhookv1.DeliveryOutcome_IGNORED}
	for name, c := range map[string]struct {
		reason  string
		number  int32
		change  func(v *verdict)
		want    deployerv1.Remedy_Kind
		nothing bool
	}{
		"auto-deploy off":                          {reason: syncOff, want: deployerv1.Remedy_SWITCH_AUTO_DEPLOY_ON},
		"auto-deploy off, disconnected":            {reason: syncOff, change: paused("NOT_CONNECTED"), want: deployerv1.Remedy_RECONNECT},
		"auto-deploy off, consumer refused":        {reason: syncOff, change: paused("CONSUMER_REFUSED"), want: deployerv1.Remedy_OPEN_INTEGRATION},
		"auto-deploy off, repository out of reach": {reason: syncOff, change: func(v *verdict) { v.p.index.Unreachable = gone }, want: deployerv1.Remedy_OPEN_INTEGRATION},
		"not deployed":                             {reason: syncUndeployed, want: deployerv1.Remedy_DEPLOY},
		"not deployed, disconnected":               {reason: syncUndeployed, change: paused("RECONNECT_REQUIRED"), want: deployerv1.Remedy_RECONNECT},
		"skipped, repository out of reach":         {reason: rules.ReasonSkipPhrase, change: func(v *verdict) { v.p.index.Unreachable = gone }, want: deployerv1.Remedy_OPEN_INTEGRATION},
		"failed": {reason: syncFailed, number: 3, change: func(v *verdict) {
			v.runs = []*deployerv1.Deployment{{Number: 3, Commit: &deployerv1.DeploymentCommit{Hash: "abc"}}}
		}, want: deployerv1.Remedy_REDEPLOY},
		"failed before it had a commit": {reason: syncFailed, number: 3, change: func(v *verdict) { v.runs = []*deployerv1.Deployment{{Number: 3}} }, want: deployerv1.Remedy_DEPLOY},
		"cancelled, disconnected":       {reason: syncCancelled, number: 3, change: paused("NOT_CONNECTED"), want: deployerv1.Remedy_RECONNECT},
		"paths":                         {reason: rules.ReasonPathsUnchanged, change: paused("NOT_CONNECTED"), want: deployerv1.Remedy_EDIT_RULES},
		"turned away, told":             {reason: "OTHER", change: func(v *verdict) { v.told, v.outcome = told, ignored }, want: deployerv1.Remedy_REPLAY_DELIVERY},
		"turned away, found by polling": {reason: "OTHER", change: func(v *verdict) {
			v.told, v.outcome = &webhookv1.Delivery{Webhook: "w", Number: 7, Found: webhookv1.Delivery_DELIVERY_MISSING}, ignored
		}, nothing: true},
		"being decided":     {reason: syncDeciding, change: func(v *verdict) { v.told, v.outcome = told, ignored }, nothing: true},
		"delivery awaited":  {reason: syncAwaited, nothing: true},
		"runs":              {reason: syncDeploying, number: 4, want: deployerv1.Remedy_OPEN_DEPLOYMENT},
		"runs, unconnected": {reason: syncDeploying, number: 4, change: paused("NOT_CONNECTED"), want: deployerv1.Remedy_OPEN_DEPLOYMENT},
	} {
		v := &verdict{question: &question{connection: &storev1.Connection{}}, p: &parts{app: &storev1.App{Id: "web"}, index: &storev1.RepositoryIndex{}}}
		if c.change != nil {
			c.change(v)
		}
		got := v.remedy(c.reason, c.number)
		if (got == nil) != c.nothing || got.GetKind() != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func paused(reason string) func(*verdict) {
	return func(v *verdict) { v.connection.Paused = &storev1.Trouble{Reason: reason} }
}

// A webhook that only somebody else can put right is not offered to be repaired.
func TestHookRemedy_doesNotOfferWhatTheAccountMayNot(t *testing.T) {
	t.Parallel()
	hook := func(state webhookv1.Webhook_State, health webhookv1.Webhook_Health, reason string, repairable bool) *webhookv1.Webhook {
		return &webhookv1.Webhook{Id: "w", Repository: "r", State: state, Health: health, Reason: reason, Repairable: repairable}
	}
	q := &question{parts: []*parts{{app: &storev1.App{Id: "off", Repository: "r"}}, {app: &storev1.App{Id: "web", Repository: "r", AutoDeploy: true}}}}
	for name, c := range map[string]struct {
		hook *webhookv1.Webhook
		want deployerv1.Remedy_Kind
		app  string
	}{
		"switched off":         {hook(webhookv1.Webhook_DRIFTED, webhookv1.Webhook_INACTIVE, "WEBHOOK_DEACTIVATED", true), deployerv1.Remedy_REPAIR_WEBHOOK, ""},
		"not registered":       {hook(webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_LIMIT_REACHED, "WEBHOOK_LIMIT_REACHED", true), deployerv1.Remedy_REGISTER_WEBHOOK, ""},
		"never an admin":       {hook(webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_ADMIN, "NOT_REPOSITORY_ADMIN", false), deployerv1.Remedy_ADD_WEBHOOK_BY_HAND, "web"},
		"an admin no more":     {hook(webhookv1.Webhook_ACTIVE, webhookv1.Webhook_NOT_ADMIN, "", false), deployerv1.Remedy_ADD_WEBHOOK_BY_HAND, "web"},
		"by hand, secret":      {hook(webhookv1.Webhook_MANUAL, webhookv1.Webhook_SECRET_CHANGED, "", false), deployerv1.Remedy_ADD_WEBHOOK_BY_HAND, "web"},
		"refused by Bitbucket": {hook(webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "WEBHOOK_REFUSED", false), deployerv1.Remedy_ADD_WEBHOOK_BY_HAND, "web"},
		"no public URL":        {hook(webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "NO_PUBLIC_URL", false), 0, ""},
		"scope missing":        {hook(webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_NOT_CHECKED, "SCOPE_MISSING", false), deployerv1.Remedy_RECONNECT, ""},
		"left":                 {hook(webhookv1.Webhook_LEFT_ON_BITBUCKET, 0, "", false), deployerv1.Remedy_RECONNECT, ""},
	} {
		if got := q.hookRemedy(c.hook); got.GetKind() != c.want || got.GetApp() != c.app || got != nil && got.GetWebhook() != "w" {
			t.Errorf("%s: %v, want %v of %q", name, got, c.want, c.app)
		}
	}
}

// Whoever asks is told what they cannot do themselves, and who can: of each remedy there is.
func TestObstacle_isToldToWhoeverCannotDoIt(t *testing.T) {
	t.Parallel()
	const admin, browser, limit = "An owner or admin of the workspace can do this.", "An owner or admin of the workspace can do this, signed in with a browser.", "The key is limited to some apps, and this is of others too."
	scope := func(has, takes string) string {
		return "The key or token has the scope " + has + ", and this takes " + takes + "."
	}
	key := func(role identity.Role, s identity.Scope, apps ...string) identity.Identity {
		return identity.Identity{SubjectKind: identity.SubjectAPIKey, Role: role, Scope: s, Apps: identity.LimitedTo(apps...)}
	}
	who := []identity.Identity{
		{SubjectKind: identity.SubjectSession, Role: identity.RoleOwner},
		{SubjectKind: identity.SubjectSession, Role: identity.RoleAdmin},
		{SubjectKind: identity.SubjectSession, Role: identity.RoleMember},
		key(identity.RoleAdmin, identity.ScopeAdmin),
		key(identity.RoleAdmin, identity.ScopeDeploy),
		key(identity.RoleMember, identity.ScopeRead),
		key(identity.RoleAdmin, identity.ScopeAdmin, "web"),
		key(identity.RoleAdmin, identity.ScopeAdmin, "docs"),
	}
	ofAdmins := []string{"", "", admin, "", scope("DEPLOY", "ADMIN"), admin, "", limit}
	ofMembers := []string{"", "", "", "", "", scope("READ", "DEPLOY"), "", limit}
	want := map[deployerv1.Remedy_Kind][]string{
		deployerv1.Remedy_RECONNECT:             {"", "", admin, browser, browser, admin, browser, browser},
		deployerv1.Remedy_ADD_WEBHOOK_BY_HAND:   {"", "", admin, browser, browser, admin, browser, browser},
		deployerv1.Remedy_OPEN_INTEGRATION:      {"", "", "", "", "", "", limit, limit},
		deployerv1.Remedy_REGISTER_WEBHOOK:      {"", "", admin, "", scope("DEPLOY", "ADMIN"), admin, limit, limit},
		deployerv1.Remedy_REPAIR_WEBHOOK:        {"", "", admin, "", scope("DEPLOY", "ADMIN"), admin, limit, limit},
		deployerv1.Remedy_REPLAY_DELIVERY:       {"", "", admin, "", scope("DEPLOY", "ADMIN"), admin, limit, limit},
		deployerv1.Remedy_CREATE_APP:            {"", "", admin, "", scope("DEPLOY", "ADMIN"), admin, limit, limit},
		deployerv1.Remedy_SWITCH_AUTO_DEPLOY_ON: ofAdmins,
		deployerv1.Remedy_EDIT_RULES:            ofAdmins,
		deployerv1.Remedy_DEPLOY:                ofMembers,
		deployerv1.Remedy_REDEPLOY:              ofMembers,
		deployerv1.Remedy_OPEN_DEPLOYMENT:       {"", "", "", "", "", "", "", limit},
	}
	for n, name := range deployerv1.Remedy_Kind_name {
		kind := deployerv1.Remedy_Kind(n)
		if kind == deployerv1.Remedy_KIND_UNSPECIFIED {
			continue
		}
		if want[kind] == nil {
			t.Errorf("who can do %s is not said", name)
			continue
		}
		for i, id := range who {
			if got := obstacle(id, &deployerv1.Remedy{Kind: kind, App: "web"}); got != want[kind][i] {
				t.Errorf("%s for %v: %q, want %q", name, id, got, want[kind][i])
			}
		}
	}
	e := &deployerv1.Explanation{Remedy: &deployerv1.Remedy{Kind: deployerv1.Remedy_EDIT_RULES}, Apps: []*deployerv1.AppDecision{{Remedy: &deployerv1.Remedy{Kind: deployerv1.Remedy_DEPLOY}}, {}, {Remedy: &deployerv1.Remedy{Kind: deployerv1.Remedy_EDIT_RULES}}}}
	tellObstacles(identity.WithIdentity(context.Background(), who[2]), e)
	if e.GetRemedy().GetObstacle() != admin || e.GetApps()[0].GetRemedy().GetObstacle() != "" || e.GetApps()[2].GetRemedy().GetObstacle() != admin {
		t.Errorf("%v", e)
	}
}
