package deployer_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// An app that is made costs the leaders a question: how far the apps are, to find that its name is free. The rest
// was written by this process, or stands in others' answers.
func TestCreateApp_asksTheLeadersNothingOfWhatItWrites(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.create("first", web(true)) // the repository's index is made
	b.idle()
	// What follows from the app before may still be written on a busy machine, and costs a question more: the cheapest
	// of a few is what it takes.
	var least []string
	for i := range 5 {
		asked := b.leaderReads(func() { b.create(fmt.Sprintf("app-%d", i), web(true)) })
		if i == 0 || len(asked) < len(least) {
			least = asked
		}
		b.idle()
	}
	if len(least) > 1 {
		t.Errorf("%d questions: %v", len(least), least)
	}
	var batches int
	b.world.do(func() { batches = b.world.batches })
	if batches != 0 {
		t.Errorf("webhook, which was told of the watches, was asked %d times how the webhook stands", batches)
	}
}

// Apps of one repository that are made at the same time are handed over together, and each answer tells how the
// webhook stands.
func TestCreateApp_watchesOfOneRepositoryAreHandedOverTogether(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.create("first", web(true))
	const apps = 6
	entered, leave := make(chan struct{}), make(chan struct{})
	var hold sync.Once
	b.world.do(func() {
		b.world.told = nil
		b.world.telling = func() {
			hold.Do(func() {
				close(entered)
				<-leave
			})
		}
	})
	made := make([]*deployerv1.App, apps)
	var callers sync.WaitGroup
	create := func(i int) {
		resp, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: fmt.Sprintf("app-%d", i), App: web(true)})
		if err != nil {
			t.Error(err)
		}
		made[i] = resp.GetApp()
	}
	callers.Go(func() { create(0) })
	<-entered // the first one's watches are on their way
	for i := range apps - 1 {
		callers.Go(func() { create(i + 1) })
	}
	testkit.Eventually(t, timeout, func() error { // all are written
		idx, _, err := b.stores().Repositories.Get(t.Context(), workspace+"."+repoID)
		if err == nil && len(idx.GetWatches()) != apps+1 {
			err = fmt.Errorf("%d watches", len(idx.GetWatches()))
		}
		return err
	})
	close(leave)
	callers.Wait()
	var told []int
	var watches []*webhookv1.Watch
	b.world.do(func() { told, watches = slices.Clone(b.world.told), b.world.watches[repoID].GetWatches() })
	if len(told) != 2 || len(watches) != apps+1 {
		t.Errorf("webhook was told of %v watches, and knows %d", told, len(watches))
	}
	for _, a := range made {
		if a.GetWebhook().GetId() != "hook-1" || a.GetWebhook().GetState() != webhookv1.Webhook_ACTIVE.String() {
			t.Errorf("%s: the webhook is %v", a.GetId(), a.GetWebhook())
		}
	}
}
