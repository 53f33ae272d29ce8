package deployer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

func TestPush_becomesALiveDeployment(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	app := b.create("web", web(true))
	if app.GetWebhook().GetState() != "ACTIVE" || app.GetServer() != "default" || app.GetRetention() != 5 || app.GetRepositoryFullName() != "acme/web" || app.GetEtag() == "" || app.GetLatest() != nil {
		t.Fatalf("%v", app)
	}
	begin := time.Now()
	hash, delivery := b.push("hello")
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	t.Logf("push to live in %v", time.Since(begin))
	if b.live("web") != "hello" || !d.GetLive() || !d.GetReleaseKept() || d.GetTrigger() != deployerv1.Deployment_PUSH || d.GetCommit().GetHash() != hash ||
		d.GetCommit().GetAuthorName() != "Jane Developer" || d.GetActor().GetLabel() != "Jane Developer" || d.GetDelivery().GetNumber() != delivery ||
		d.GetProgressPercent() != 100 || len(d.GetStages()) != 7 || d.GetStartTime() == nil || d.GetEndTime() == nil || d.GetAttempt() != 1 {
		t.Fatalf("%v, live %q", d, b.live("web"))
	}
	for _, s := range d.GetStages() {
		if s.GetStartTime() == nil || s.GetEndTime() == nil {
			t.Errorf("stage without times: %v", s)
		}
	}
	b.awaitSaid(delivery, "Deployed as #1")
	app = b.get("web")
	if app.GetLive().GetNumber() != 1 || app.GetLatest().GetCommit().GetHash() != hash || app.GetAutoDeployPaused() != nil {
		t.Fatalf("%v", app)
	}
	// This deployer has no public URL: that, and nothing else, is worth a warning.
	if w := app.GetWarnings(); len(w) != 1 || !hasWarning(app, "STATUS_NOT_SENT") {
		t.Fatalf("%v", w)
	}
	text, end := b.log("web", 1, &deployerv1.ReadLogRequest{Follow: true})
	if end != deployerv1.Deployment_COMPLETED || !strings.Contains(text, "Fetching branch main of acme/web.") || !strings.Contains(text, "Release 1 is live.") {
		t.Fatalf("log %q ends %v", text, end)
	}
	b.findNoSecret()
}

// findNoSecret searches what the deployer wrote for the planted token.
func (b *bench) findNoSecret() {
	b.t.Helper()
	for _, dir := range []string{b.cfg.DataDir, b.cfg.CacheDir} {
		err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil //nolint:nilerr // what vanished holds nothing
			}
			if c, err := os.ReadFile(p); err == nil && strings.Contains(string(c), plantedToken) {
				b.t.Errorf("the token is in %s", p)
			}
			return nil
		})
		if err != nil {
			b.t.Error(err)
		}
	}
	b.logs.MustNotContain(b.t, plantedToken)
}

func TestPush_everyKindOfChange(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	b.create("off", web(false))
	b.create("dev", &deployerv1.App{Repository: repoID, Branch: "dev", AutoDeploy: true})

	tag := b.deliver(func(e *eventsv1.PushEvent) { e.RefType, e.Ref = eventsv1.PushEvent_TAG, "v1" })
	b.awaitSaid(tag, "Tag v1 does not deploy: no app of this repository deploys tags")
	other := b.deliver(func(e *eventsv1.PushEvent) { e.Ref = "feature/x" })
	b.awaitSaid(other, "Branch feature/x is not watched; watching dev, main")
	if app := b.get("dev"); !hasWarning(app, "BRANCH_NOT_FOUND") {
		t.Fatalf("%v", app.GetWarnings())
	}

	_, first := b.push("one")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.awaitSaid(first, "Deployed as #1")
	b.awaitSaid(first, "Auto-deploy of off is off")

	// The same event again is the same deployment.
	again := &eventsv1.PushEvent{Id: fmt.Sprintf("hook-1.%d.0", first), Workspace: workspace, Repository: repoID, Webhook: "hook-1", Delivery: first,
		RefType: eventsv1.PushEvent_BRANCH, Ref: "main", Action: eventsv1.PushEvent_UPDATED, ReceiveTime: timestamppb.Now(), New: &eventsv1.Commit{Hash: b.repo.Head("main")}}
	b.publish(again)

	// A, B, A.
	a := b.repo.Head("main")
	b.push("two")
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	b.repo.Set("main", a)
	b.deliver(func(e *eventsv1.PushEvent) { e.Forced = true })
	d := b.await("web", 3, deployerv1.Deployment_COMPLETED)
	if d.GetCommit().GetHash() != a || b.live("web") != "one" {
		t.Fatalf("live %q, %v", b.live("web"), d)
	}

	gone := b.deliver(func(e *eventsv1.PushEvent) { e.Action, e.New = eventsv1.PushEvent_DELETED, nil })
	b.awaitSaid(gone, "Branch main was deleted; what is live stays")
	app := b.get("web")
	if !hasWarning(app, "BRANCH_NOT_FOUND") || app.GetLatest().GetNumber() != 3 || app.GetLive().GetNumber() != 3 {
		t.Fatalf("%v", app)
	}
	b.repo.Delete("main")
	if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	if d := b.await("web", 4, deployerv1.Deployment_FAILED); d.GetError().GetReason() != "BRANCH_NOT_FOUND" || b.live("web") != "one" {
		t.Fatalf("%v", d)
	}

	hash := b.repo.Commit("main", "again", map[string]string{"index.html": "again"})
	b.deliver(func(e *eventsv1.PushEvent) { e.Action = eventsv1.PushEvent_CREATED })
	if d := b.await("web", 5, deployerv1.Deployment_COMPLETED); d.GetCommit().GetHash() != hash {
		t.Fatalf("%v", d)
	}
	if app := b.get("web"); hasWarning(app, "BRANCH_NOT_FOUND") {
		t.Fatalf("%v", app.GetWarnings())
	}
	if _, err := b.deployment("web", 6); !apierr.Has(err, apierr.ReasonDeploymentNotFound) {
		t.Fatalf("%v", err)
	}
}

func TestPush_emptyChangeListLooksAtTheRepository(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	unknown := func(e *eventsv1.PushEvent) {
		e.Action, e.RefType, e.Ref, e.New = eventsv1.PushEvent_UNKNOWN, eventsv1.PushEvent_REF_TYPE_UNSPECIFIED, "", nil
	}
	nothing := b.deliver(unknown)
	b.awaitSaid(nothing, "no watched branch had moved")
	hash := b.repo.Commit("main", "moved", map[string]string{"index.html": "moved"})
	moved := b.deliver(unknown)
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if d.GetCommit().GetHash() != hash || d.GetTrigger() != deployerv1.Deployment_PUSH || d.GetDelivery().GetNumber() != moved {
		t.Fatalf("%v", d)
	}
	b.awaitSaid(moved, "Deployed as #1")
}

func TestReconcile_findsWhatNoDeliverySpokeOf(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 200*time.Millisecond, 600*time.Millisecond
	})
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	begin := time.Now()
	hash := b.repo.Commit("main", "lost", map[string]string{"index.html": "lost"})
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if d.GetTrigger() != deployerv1.Deployment_RECONCILED || d.GetCommit().GetHash() != hash || b.live("web") != "lost" {
		t.Fatalf("%v", d)
	}
	if time.Since(begin) < 600*time.Millisecond {
		t.Error("called missing before its time")
	}
	late := b.deliver(nil)
	b.awaitSaid(late, "Deployed as #1, which Devpilot had found by itself")
	if app := b.get("web"); app.GetLatest().GetNumber() != 1 {
		t.Fatalf("%v", app)
	}
	// While we are down a push comes and its delivery is lost.
	b.stopOne()
	b.repo.Commit("main", "while down", map[string]string{"index.html": "while down"})
	b.start()
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	if b.live("web") != "while down" {
		t.Fatal(b.live("web"))
	}
}

func TestReconcile_isAutoDeployWithoutAPublicURL(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.ReconcileInterval, c.ReconcileGrace = 200*time.Millisecond, time.Hour })
	b.world.do(func() { b.world.hookReason = "NO_PUBLIC_URL" })
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	app := b.create("web", web(true))
	if app.GetWebhook().GetReason() != "NO_PUBLIC_URL" || !hasWarning(app, "NO_PUBLIC_URL") {
		t.Fatalf("%v", app)
	}
	b.repo.Commit("main", "pushed", map[string]string{"index.html": "pushed"})
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if b.live("web") != "pushed" {
		t.Fatal(b.live("web"))
	}
}

func TestDeploy_waitsForBitbucketAndGoesOn(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	b.world.do(func() { b.world.state = authv1.Integration_RECONNECT_REQUIRED })
	b.push("waits")
	testkit.Eventually(t, timeout, func() error {
		d, err := b.deployment("web", 1)
		if err != nil || d.GetState() != deployerv1.Deployment_PENDING || d.GetWaitingFor().GetReason() != "RECONNECT_REQUIRED" || d.GetRetryTime() == nil {
			return fmt.Errorf("%v %w", d, err)
		}
		return nil
	})
	b.world.do(func() { b.world.state = authv1.Integration_CONNECTED })
	if d := b.await("web", 1, deployerv1.Deployment_COMPLETED); d.GetAttempt() < 2 || d.GetWaitingFor() != nil {
		t.Fatalf("%v", d)
	}
	text, _ := b.log("web", 1, &deployerv1.ReadLogRequest{})
	if !strings.Contains(text, "Waiting: Connect again.") || strings.Count(text, "is live") != 1 {
		t.Fatalf("%q", text)
	}
}

func TestDisconnect_stopsAutoDeployAndReconnectResumes(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.ReconcileGrace = 300 * time.Millisecond })
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_NOT_CONNECTED, "" })
	b.changed()
	testkit.Eventually(t, timeout, func() error {
		if p := b.get("web").GetAutoDeployPaused(); p.GetReason() != "NOT_CONNECTED" || p.GetMessage() == "" {
			return fmt.Errorf("%v", p)
		}
		return nil
	})
	_, delivery := b.push("ignored for now")
	b.awaitSaid(delivery, "Bitbucket was disconnected")
	_, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonNotConnected)

	// Connected again: what was missed is found, and what the new account cannot reach is said.
	b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_CONNECTED, "c2" })
	b.changed()
	testkit.Eventually(t, timeout, func() error {
		if p := b.get("web").GetAutoDeployPaused(); p != nil {
			return fmt.Errorf("%v", p)
		}
		return nil
	})
	b.world.do(func() {
		b.world.state, b.world.connection, b.world.unreachable[repoID] = authv1.Integration_CONNECTED, "c3", true
	})
	b.changed()
	testkit.Eventually(t, timeout, func() error {
		if app := b.get("web"); !hasWarning(app, "REPOSITORY_NOT_FOUND") {
			return fmt.Errorf("%v", app.GetWarnings())
		}
		return nil
	})
}

// Refusals of tokens put polls and deployments off for as long as auth says. When tokens come again, by
// a person who connects or by a refresh that succeeds, nothing waits for that time.
func TestConnection_whatItPutOffGoesOnWhenItIsWell(t *testing.T) {
	for name, connection := range map[string]string{"connected again": "c2", "refreshed": ""} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *deployer.Config) {
				c.ReconcileInterval, c.ReconcileGrace = 100*time.Millisecond, 100*time.Millisecond
			})
			st := b.stores()
			b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
			b.create("web", web(true))
			b.push("one")
			b.await("web", 1, deployerv1.Deployment_COMPLETED)
			b.world.do(func() { b.world.state = authv1.Integration_REFRESH_FAILING })
			b.changed()
			b.push("two")
			testkit.Eventually(t, timeout, func() error { // deployments and polls wait
				d, err := b.deployment("web", 2)
				if err != nil || d.GetWaitingFor() == nil || time.Until(d.GetRetryTime().AsTime()) < time.Minute {
					return fmt.Errorf("%v %w", d, err)
				}
				state, _, err := st.Reconcile.Get(t.Context(), workspace+"."+repoID)
				if err != nil || time.Until(state.GetNotBefore().AsTime()) < time.Minute {
					return fmt.Errorf("the next poll: %v, %w", state, err)
				}
				return nil
			})
			b.world.do(func() {
				b.world.state = authv1.Integration_CONNECTED
				if connection != "" {
					b.world.connection = connection
				}
			})
			b.changed()
			b.await("web", 2, deployerv1.Deployment_COMPLETED)
			b.repo.Commit("main", "three", map[string]string{"index.html": "three"}) // its delivery is lost
			b.await("web", 3, deployerv1.Deployment_COMPLETED)
			if b.live("web") != "three" {
				t.Fatal(b.live("web"))
			}
		})
	}
}

// changed says that the integration changed, as auth does.
func (b *bench) changed() {
	b.t.Helper()
	subject, err := stream.EventSubject("auth", workspace, "integration")
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := (stream.Publisher{JS: b.keyset.JS, Timeout: timeout}).Publish(b.t.Context(), &nats.Msg{Subject: subject}); err != nil {
		b.t.Fatal(err)
	}
}

func TestWebhookAway_delaysOutcomesAndNothingElse(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.world.do(func() { b.world.webhookDown = true })
	app := b.create("web", web(true))
	if app.GetId() != "web" {
		t.Fatalf("%v", app)
	}
	_, delivery := b.push("hello")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.world.do(func() { b.world.webhookDown = false })
	b.awaitSaid(delivery, "Deployed as #1")
	testkit.Eventually(t, 60*time.Second, func() error { // the schedule hands the watches over
		b.world.mu.Lock()
		defer b.world.mu.Unlock()
		if w := b.world.watches[repoID].GetWatches(); len(w) != 1 || w[0].GetBranch() != "main" {
			return fmt.Errorf("%v", w)
		}
		return nil
	})
}

func TestRename_isFollowed(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	b.git.Rename("acme/web", "acme/site")
	b.repo = b.git.Repo("acme/site")
	b.world.do(func() { b.world.repositories[repoID] = "acme/site" })
	b.push("renamed")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if app := b.get("web"); app.GetRepositoryFullName() != "acme/site" || b.live("web") != "renamed" {
		t.Fatalf("%v", app)
	}
}
