package deployer_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// stands waits until an app's branch stands in a way, and returns what is said of it.
func (b *bench) stands(app string, state deployerv1.Sync_State, reason, commit string) *deployerv1.Sync {
	b.t.Helper()
	var s *deployerv1.Sync
	testkit.Eventually(b.t, timeout, func() error {
		s = b.get(app).GetSync()
		if s.GetState() != state || s.GetReason() != reason || s.GetCommit() != commit || s.GetMessage() == "" || s.GetSince() == nil {
			return fmt.Errorf("%v, want %v %s at %s", s, state, reason, commit)
		}
		return nil
	})
	return s
}

func (b *bench) set(app string, auto bool) *deployerv1.App {
	b.t.Helper()
	resp, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{
		Workspace: workspace, AppId: app, App: &deployerv1.App{AutoDeploy: auto}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"auto_deploy"}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.GetApp()
}

// A push that came while auto-deploy was off stays named until it is live, also once auto-deploy is on
// again and every light would be green.
func TestSync_offByARollbackPushedAndOnAgain(t *testing.T) {
	b := newBench(t, doubting)
	b.admin = testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: workspace, Role: identity.RoleAdmin, Label: "Ada Admin"})
	one := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	if s := b.stands("web", deployerv1.Sync_BEHIND, "NOT_DEPLOYED", one); s.GetBranch() != "main" {
		t.Errorf("before anything is live: %v", s)
	}
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)
	two, _ := b.push("two")
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", two)

	if _, err := b.client.RollBackApp(b.admin, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web", PauseAutoDeploy: true}); err != nil {
		t.Fatal(err)
	}
	b.await("web", 3, deployerv1.Deployment_COMPLETED)
	if s := b.stands("web", deployerv1.Sync_ROLLED_BACK, "OLDER_RELEASE", two); s.GetDeployment() != 3 || !strings.HasPrefix(s.GetMessage(), "Ada Admin made "+one[:7]+" live again") {
		t.Errorf("%v", s)
	}
	if off := b.get("web").GetAutoDeployOff(); off.GetActor().GetLabel() != "Ada Admin" || !off.GetRolledBack() || off.GetTime() == nil {
		t.Errorf("switched off: %v", off)
	}

	three := b.repo.Commit("main", "three", map[string]string{"index.html": "three"}) // no delivery: no webhook says so
	off := b.stands("web", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", three)
	if !strings.Contains(off.GetMessage(), "Ada Admin switched it off with a rollback") {
		t.Errorf("%v", off)
	}
	b.set("web", true)
	on := b.stands("web", deployerv1.Sync_BEHIND, "NOT_DEPLOYED", three)
	if !on.GetSince().AsTime().Equal(off.GetSince().AsTime()) {
		t.Errorf("behind since %v, and since %v once auto-deploy is on", off.GetSince().AsTime(), on.GetSince().AsTime())
	}
	if got := b.live("web"); got != "one" {
		t.Fatalf("switching on deployed: %q", got)
	}
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", three)
	if a := b.set("web", false); a.GetAutoDeployOff().GetRolledBack() || a.GetSync().GetState() != deployerv1.Sync_IN_SYNC {
		t.Errorf("switched off in sync: %v %v", a.GetAutoDeployOff(), a.GetSync())
	}
}

func TestSync_whyABranchIsBehind(t *testing.T) {
	b := newBench(t, doubting)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	app := web(true)
	app.Hooks = []*deployerv1.DeploymentHook{{Name: "build", Stage: deployerv1.Deployment_POST_SOURCE_CONTROL, Command: "while [ -e hold ]; do sleep 0.05; done; ! grep -q bad index.html"}}
	b.create("web", app)
	b.push("good")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)

	bad, _ := b.push("bad")
	b.await("web", 2, deployerv1.Deployment_FAILED)
	if s := b.stands("web", deployerv1.Sync_BEHIND, "DEPLOYMENT_FAILED", bad); s.GetDeployment() != 2 || !strings.Contains(s.GetMessage(), "#2 of it failed: ") {
		t.Errorf("%v", s)
	}
	skipped := b.repo.Commit("main", "words [skip ci]", map[string]string{"index.html": "skipped"})
	said := b.deliver(func(e *eventsv1.PushEvent) { e.New.Message = "words [skip ci]" })
	b.awaitSaid(said, "skip ci")
	if s := b.stands("web", deployerv1.Sync_BEHIND, "SKIP_PHRASE", skipped); !strings.HasSuffix(s.GetMessage(), "[skip ci].") {
		t.Errorf("%v", s)
	}
	held := b.repo.Commit("main", "held", map[string]string{"index.html": "held", "hold": ""})
	b.deliver(nil)
	if s := b.stands("web", deployerv1.Sync_BEHIND, "DEPLOYING", held); s.GetDeployment() != 3 {
		t.Errorf("%v", s)
	}
	if _, err := b.client.CancelDeployment(b.admin, &deployerv1.CancelDeploymentRequest{Workspace: workspace, App: "web", Number: 3}); err != nil {
		t.Fatal(err)
	}
	b.stands("web", deployerv1.Sync_BEHIND, "DEPLOYMENT_CANCELLED", held)
	last, _ := b.push("last")
	b.await("web", 4, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", last)
}

// What is not known is not said to be in sync; that a branch is behind stays true.
func TestSync_unknownWhileBitbucketDoesNotAnswer(t *testing.T) {
	b := newBench(t, doubting)
	b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
	b.create("web", web(true))
	one, _ := b.push("one")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)
	b.git.Intercept(refuses(http.StatusServiceUnavailable, "maintenance"))
	before := time.Now()
	if s := b.stands("web", deployerv1.Sync_UNKNOWN, "BITBUCKET_UNAVAILABLE", one); s.GetSince().AsTime().Before(before.Add(-time.Minute)) {
		t.Errorf("%v", s)
	}
	b.git.Intercept(nil)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", one)

	b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_NOT_CONNECTED, "" })
	b.changed()
	b.stands("web", deployerv1.Sync_UNKNOWN, "NOT_CONNECTED", one)
}

// What moves without a deployment is told, and counted.
func TestSync_isToldAndCounted(t *testing.T) {
	b := newBench(t, doubting)
	b.stopOne()
	registry := prometheus.NewRegistry()
	b.keyset.Registerer = registry
	b.start()
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.create("docs", web(false))
	var mu sync.Mutex
	told := map[string]int{}
	subscription, err := b.keyset.JS.Conn().Subscribe("devpilot.event.v1.>", func(m *nats.Msg) {
		var e eventsv1.ChangeEvent
		if err := proto.Unmarshal(m.Data, &e); err == nil {
			mu.Lock()
			told[e.GetKind()+" "+e.GetId()]++
			mu.Unlock()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = subscription.Unsubscribe() }()
	heard := func(what string) {
		t.Helper()
		testkit.Eventually(t, timeout, func() error {
			mu.Lock()
			defer mu.Unlock()
			if told[what] == 0 {
				return fmt.Errorf("told of %v, not of %s", told, what)
			}
			return nil
		})
	}
	moved := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	b.stands("web", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", moved)
	heard("app web")
	b.git.Intercept(refuses(http.StatusServiceUnavailable, "maintenance"))
	heard("repository " + repoID)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "devpilot_deployer_apps" {
			for _, m := range f.GetMetric() {
				counted[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if want := map[string]float64{"in_sync": 0, "behind": 2, "rolled_back": 0, "chosen": 0, "unknown": 0}; !maps.Equal(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
}

// No poll comes within this test: the delivery alone says where the branch is, also of an app that it
// deploys nothing of.
func TestSync_offAndADeliveryTellsOfThePush(t *testing.T) {
	b := newBench(t)
	base := b.repo.Commit("main", "base", map[string]string{"index.html": "base"})
	b.create("web", web(true))
	b.create("hand", web(false))
	b.stands("hand", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", base)
	pushed := func(old, now string) int32 {
		return b.deliver(func(e *eventsv1.PushEvent) { e.Old, e.New.Hash = &eventsv1.Commit{Hash: old}, now })
	}
	two := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	b.awaitSaid(pushed(base, two), "Auto-deploy of hand is off")
	b.stands("hand", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", two)
	three := b.repo.Commit("main", "three", map[string]string{"index.html": "three"})
	pushed(two, three)
	b.stands("hand", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", three)
	b.awaitSaid(pushed(base, two), "Auto-deploy of hand is off") // it comes once more, late
	b.stands("hand", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", three)
	b.set("hand", true)
	if on := b.stands("hand", deployerv1.Sync_BEHIND, "NOT_DEPLOYED", three); on.GetDeployment() != 0 {
		t.Errorf("switching on deployed: %v", on)
	}
}

// apart waits until an app's sync says how far its branch is from what is live.
func (b *bench) apart(app string, commits int32, diverged bool) *deployerv1.Sync {
	b.t.Helper()
	var s *deployerv1.Sync
	testkit.Eventually(b.t, timeout, func() error {
		if s = b.get(app).GetSync(); s.GetCommits() != commits || s.GetDiverged() != diverged {
			return fmt.Errorf("%v, want %d commits, diverged %v", s, commits, diverged)
		}
		return nil
	})
	return s
}

// How many commits a branch is ahead of what is live is what git counts between the two, and never a number
// of something else.
func TestSync_tellsHowManyCommitsItIsBehind(t *testing.T) {
	b := newBench(t, doubting)
	commit := func(text string) string {
		return b.repo.Commit("main", text, map[string]string{"index.html": text})
	}
	first := commit("0")
	b.create("web", web(false))
	if s := b.stands("web", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", first); s.GetCommits() != 0 || s.GetDiverged() {
		t.Errorf("nothing is live: %v", s)
	}
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if s := b.stands("web", deployerv1.Sync_IN_SYNC, "", first); s.GetCommits() != 0 {
		t.Errorf("in sync: %v", s)
	}
	rest := 0
	for _, n := range []int32{1, 3, 25} {
		for ; rest < int(n); rest++ {
			commit(fmt.Sprint(rest + 1))
		}
		if s := b.apart("web", n, false); s.GetState() != deployerv1.Sync_BEHIND || s.GetCommit() != b.repo.Head("main") {
			t.Errorf("%d pushed: %v", n, s)
		}
	}
	why, err := b.client.Explain(b.admin, &deployerv1.ExplainRequest{Workspace: workspace, App: "web", Branch: "main"})
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprint(why.GetExplanation().GetSteps()); !strings.Contains(said, "main is 25 commits ahead of what is live") {
		t.Errorf("why says %s", said)
	}

	// Forced off what is live: no number says how far that is.
	b.repo.Set("main", first)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", first)
	b.repo.Git("update-ref", "-d", "refs/heads/main")
	other := commit("another beginning")
	if s := b.apart("web", 0, true); s.GetCommit() != other || s.GetState() != deployerv1.Sync_BEHIND {
		t.Errorf("forced: %v", s)
	}

	// A rollback is as far from the branch as the release that it made live.
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", other)
	commit("two")
	newest := commit("three")
	b.apart("web", 2, false)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", newest)
	if _, err := b.client.RollBackApp(b.admin, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	b.stands("web", deployerv1.Sync_ROLLED_BACK, "OLDER_RELEASE", newest)
	b.apart("web", 2, false)
	commit("four")
	if s := b.apart("web", 3, false); s.GetState() != deployerv1.Sync_BEHIND {
		t.Errorf("rolled back, then pushed: %v", s)
	}

	// Bitbucket's git does not say it: nothing is told.
	b.repo.Git("config", "uploadpack.allowFilter", "false")
	last := commit("five")
	b.stands("web", deployerv1.Sync_BEHIND, "AUTO_DEPLOY_OFF", last)
	b.apart("web", 0, false)
}
