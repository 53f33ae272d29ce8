package deployer_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// foundPushes are the pushes that webhook heard of without a delivery, by key, and their outcomes.
func (b *bench) foundPushes() (pushes map[string]*webhookv1.FoundPush, outcomes map[string][]*webhookv1.DeliveryOutcome) {
	pushes, outcomes = map[string]*webhookv1.FoundPush{}, map[string][]*webhookv1.DeliveryOutcome{}
	b.world.do(func() {
		for _, o := range b.world.outcomes {
			f := o.GetFound()
			if f == nil {
				continue
			}
			if o.GetDelivery() != 0 || o.GetWebhook() != "" || f.GetRepository() != repoID {
				b.t.Errorf("told: %v", o)
			}
			if pushes[f.GetKey()] == nil || f.GetTold() {
				pushes[f.GetKey()] = f
			}
			outcomes[f.GetKey()] = append(outcomes[f.GetKey()], o.GetOutcome())
		}
	})
	return pushes, outcomes
}

// awaitFound waits until one push of a commit was told of, and its outcomes in n apps are final.
func (b *bench) awaitFound(hash string, apps int) (*webhookv1.FoundPush, []*webhookv1.DeliveryOutcome) {
	b.t.Helper()
	var push *webhookv1.FoundPush
	var last []*webhookv1.DeliveryOutcome
	testkit.Eventually(b.t, timeout, func() error {
		pushes, outcomes := b.foundPushes()
		push, last = nil, nil
		for key, p := range pushes {
			if p.GetChange().GetNewHash() != hash {
				continue
			}
			if push != nil {
				return fmt.Errorf("two pushes of one commit: %v and %v", push, p)
			}
			push, last = p, outcomes[key]
		}
		final := map[string]bool{}
		for _, o := range last {
			if o.GetKind() == webhookv1.DeliveryOutcome_IGNORED || o.GetKind() == webhookv1.DeliveryOutcome_DEPLOYMENT && o.GetDeploymentState() != "PENDING" {
				final[o.GetApp()] = true
			}
		}
		if len(final) != apps {
			return fmt.Errorf("the push of %s: %v, %v", hash, push, last)
		}
		return nil
	})
	return push, last
}

// TestFound_standsInTheListOfDeliveries with what came of it in every app, how that ended, and the commit.
func TestFound_standsInTheListOfDeliveries(t *testing.T) {
	b := newBench(t, quick)
	first := b.repo.Commit("main", "zero", map[string]string{"index.html": "0", "docs/a.md": "0"})
	b.create("web", web(true))
	picky := web(true)
	picky.Rules = &deployerv1.AppRules{PathsIgnore: []string{"docs/**"}} // decided by a worker
	b.create("picky", picky)

	hash := b.repo.Commit("main", "Write it down\n\nat length", map[string]string{"index.html": "0", "docs/a.md": "1"})
	push, outcomes := b.awaitFound(hash, 2)
	if c := push.GetChange(); c.GetRef() != "main" || c.GetRefType() != webhookv1.DeliveryChange_BRANCH || c.GetOldHash() != first || c.GetAction() != webhookv1.DeliveryChange_UPDATED {
		t.Errorf("the change: %v", c)
	}
	if push.GetFound() != webhookv1.Delivery_DELIVERY_MISSING || push.GetMessage() != "Found by polling: the delivery did not come in 0.01 s" || time.Since(push.GetTime().AsTime()) > time.Hour {
		t.Errorf("why: %v", push)
	}
	by := map[string]*webhookv1.DeliveryOutcome{}
	for _, o := range outcomes {
		by[o.GetApp()] = o
	}
	if o := by["web"]; o.GetDeployment() != 1 || o.GetDeploymentState() != "COMPLETED" || o.GetMessage() != "Deployed as #1" {
		t.Errorf("web: %v", o)
	}
	if o := by["picky"]; o.GetKind() != webhookv1.DeliveryOutcome_IGNORED || o.GetReason() == "" {
		t.Errorf("picky: %v", o)
	}
	if c := push.GetChange(); !push.GetTold() || c.GetMessage() != "Write it down\n\nat length" || c.GetAuthorName() == "" {
		t.Errorf("the commit, once it was read: %v", push)
	}
	// What is there when watching begins was not found: it is the baseline.
	b.world.do(func() {
		for _, o := range b.world.outcomes {
			if o.GetFound().GetChange().GetNewHash() == first {
				t.Errorf("the baseline: %v", o)
			}
		}
	})
}

// TestFound_isToldAfterARestart: webhook is away when the push is found, and so is the deployer later.
func TestFound_isToldAfterARestart(t *testing.T) {
	b := newBench(t, quick)
	b.world.do(func() { b.world.hookReason = "NOT_REPOSITORY_ADMIN" })
	b.repo.Commit("main", "zero", map[string]string{"index.html": "0"})
	b.create("web", web(true))
	b.world.do(func() { b.world.webhookDown = true })
	turned := b.repo.Commit("main", "one [skip ci]", map[string]string{"index.html": "1"})
	testkit.Eventually(t, timeout, func() error {
		if n := len(b.get("web").GetTurnedAway()); n != 1 {
			return fmt.Errorf("%d turned away", n)
		}
		return nil
	})
	hash := b.repo.Commit("main", "two", map[string]string{"index.html": "2"})
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.stopOne()
	b.world.do(func() { b.world.webhookDown = false })
	b.start()
	push, outcomes := b.awaitFound(hash, 1)
	if push.GetFound() != webhookv1.Delivery_NO_WEBHOOK || push.GetMessage() != "Found by polling: no working webhook" {
		t.Errorf("why: %v", push)
	}
	// When webhook is there again, its beginning and its end are told in either order.
	testkit.Eventually(t, timeout, func() error {
		if !slices.ContainsFunc(outcomes, func(o *webhookv1.DeliveryOutcome) bool { return o.GetDeploymentState() == "PENDING" }) {
			last := outcomes
			_, outcomes = b.awaitFound(hash, 1)
			return fmt.Errorf("it is listed by its end alone: %v", last)
		}
		return nil
	})
	if push, outcomes := b.awaitFound(turned, 1); push.GetTold() || !slices.ContainsFunc(outcomes, func(o *webhookv1.DeliveryOutcome) bool { return o.GetReason() == "SKIP_PHRASE" }) {
		t.Errorf("turned away: %v, %v", push, outcomes)
	}
}

// TestFound_withoutAPublicURL: no delivery is on its way, and none is missed.
func TestFound_withoutAPublicURL(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.ReconcileInterval, c.ReconcileGrace = 200*time.Millisecond, time.Hour })
	b.world.do(func() { b.world.hookReason = "NO_PUBLIC_URL" })
	b.repo.Commit("main", "zero", map[string]string{"index.html": "0"})
	b.create("web", web(true))
	hash := b.repo.Commit("main", "one", map[string]string{"index.html": "1"})
	if push, _ := b.awaitFound(hash, 1); push.GetFound() != webhookv1.Delivery_NO_WEBHOOK {
		t.Errorf("why: %v", push)
	}
}
