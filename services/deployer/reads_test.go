package deployer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// shownBuckets are those that apps and deployments are shown from.
var shownBuckets = []string{"apps", "lanes", "deployments", "repositories", "codeconfigs", "connections", "workspaces"}

// leaderReads counts what is asked of the leaders of shownBuckets while fn runs.
func (b *bench) leaderReads(fn func()) (asked []string) {
	b.t.Helper()
	nc, _ := b.nats.Connect()
	sub, err := nc.SubscribeSync("$JS.API.STREAM.>")
	if err != nil {
		b.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		b.t.Fatal(err)
	}
	fn()
	watched := map[string]bool{}
	if err := nc.Publish("$JS.API.STREAM.END", nil); err != nil { // comes after what was asked
		b.t.Fatal(err)
	}
	for {
		m, err := sub.NextMsg(timeout)
		if err != nil {
			b.t.Fatal(err)
		}
		if m.Subject == "$JS.API.STREAM.END" {
			return asked
		}
		if strings.HasPrefix(m.Subject, "$JS.API.STREAM.INFO.") && !watched[m.Subject] {
			watched[m.Subject] = true // on a busy machine a watch may begin anew meanwhile, which asks once where the bucket ends
			continue
		}
		for _, name := range shownBuckets {
			if strings.HasSuffix(m.Subject, ".KV_deployer-"+name) {
				asked = append(asked, m.Subject)
			}
		}
	}
}

// idle waits until what follows a save or a deployment is done: nobody asks for a while.
func (b *bench) idle() {
	b.t.Helper()
	const while = 400 * time.Millisecond
	testkit.Eventually(b.t, timeout, func() error {
		asked := b.leaderReads(func() {
			select {
			case <-time.After(while):
			case <-b.t.Context().Done():
			}
		})
		if len(asked) > 0 {
			return fmt.Errorf("still asked: %q", asked)
		}
		return nil
	})
}

// Showing costs the leaders a question for each bucket that decides, however many apps there are.
func TestReads_costTheLeadersAFewQuestions(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	for i := range 20 {
		b.create(fmt.Sprintf("app-%02d", i), web(true))
	}
	d, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "app-07"})
	if err != nil {
		t.Fatal(err)
	}
	b.await("app-07", d.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED)
	b.idle()
	// What a reading asks once more after the watches skipped a revision is over by the second one.
	for what, read := range map[string]struct {
		most int
		fn   func() error
	}{
		"GetApp": {2, func() error {
			resp, err := b.client.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: "app-07"})
			if err == nil && resp.GetApp().GetLive().GetNumber() != 1 {
				err = fmt.Errorf("live is %v", resp.GetApp().GetLive())
			}
			return err
		}},
		"ListApps": {5, func() error {
			resp, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 50})
			if err == nil && len(resp.GetApps()) != 20 {
				err = fmt.Errorf("%d apps", len(resp.GetApps()))
			}
			return err
		}},
		"ListApps, filtered and ordered": {5, func() error {
			resp, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{
				Workspace: workspace, PageSize: 3, OrderBy: "deployTime", Query: "app", AutoDeploy: new(true), SyncStates: []deployerv1.Sync_State{deployerv1.Sync_IN_SYNC, deployerv1.Sync_BEHIND, deployerv1.Sync_UNKNOWN},
			})
			if err == nil && (len(resp.GetApps()) != 3 || resp.GetTotal() != 20 || resp.GetApps()[0].GetId() != "app-07") {
				err = fmt.Errorf("%d of %d apps", len(resp.GetApps()), resp.GetTotal())
			}
			return err
		}},
		"ListApps, by need": {5, func() error {
			resp, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 3, OrderBy: "need"})
			if err == nil && (len(resp.GetApps()) != 3 || resp.GetTotal() != 20 || len(resp.GetNeeds()) == 0) {
				err = fmt.Errorf("%d of %d apps", len(resp.GetApps()), resp.GetTotal())
			}
			return err
		}},
		"ListWorkspaceDeployments": {3, func() error {
			resp, err := b.client.ListWorkspaceDeployments(b.member, &deployerv1.ListWorkspaceDeploymentsRequest{Workspace: workspace})
			if err == nil && len(resp.GetDeployments()) != 1 {
				err = fmt.Errorf("%d deployments", len(resp.GetDeployments()))
			}
			return err
		}},
		"ListDeployments": {3, func() error {
			_, err := b.client.ListDeployments(b.member, &deployerv1.ListDeploymentsRequest{Workspace: workspace, App: "app-07", Branch: "none"})
			return err
		}},
	} {
		if err := read.fn(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		asked := b.leaderReads(func() {
			if err := read.fn(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		})
		if len(asked) > read.most {
			t.Errorf("%s: %d questions, want at most %d: %v", what, len(asked), read.most, asked)
		}
	}
}

// A poll that finds nothing asks the leaders nothing about apps.
func TestReads_pollsThatFindNothingAskTheLeadersNothingForEachApp(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 300*time.Millisecond, 10*time.Millisecond
	})
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	const apps = 20
	for i := range apps {
		b.create(fmt.Sprintf("app-%02d", i), web(true))
	}
	// The first ones note where the branch is, and what follows a save may still go on.
	testkit.Eventually(t, timeout, func() error {
		if asked := b.leaderReads(b.polls); len(asked) >= apps {
			return fmt.Errorf("%d questions: %v", len(asked), asked)
		}
		return nil
	})
}

// Who writes through one process reads it through another.
func TestReads_seeWhatAnotherProcessWrote(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	first := b.client
	b.cfg.Worker = false
	_, b.keyset.JS = b.nats.Connect()
	b.start()
	second := b.client
	for i := range 30 {
		id := fmt.Sprintf("app-%02d", i)
		made, err := first.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: id, App: web(i%2 == 0)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := second.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: id})
		if err != nil || got.GetApp().GetEtag() != made.GetApp().GetEtag() || got.GetApp().GetRepositoryFullName() != "acme/web" {
			t.Fatalf("%v, %v; made %v", got.GetApp(), err, made.GetApp())
		}
		changed, err := second.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{
			Workspace: workspace, AppId: id, App: &deployerv1.App{Retention: 7, Etag: got.GetApp().GetEtag()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"retention"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		listed, err := first.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 100})
		if err != nil || len(listed.GetApps()) != i+1 || listed.GetApps()[i].GetEtag() != changed.GetApp().GetEtag() {
			t.Fatalf("%d apps, %v", len(listed.GetApps()), err)
		}
	}
	d, err := second.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "app-00"})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, timeout, func() error {
		got, err := second.GetDeployment(b.member, &deployerv1.GetDeploymentRequest{Workspace: workspace, App: "app-00", Number: d.GetDeployment().GetNumber()})
		if err != nil || got.GetDeployment().GetState() != deployerv1.Deployment_COMPLETED {
			return fmt.Errorf("%v, %w", got.GetDeployment().GetState(), err)
		}
		if got.GetDeployment().GetEndTime().AsTime().After(time.Now()) || !got.GetDeployment().GetLive() {
			t.Fatalf("completed and not live: %v", got.GetDeployment())
		}
		return nil
	})
	for i := range 30 {
		id := fmt.Sprintf("app-%02d", i)
		if _, err := first.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: id}); err != nil {
			t.Fatal(err)
		}
		listed, err := second.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 100})
		if err != nil || len(listed.GetApps()) != 29-i {
			t.Fatalf("%d apps, %v", len(listed.GetApps()), err)
		}
	}
}
