package deployer_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	elsewhere = "8e7b5c1e-0000-4000-8000-000000000002"
	excluded  = "BITBUCKET_WORKSPACE_EXCLUDED"
)

// narrow has auth say so; repo and the tokens of these tests go on to serve everything.
func (b *bench) narrow(to ...string) {
	b.t.Helper()
	b.world.do(func() { b.world.narrowedTo = to })
	b.changed()
}

// What is outside is neither made, deployed nor polled, whatever repo and the tokens would let through, and
// the app says so; what was pushed meanwhile is deployed once the workspace is widened.
func TestNarrowed_deployerItselfRefusesWhatIsOutside(t *testing.T) {
	b := newBench(t, doubting)
	one := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)

	b.narrow(elsewhere)
	b.stands("web", deployerv1.Sync_UNKNOWN, excluded, one)
	app := b.get("web")
	if !hasWarning(app, excluded) || app.GetAutoDeployPaused().GetReason() != excluded {
		t.Errorf("warnings %v, paused %v", app.GetWarnings(), app.GetAutoDeployPaused())
	}
	_, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: "two", App: web(false)})
	b.wantReason(err, apierr.ReasonWorkspaceExcluded)
	_, err = b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonWorkspaceExcluded)
	_, err = b.client.RedeployDeployment(b.member, &deployerv1.RedeployDeploymentRequest{Workspace: workspace, App: "web", Number: 1})
	b.wantReason(err, apierr.ReasonWorkspaceExcluded)
	_, delivery := b.push("two")
	testkit.Eventually(t, timeout, func() error {
		if !contains(b.world.said(delivery), "narrowed this workspace") {
			return fmt.Errorf("said %q", b.world.said(delivery))
		}
		return nil
	})
	if n := b.get("web").GetLatest().GetNumber(); n != 1 {
		t.Errorf("deployment %d was made", n)
	}
	// An admin can still switch it off, but not on.
	b.set("web", false)
	_, err = b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{
		Workspace: workspace, AppId: "web", App: &deployerv1.App{AutoDeploy: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"auto_deploy"}},
	})
	b.wantReason(err, apierr.ReasonWorkspaceExcluded)

	b.narrow(elsewhere, home)
	testkit.Eventually(t, timeout, func() error {
		if a := b.get("web"); hasWarning(a, excluded) || a.GetSync().GetReason() == excluded {
			return fmt.Errorf("still %v", a.GetSync())
		}
		return nil
	})
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if got := b.live("web"); got != "two" {
		t.Errorf("live is %q", got)
	}
}

// A poll finds nothing of what is outside, and what was missed is found once it is inside again.
func TestNarrowed_pollsFindNothingOutside(t *testing.T) {
	b := newBench(t, doubting)
	one := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.narrow(elsewhere)
	b.stands("web", deployerv1.Sync_UNKNOWN, excluded, one)
	two := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	b.narrow()
	b.stands("web", deployerv1.Sync_IN_SYNC, "", two)
}

// A token that auth hands out all the same is not used: the clone is refused at once and for good.
func TestNarrowed_noCloneWithATokenThatSaysOtherwise(t *testing.T) {
	b := newBench(t, doubting)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	b.world.do(func() { b.world.lent = []string{elsewhere} })
	if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	d := b.await("web", 1, deployerv1.Deployment_FAILED)
	if d.GetError().GetReason() != excluded {
		t.Errorf("failed with %v", d.GetError())
	}
	b.world.do(func() { b.world.lent = []string{home} })
	if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
}

// What was turned away while the workspace was narrowed or disconnected is deployed as soon as it goes on:
// no delivery is on its way that would be worth waiting for, and none is missing.
func TestResumed_whatWasTurnedAwayWaitsForNoDelivery(t *testing.T) {
	for name, c := range map[string]struct {
		ends, begins func(b *bench)
		said         string
	}{
		"narrowed": {func(b *bench) { b.narrow(elsewhere) }, func(b *bench) { b.narrow() }, "narrowed this workspace"},
		"disconnected": {
			func(b *bench) {
				b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_NOT_CONNECTED, "" })
				b.changed()
			},
			func(b *bench) {
				b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_CONNECTED, "c2" })
				b.changed()
			}, "Bitbucket was disconnected",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *deployer.Config) { c.ReconcileGrace = time.Hour })
			b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
			b.create("web", web(true))
			b.deployed("web", deployerv1.Deployment_COMPLETED)
			c.ends(b)
			testkit.Eventually(t, timeout, func() error {
				if b.get("web").GetAutoDeployPaused() == nil {
					return errors.New("it is not paused")
				}
				return nil
			})
			two, delivery := b.push("two")
			b.awaitSaid(delivery, c.said)
			c.begins(b)
			if push, _ := b.awaitFound(two, 1); push.GetFound() != webhookv1.Delivery_RESUMED {
				t.Errorf("found as %v: %s", push.GetFound(), push.GetMessage())
			}
			b.stands("web", deployerv1.Sync_IN_SYNC, "", two)
		})
	}
}
