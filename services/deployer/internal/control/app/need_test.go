package app

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestNeed(t *testing.T) {
	latest := func(s deployerv1.Deployment_State) *deployerv1.DeploymentSummary {
		return &deployerv1.DeploymentSummary{State: s}
	}
	sync := func(s deployerv1.Sync_State, reason string) *deployerv1.Sync {
		return &deployerv1.Sync{State: s, Reason: reason}
	}
	done := latest(deployerv1.Deployment_COMPLETED)
	for name, c := range map[string]struct {
		latest *deployerv1.DeploymentSummary
		sync   *deployerv1.Sync
		want   deployerv1.App_Need
	}{
		"failed, whatever the branch":    {latest(deployerv1.Deployment_FAILED), sync(deployerv1.Sync_IN_SYNC, ""), deployerv1.App_FAILING},
		"running":                        {latest(deployerv1.Deployment_PROCESSING), sync(deployerv1.Sync_BEHIND, syncDeploying), deployerv1.App_DEPLOYING},
		"held up":                        {latest(deployerv1.Deployment_PENDING), sync(deployerv1.Sync_BEHIND, "SERVER_OFFLINE"), deployerv1.App_WAITING},
		"next in turn":                   {latest(deployerv1.Deployment_PENDING), sync(deployerv1.Sync_BEHIND, syncWaiting), deployerv1.App_DEPLOYING},
		"being decided":                  {done, sync(deployerv1.Sync_BEHIND, syncDeciding), deployerv1.App_DEPLOYING},
		"its delivery is awaited":        {done, sync(deployerv1.Sync_BEHIND, syncAwaited), deployerv1.App_DEPLOYING},
		"behind by a skip phrase":        {done, sync(deployerv1.Sync_BEHIND, "SKIP_PHRASE"), deployerv1.App_BEHIND},
		"behind":                         {done, sync(deployerv1.Sync_BEHIND, syncOff), deployerv1.App_BEHIND},
		"cancelled and behind":           {latest(deployerv1.Deployment_CANCELLED), sync(deployerv1.Sync_BEHIND, syncCancelled), deployerv1.App_BEHIND},
		"never deployed":                 {nil, sync(deployerv1.Sync_BEHIND, syncUndeployed), deployerv1.App_BEHIND},
		"rolled back":                    {done, sync(deployerv1.Sync_ROLLED_BACK, syncChosen), deployerv1.App_ROLLED_BACK},
		"not known":                      {done, sync(deployerv1.Sync_UNKNOWN, syncUnseen), deployerv1.App_NOT_KNOWN},
		"in sync":                        {done, sync(deployerv1.Sync_IN_SYNC, ""), deployerv1.App_IN_SYNC},
		"superseded by what is live":     {latest(deployerv1.Deployment_SUPERSEDED), sync(deployerv1.Sync_IN_SYNC, ""), deployerv1.App_IN_SYNC},
		"of a branch nobody can look at": {nil, nil, deployerv1.App_NOT_KNOWN},
	} {
		if got := needOf(c.latest, c.sync); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestTroubles(t *testing.T) {
	hooked := func(id, hook, state, health string, within time.Duration) *deployerv1.App {
		return &deployerv1.App{Id: id, Webhook: &deployerv1.AppWebhook{Id: hook, State: state, Health: health, FoundWithin: durationpb.New(within)}}
	}
	warned := func(id, reason string) *deployerv1.App {
		return &deployerv1.App{Id: id, Warnings: []*deployerv1.Warning{{Reason: reason}}}
	}
	mendable := func(a *deployerv1.App) *deployerv1.App {
		a.Webhook.Repairable = true
		return a
	}
	never := hooked("n", "w5", "NOT_REGISTERED", "NOT_ADMIN", time.Minute)
	never.Webhook.Reason = "NOT_REPOSITORY_ADMIN"
	got := troubles([]*deployerv1.App{
		hooked("a", "w1", "ACTIVE", "REGISTERED", time.Minute), {Id: "b"},
		mendable(hooked("c", "w2", "NOT_REGISTERED", "", time.Minute)), mendable(hooked("d", "w3", "ACTIVE", "DELIVERIES_MISSING", 3*time.Minute)),
		mendable(hooked("e", "w3", "ACTIVE", "DELIVERIES_MISSING", 2*time.Minute)), hooked("f", "w4", "MANUAL", "NOT_CHECKED", time.Hour),
		warned("g", "ACCESS_RESTRICTED"), warned("h", "REPOSITORY_NOT_FOUND"), warned("i", "REPOSITORY_NOT_FOUND"),
		warned("j", "REPOSITORY_NOT_FOUND"), warned("k", "REPOSITORY_NOT_FOUND"), warned("l", "REPOSITORY_NOT_FOUND"), warned("m", "BRANCH_NOT_FOUND"), never, hooked("o", "w6", "ACTIVE", "NOT_ADMIN", time.Minute), hooked("p", "w7", "DRIFTED", "", time.Minute),
	})
	if len(got) != 2 {
		t.Fatalf("%v", got)
	}
	if h := got[0]; h.GetKind() != deployerv1.AppsTrouble_WEBHOOK || h.GetApps() != 6 || !slices.Equal(h.GetFirst(), []string{"c", "d", "e", "n", "o"}) ||
		!slices.Equal(h.GetWebhooks(), []string{"w2", "w3"}) || h.GetWebhook().GetId() != "w2" || h.GetFoundWithin().AsDuration() != 3*time.Minute ||
		h.GetNotAdmin() != 2 || !slices.Equal(h.GetFirstNotAdmin(), []string{"n", "o"}) {
		t.Errorf("webhooks: %v", h)
	}
	if u := got[1]; u.GetKind() != deployerv1.AppsTrouble_REPOSITORY_UNREACHED || u.GetApps() != 6 || !slices.Equal(u.GetFirst(), []string{"g", "h", "i", "j", "k"}) ||
		len(u.GetWebhooks()) != 0 || u.GetWebhook() != nil || u.GetFoundWithin() != nil || u.GetNotAdmin() != 0 {
		t.Errorf("unreached: %v", u)
	}
}

// What pushes do not deploy needs no webhook: a broken one of its repository is no trouble of that app.
func TestTroubled_withoutAutoDeploy(t *testing.T) {
	s := newStage(t)
	apps := []*parts{
		{key: lane.Key{Workspace: "acme-inc", App: "on"}, app: &storev1.App{Id: "on", Repository: "r", AutoDeploy: true}, index: &storev1.RepositoryIndex{}},
		{key: lane.Key{Workspace: "acme-inc", App: "off"}, app: &storev1.App{Id: "off", Repository: "r"}, index: &storev1.RepositoryIndex{}},
	}
	got := troubles(s.troubled(apps, nil, webhookViews{"r": {Id: "w1", State: "NOT_REGISTERED"}}))
	if len(got) != 1 || got[0].GetApps() != 1 || !slices.Equal(got[0].GetFirst(), []string{"on"}) {
		t.Errorf("%v", got)
	}
}

// TestList_byNeedOfSomebodyLimitedToSomeApps: neither their pages nor their counts tell of the others.
func TestList_byNeedOfSomebodyLimitedToSomeApps(t *testing.T) {
	s := newStage(t)
	store := openStore(t, s.nats)
	for _, id := range []string{"api", "docs", "shop", "web"} {
		add(t, store, id, 2)
	}
	list, err := s.List(t.Context(), Question{Workspace: "acme-inc", Apps: identity.LimitedTo("web", "api", "gone"), Order: ByNeed}, nil, 10)
	if err != nil || list.Next != nil {
		t.Fatalf("%v, %v", list.Next, err)
	}
	var counted int32
	for _, n := range list.Needs {
		counted += n.GetApps()
	}
	if ids := ids(list.Apps); !slices.Equal(ids, []string{"api", "web"}) || counted != 2 {
		t.Errorf("listed %v, counted %d", ids, counted)
	}
	list, err = s.List(t.Context(), Question{Workspace: "acme-inc", Apps: identity.LimitedTo("web"), Order: ByID, Query: "o"}, nil, 10)
	if err != nil || len(list.Apps) != 0 {
		t.Errorf("found %v, %v", ids(list.Apps), err)
	}
}
