package deployer_test

import (
	"fmt"
	"net/http"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// moved pushes to main and delivers it with what was there before.
func (b *bench) moved(content string) (old, hash string, delivery int32) {
	b.t.Helper()
	old = b.repo.Head("main")
	hash = b.repo.Commit("main", content, map[string]string{"index.html": content})
	return old, hash, b.pushed("main", old, hash, content)
}

func (b *bench) goBack(number int32) {
	b.t.Helper()
	resp, err := b.client.RollBackApp(b.member, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web", Deployment: number})
	if err != nil {
		b.t.Fatal(err)
	}
	b.await("web", resp.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED)
}

// outcome is what a delivery's outcomes say of an app in the end: the last of each deployment.
func (b *bench) outcome(delivery int32) *webhookv1.DeliveryOutcome {
	var last *webhookv1.DeliveryOutcome
	b.world.do(func() {
		for _, o := range b.world.outcomes {
			if o.GetDelivery() == delivery && (last == nil || o.GetOutcome().GetDeploymentState() != "PENDING") {
				last = o.GetOutcome()
			}
		}
	})
	return last
}

func TestPush_aRollbackOutlivesRepeatedDeliveries(t *testing.T) {
	b := newBench(t)
	start := b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
	b.create("web", web(true))
	_, one, first := b.moved("one")
	b.deploysAs(first, 1)
	_, two, second := b.moved("two")
	b.deploysAs(second, 2)
	// Three is pushed, and its delivery is late; four is live, and a person goes back to one.
	three := b.repo.Commit("main", "three", map[string]string{"index.html": "three"})
	_, four, fourth := b.moved("four")
	b.deploysAs(fourth, 3)
	b.goBack(1)
	for range 2 {
		for _, push := range []struct {
			old, hash string
			number    int32
		}{{start, one, 1}, {one, two, 2}, {three, four, 3}, {two, three, 3}} {
			again := b.pushed("main", push.old, push.hash, "again")
			b.awaitSaid(again, fmt.Sprintf("#%d", push.number))
		}
	}
	if app := b.get("web"); app.GetLatest().GetNumber() != 4 || b.live("web") != "one" {
		t.Fatalf("latest %v, live %q", app.GetLatest(), b.live("web"))
	}
	// A look finds nothing either, and what is pushed deploys: also what was there before.
	b.repo.Set("main", two)
	b.deploysAs(b.pushed("main", four, two, "two", func(e *eventsv1.PushEvent) { e.Forced = true }), 5)
	b.repo.Set("main", four)
	b.deploysAs(b.pushed("main", two, four, "four"), 6)
	b.repo.Set("main", two)
	b.deploysAs(b.pushed("main", four, two, "two", func(e *eventsv1.PushEvent) { e.Forced = true }), 7)
	if b.live("web") != "two" {
		t.Fatalf("live %q", b.live("web"))
	}
	// A push that came before, of a branch that is where it began again, while Bitbucket does not answer
	// the question where the branch is.
	b.goBack(3)
	b.git.Fail(away)
	again := b.pushed("main", two, four, "four")
	testkit.Eventually(t, timeout, func() error {
		if n := b.latest("web"); n != 9 {
			return fmt.Errorf("latest is %d", n)
		}
		return nil
	})
	b.git.Fail(nil)
	b.await("web", 9, deployerv1.Deployment_SUPERSEDED)
	b.awaitSaid(again, "Deployment #9: SUPERSEDED by #7")
	if b.live("web") != "four" {
		t.Fatalf("live %q", b.live("web"))
	}
	// A person's replay counts.
	replay := b.pushed("main", four, two, "two", func(e *eventsv1.PushEvent) { e.Replay = true })
	b.deploysAs(replay, 10)
	if b.live("web") != "two" {
		t.Fatalf("live %q", b.live("web"))
	}
}

func TestOutcome_saysHowTheDeploymentEnded(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
	b.create("web", web(true))
	b.git.Fail(away)
	_, _, first := b.moved("one")
	b.awaitSaid(first, "Deployed as #1 as soon as it is done")
	_, _, second := b.moved("two")
	b.awaitSaid(first, "Deployment #1: SUPERSEDED by #2")
	if _, err := b.client.CancelDeployment(b.member, &deployerv1.CancelDeploymentRequest{Workspace: workspace, App: "web", Number: 2}); err != nil {
		t.Fatal(err)
	}
	b.awaitSaid(second, "Deployment #2: CANCELLED")
	two, hash, third := b.moved("three")
	b.awaitSaid(third, "Deployed as #3 as soon as it is done")
	// Its delivery comes once more before it has ended, and hears of the end too.
	again := b.pushed("main", two, hash, "three")
	b.awaitSaid(again, "Deployed as #3 as soon as it is done")
	b.git.Fail(nil)
	b.deploysAs(third, 3)
	b.awaitSaid(again, "Deployed as #3")

	b.update("web", &deployerv1.App{Source: &deployerv1.SourceOptions{Directory: "nowhere"}}, "source")
	_, _, fourth := b.moved("four")
	b.awaitSaid(fourth, "Deployment #4: FAILED")
	if o := b.outcome(fourth); o.GetDeploymentState() != "FAILED" || o.GetReason() != "DIRECTORY_NOT_FOUND" || o.GetApp() != "web" {
		t.Errorf("%v", o)
	}

	b.git.Fail(away)
	_, _, fifth := b.moved("five")
	b.awaitSaid(fifth, "Deployed as #5 as soon as it is done")
	if _, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	b.awaitSaid(fifth, "The app web was deleted before it had ended")
}

// away is Bitbucket's git while it does not answer.
func away(*http.Request) (int, string) { return http.StatusServiceUnavailable, "away" }
