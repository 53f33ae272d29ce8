package app

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// refusedRemedy mends that requests to a webhook are refused.
func (q *question) refusedRemedy(d *webhookv1.Delivery) *deployerv1.Remedy {
	for _, h := range q.hooks {
		if h.GetId() == d.GetWebhook() && (h.GetState() == webhookv1.Webhook_MANUAL || h.GetHealth() == webhookv1.Webhook_NOT_ADMIN) {
			return q.hookRemedy(h)
		}
	}
	return &deployerv1.Remedy{Kind: deployerv1.Remedy_REPAIR_WEBHOOK, Webhook: d.GetWebhook()}
}

// hookRemedy mends a webhook; nil where only the operator can, or waiting is all there is to do.
func (q *question) hookRemedy(h *webhookv1.Webhook) *deployerv1.Remedy {
	r := remedyOf(h.GetReason())
	switch {
	case r != nil:
	case h.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET:
		r = &deployerv1.Remedy{Kind: deployerv1.Remedy_RECONNECT}
	case h.GetRepairable() && h.GetState() == webhookv1.Webhook_NOT_REGISTERED:
		r = &deployerv1.Remedy{Kind: deployerv1.Remedy_REGISTER_WEBHOOK}
	case h.GetRepairable():
		r = &deployerv1.Remedy{Kind: deployerv1.Remedy_REPAIR_WEBHOOK}
	case apierr.Reason(h.GetReason()) != apierr.ReasonNoPublicURL:
		r = &deployerv1.Remedy{Kind: deployerv1.Remedy_ADD_WEBHOOK_BY_HAND}
		for _, p := range q.parts {
			if p.app.GetRepository() == h.GetRepository() && p.app.GetAutoDeploy() {
				r.App = p.app.GetId()
				break
			}
		}
	default:
		return nil
	}
	r.Webhook = h.GetId()
	return r
}

// remedyOf mends what is wrong with the workspace's connection; nil where it is not that.
func remedyOf(reason string) *deployerv1.Remedy {
	switch apierr.Reason(reason) { //nolint:exhaustive // others are not mended at the connection
	case apierr.ReasonNotConnected, apierr.ReasonReconnectRequired, apierr.ReasonScopeMissing:
		return &deployerv1.Remedy{Kind: deployerv1.Remedy_RECONNECT}
	case apierr.ReasonTokenExpired, apierr.ReasonConsumerRefused, apierr.ReasonAccessRestricted, apierr.ReasonRepositoryNotFound, apierr.ReasonWorkspaceExcluded:
		return &deployerv1.Remedy{Kind: deployerv1.Remedy_OPEN_INTEGRATION}
	}
	return nil
}

// remedy mends why a push is not live in an app; nil where waiting is all there is to do. What would be refused,
// or would change nothing, is not offered.
func (v *verdict) remedy(reason string, number int32) *deployerv1.Remedy {
	r := v.own(reason, number)
	switch r.GetKind() {
	case deployerv1.Remedy_DEPLOY, deployerv1.Remedy_REDEPLOY, deployerv1.Remedy_SWITCH_AUTO_DEPLOY_ON, deployerv1.Remedy_REPLAY_DELIVERY:
	default: // the others need nothing of Bitbucket
		return r
	}
	for _, t := range []*storev1.Trouble{v.connection.GetPaused(), apps.Outside(v.connection, v.p.index), v.p.index.GetUnreachable()} {
		if t != nil {
			return cmp.Or(remedyOf(t.GetReason()), &deployerv1.Remedy{Kind: deployerv1.Remedy_OPEN_INTEGRATION})
		}
	}
	return r
}

// own is the remedy where Bitbucket can be reached.
func (v *verdict) own(reason string, number int32) *deployerv1.Remedy {
	r := &deployerv1.Remedy{App: v.p.app.GetId()}
	switch reason {
	case syncOff:
		r.Kind = deployerv1.Remedy_SWITCH_AUTO_DEPLOY_ON
	case syncUndeployed, syncChosen, syncCommit, syncTag, rules.ReasonSkipPhrase:
		r.Kind = deployerv1.Remedy_DEPLOY
	case syncFailed, syncCancelled:
		r.Kind, r.Deployment = deployerv1.Remedy_REDEPLOY, number
		if v.withoutCommit(number) {
			r.Kind, r.Deployment = deployerv1.Remedy_DEPLOY, 0
		}
	case rules.ReasonBranchNotWatched, rules.ReasonTagNotWatched, rules.ReasonPathsUnchanged, syncNoBranch:
		r.Kind = deployerv1.Remedy_EDIT_RULES
	case whySuperseded, whyReplaced, syncDeploying, syncWaiting:
		if number == 0 {
			return nil
		}
		r.Kind, r.Deployment = deployerv1.Remedy_OPEN_DEPLOYMENT, number
	case syncDeciding, syncAwaited:
		return nil
	default:
		if c := remedyOf(reason); c != nil {
			return c
		}
		switch {
		case number != 0:
			r.Kind, r.Deployment = deployerv1.Remedy_OPEN_DEPLOYMENT, number
		case v.told != nil && v.told.GetFound() == webhookv1.Delivery_FOUND_UNSPECIFIED && v.outcome.GetKind() != webhookv1.DeliveryOutcome_DEPLOYMENT:
			r.Kind, r.Webhook, r.Delivery = deployerv1.Remedy_REPLAY_DELIVERY, v.told.GetWebhook(), v.told.GetNumber()
		default:
			return nil
		}
	}
	return r
}

// withoutCommit tells whether a deployment ended before it had a commit: there is nothing to redeploy.
func (v *verdict) withoutCommit(number int32) bool {
	for _, d := range v.runs {
		if d.GetNumber() == number {
			return d.GetCommit().GetHash() == ""
		}
	}
	return false
}

// need is what doing a remedy takes.
type need struct {
	role     identity.Role
	changes  bool // else it only reads
	browser  bool
	wholeKey bool // a key that is limited to some apps may not
}

var needs = map[deployerv1.Remedy_Kind]need{
	deployerv1.Remedy_RECONNECT:             {role: identity.RoleAdmin, changes: true, browser: true},
	deployerv1.Remedy_OPEN_INTEGRATION:      {role: identity.RoleMember, wholeKey: true},
	deployerv1.Remedy_REGISTER_WEBHOOK:      {role: identity.RoleAdmin, changes: true, wholeKey: true},
	deployerv1.Remedy_REPAIR_WEBHOOK:        {role: identity.RoleAdmin, changes: true, wholeKey: true},
	deployerv1.Remedy_SWITCH_AUTO_DEPLOY_ON: {role: identity.RoleAdmin, changes: true},
	deployerv1.Remedy_DEPLOY:                {role: identity.RoleMember, changes: true},
	deployerv1.Remedy_REDEPLOY:              {role: identity.RoleMember, changes: true},
	deployerv1.Remedy_REPLAY_DELIVERY:       {role: identity.RoleAdmin, changes: true, wholeKey: true},
	deployerv1.Remedy_EDIT_RULES:            {role: identity.RoleAdmin, changes: true},
	deployerv1.Remedy_OPEN_DEPLOYMENT:       {role: identity.RoleMember},
	deployerv1.Remedy_CREATE_APP:            {role: identity.RoleAdmin, changes: true, wholeKey: true},
	deployerv1.Remedy_ADD_WEBHOOK_BY_HAND:   {role: identity.RoleAdmin, changes: true, browser: true}, // it takes the secret
}

// obstacle is why whoever asks cannot do a remedy, and who can; empty where they can.
func obstacle(id identity.Identity, r *deployerv1.Remedy) string {
	n, known := needs[r.GetKind()]
	switch {
	case !known:
		return ""
	case id.Role < n.role:
		return "An owner or admin of the workspace can do this."
	case n.browser && id.SubjectKind.IsProgram():
		return "An owner or admin of the workspace can do this, signed in with a browser."
	case id.Scope != identity.ScopeNone && id.Scope < identity.ScopeOf(n.role, !n.changes):
		return fmt.Sprintf("The key or token has the scope %s, and this takes %s.", strings.ToUpper(id.Scope.String()), strings.ToUpper(identity.ScopeOf(n.role, !n.changes).String()))
	case id.Apps.Limited() && (n.wholeKey || !id.Apps.Has(r.GetApp())):
		return "The key is limited to some apps, and this is of others too."
	}
	return ""
}

// tellObstacles says of each remedy whether whoever asks can do it.
func tellObstacles(ctx context.Context, e *deployerv1.Explanation) {
	id, known := identity.FromContext(ctx)
	if !known {
		return
	}
	for _, r := range append([]*deployerv1.Remedy{e.GetRemedy()}, remedies(e)...) {
		if r != nil {
			r.Obstacle = obstacle(id, r)
		}
	}
}

func remedies(e *deployerv1.Explanation) []*deployerv1.Remedy {
	var out []*deployerv1.Remedy
	for _, a := range e.GetApps() {
		out = append(out, a.GetRemedy())
	}
	return out
}
