package deployer_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// whyOf asks why something is not live.
func (b *bench) whyOf(req *deployerv1.ExplainRequest) *deployerv1.Explanation {
	b.t.Helper()
	req.Workspace = workspace
	resp, err := b.client.Explain(b.admin, req)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.GetExplanation()
}

// A poll that finds a push waits a while for its delivery. Meanwhile what is live is not the newest, and nobody
// is told that it is.
func TestSync_whileTheDeliveryOfAPushThatAPollFoundMayStillCome(t *testing.T) {
	for _, branch := range []string{"main", "ma*"} {
		t.Run(branch, func(t *testing.T) { awaitedDelivery(t, branch) })
	}
}

func awaitedDelivery(t *testing.T, branch string) {
	b := newBench(t, func(c *deployer.Config) {
		doubting(c)
		c.ReconcileGrace = time.Hour
	})
	app := web(true)
	app.Branch = branch
	b.repo.Commit("other", "zero", map[string]string{"index.html": "zero"})
	b.create("web", app)
	if branch != "main" {
		b.noted(b.stores(), "web")
	}
	one, _ := b.push("one")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)

	two := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	if s := b.stands("web", deployerv1.Sync_BEHIND, "DELIVERY_AWAITED", two); s.GetBranch() != "main" || !strings.Contains(s.GetMessage(), "its delivery has not come yet") {
		t.Errorf("%v", s)
	}
	for _, q := range []*deployerv1.ExplainRequest{{Branch: "main", App: "web"}, {Commit: two[:8]}} {
		why := b.whyOf(q)
		if why.GetReason() != "DELIVERY_AWAITED" || why.GetCommit() != two || why.GetRemedy() != nil {
			t.Errorf("asked about %v: %v", q, why)
		}
	}
	if why := b.whyOf(&deployerv1.ExplainRequest{Commit: one, App: "web"}); !why.GetApps()[0].GetLive() {
		t.Errorf("of the commit before: %v", why)
	}

	// Bitbucket does not answer: it is behind all the same, and why says more.
	b.git.Intercept(refuses(http.StatusServiceUnavailable, "maintenance"))
	b.stands("web", deployerv1.Sync_BEHIND, "BITBUCKET_UNAVAILABLE", two)
	b.git.Intercept(nil)
	b.stands("web", deployerv1.Sync_BEHIND, "DELIVERY_AWAITED", two)

	// The push is taken back before anything told of it: there is nothing to wait for.
	b.repo.Set("main", one)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)
	three, _ := b.push("three")
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", three)
	if n := b.latest("web"); n != 2 {
		t.Errorf("%d deployments", n)
	}
}

// While a worker is to decide about a push, what is live is not the newest either.
func TestSync_whileAWorkerIsToDecideAboutAPush(t *testing.T) {
	b := newBench(t, doubting, apiAlone)
	_, stop := b.work()
	b.repo.Commit("main", "zero", map[string]string{"docs/a": "zero"})
	b.create("web", withPaths("site/**"))
	one := b.repo.Commit("main", "one", map[string]string{"site/index.html": "one"})
	b.deliver(nil)
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)
	stop()
	two := b.repo.Commit("main", "two", map[string]string{"site/index.html": "two"})
	b.deliver(nil)
	b.stands("web", deployerv1.Sync_BEHIND, "DECIDING", two)
	if why := b.whyOf(&deployerv1.ExplainRequest{Branch: "main", App: "web"}); why.GetReason() != "DECIDING" || why.GetCommit() != two {
		t.Errorf("%v", why)
	}
	b.work()
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", two)
}
