package app

import (
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	// troubleNames is how many apps a common trouble names.
	troubleNames = 5
	// troubleWebhooks is how many webhooks it names.
	troubleWebhooks = 200
)

// needOf is what an app needs of people: its newest deployment where that failed or is under way, else its branch.
func needOf(latest *deployerv1.DeploymentSummary, sync *deployerv1.Sync) deployerv1.App_Need {
	switch latest.GetState() { //nolint:exhaustive // others leave it to the branch
	case deployerv1.Deployment_FAILED:
		return deployerv1.App_FAILING
	case deployerv1.Deployment_PROCESSING:
		return deployerv1.App_DEPLOYING
	case deployerv1.Deployment_PENDING:
		if sync.GetReason() == syncWaiting {
			return deployerv1.App_DEPLOYING
		}
		return deployerv1.App_WAITING
	}
	switch sync.GetState() {
	case deployerv1.Sync_IN_SYNC:
		return deployerv1.App_IN_SYNC
	case deployerv1.Sync_ROLLED_BACK, deployerv1.Sync_CHOSEN:
		return deployerv1.App_ROLLED_BACK
	case deployerv1.Sync_BEHIND:
		switch sync.GetReason() {
		case syncDeploying, syncWaiting, syncDeciding, syncAwaited:
			return deployerv1.App_DEPLOYING
		}
		return deployerv1.App_BEHIND
	case deployerv1.Sync_UNKNOWN, deployerv1.Sync_STATE_UNSPECIFIED:
	}
	return deployerv1.App_NOT_KNOWN
}

// needCounts counts, most urgent first; what nobody needs is left out.
func needCounts(all []*chosen) []*deployerv1.NeedCount {
	counts := map[deployerv1.App_Need]int32{}
	for _, c := range all {
		counts[c.need]++
	}
	var out []*deployerv1.NeedCount
	for n := deployerv1.App_FAILING; n <= deployerv1.App_IN_SYNC; n++ {
		if counts[n] > 0 {
			out = append(out, &deployerv1.NeedCount{Need: n, Apps: counts[n]})
		}
	}
	return out
}

// troubled shows of apps what common troubles are found by.
func (s *Service) troubled(all []*parts, connection *storev1.Connection, hooks webhookViews) []*deployerv1.App {
	out := make([]*deployerv1.App, len(all))
	for i, p := range all {
		out[i] = &deployerv1.App{Id: p.app.GetId(), Webhook: s.webhook(p, hooks)}
		if w := unreached(p, connection); w != nil {
			out[i].Warnings = []*deployerv1.Warning{w}
		}
	}
	return out
}

// troubles finds what is wrong with apps for one common cause. They come by id.
func troubles(all []*deployerv1.App) []*deployerv1.AppsTrouble {
	hooks := &deployerv1.AppsTrouble{Kind: deployerv1.AppsTrouble_WEBHOOK}
	unreached := &deployerv1.AppsTrouble{Kind: deployerv1.AppsTrouble_REPOSITORY_UNREACHED}
	excluded := &deployerv1.AppsTrouble{Kind: deployerv1.AppsTrouble_WORKSPACE_EXCLUDED}
	for _, a := range all {
		if withoutWebhook(a) {
			addTo(hooks, a)
			addWebhook(hooks, a)
		}
		for _, w := range a.GetWarnings() {
			switch w.GetReason() {
			case "REPOSITORY_NOT_FOUND", "ACCESS_RESTRICTED":
				addTo(unreached, a)
			case "BITBUCKET_WORKSPACE_EXCLUDED":
				addTo(excluded, a)
			}
		}
	}
	return slices.DeleteFunc([]*deployerv1.AppsTrouble{hooks, unreached, excluded}, func(t *deployerv1.AppsTrouble) bool { return t.GetApps() == 0 })
}

// withoutWebhook tells whether an app's pushes come without deliveries, as far as Devpilot knows.
func withoutWebhook(a *deployerv1.App) bool {
	hook := a.GetWebhook()
	switch hook.GetState() {
	case webhookv1.Webhook_NOT_REGISTERED.String(), webhookv1.Webhook_DRIFTED.String():
		return true
	}
	return unwell(hook.GetHealth())
}

func addTo(t *deployerv1.AppsTrouble, a *deployerv1.App) {
	t.Apps++
	t.First = first(t.GetFirst(), a)
}

// first adds an app's id to the first ones.
func first(ids []string, a *deployerv1.App) []string {
	if len(ids) < troubleNames {
		return append(ids, a.GetId())
	}
	return ids
}

func addWebhook(t *deployerv1.AppsTrouble, a *deployerv1.App) {
	hook := a.GetWebhook()
	if t.Webhook == nil {
		t.Webhook = hook
	}
	if hook.GetReason() == string(apierr.ReasonNotRepositoryAdmin) || hook.GetHealth() == webhookv1.Webhook_NOT_ADMIN.String() {
		t.NotAdmin++
		t.FirstNotAdmin = first(t.GetFirstNotAdmin(), a)
	}
	if id := hook.GetId(); id != "" && hook.GetRepairable() && len(t.GetWebhooks()) < troubleWebhooks && !slices.Contains(t.GetWebhooks(), id) {
		t.Webhooks = append(t.Webhooks, id)
	}
	if within := hook.GetFoundWithin(); within.AsDuration() > t.GetFoundWithin().AsDuration() {
		t.FoundWithin = durationpb.New(within.AsDuration())
	}
}
