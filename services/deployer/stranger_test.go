package deployer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// taken renames the repository and has a stranger take its name, with a branch of the same name, more
// branches and tags.
func (b *bench) taken() (stranger string) {
	b.t.Helper()
	b.git.Rename("acme/web", "acme/web-legacy")
	other := b.git.Repo("acme/web")
	stranger = other.Commit("main", "stranger", map[string]string{"index.html": "stranger"})
	other.Set("release/9", stranger)
	other.Git("tag", "v9", stranger)
	b.repo = b.git.Repo("acme/web-legacy")
	b.world.do(func() { b.world.repositories[repoID] = "acme/web-legacy" })
	return stranger
}

// noStranger makes sure that no deployment has the stranger's commit.
func (b *bench) noStranger(stranger string) {
	b.t.Helper()
	for n := range b.latest("web") {
		d, err := b.deployment("web", n+1)
		if err != nil {
			b.t.Fatal(err)
		}
		if d.GetCommit().GetHash() == stranger || d.GetRequestedCommit().GetHash() == stranger {
			b.t.Errorf("a stranger's commit: %v", d)
		}
	}
	if b.live("web") == "stranger" {
		b.t.Error("the stranger is live")
	}
}

func TestStranger_neverGoesLiveByLooking(t *testing.T) {
	for name, branch := range map[string]string{"a branch": "main", "a pattern": "{main,release/*}"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, quick)
			b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
			a := web(true)
			a.Branch, a.Rules = branch, &deployerv1.AppRules{Tags: []string{"v*"}}
			b.create("web", a)
			b.noted(b.stores(), "web")
			b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
			b.await("web", 1, deployerv1.Deployment_COMPLETED)
			stranger := b.taken()
			testkit.Eventually(t, timeout, func() error {
				if app := b.get("web"); app.GetRepositoryFullName() != "acme/web-legacy" {
					return fmt.Errorf("it is called %s", app.GetRepositoryFullName())
				}
				return nil
			})
			b.polls()
			if n := b.latest("web"); n != 1 || b.live("web") != "one" {
				t.Errorf("latest %d, live %q", n, b.live("web"))
			}
			// What is pushed to the repository under its new name is found.
			b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
			b.await("web", 2, deployerv1.Deployment_COMPLETED)
			if b.live("web") != "two" {
				t.Errorf("live %q", b.live("web"))
			}
			b.noStranger(stranger)
			// webhook hears of the name.
			testkit.Eventually(t, timeout, func() error {
				name := ""
				b.world.do(func() { name = b.world.watches[repoID].GetRepositoryFullName() })
				if name != "acme/web-legacy" {
					return fmt.Errorf("webhook knows it as %s", name)
				}
				return nil
			})
		})
	}
}

func TestStranger_deploymentsFollowTheUUID(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
	b.create("web", web(true))
	_, one, first := b.moved("one")
	b.deploysAs(first, 1)
	stranger := b.taken()
	latest := func() *deployerv1.Deployment {
		t.Helper()
		resp, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"})
		if err != nil {
			t.Fatal(err)
		}
		return b.await("web", resp.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED)
	}
	if d := latest(); d.GetCommit().GetHash() != one || !strings.Contains(d.GetCommit().GetUrl(), "/acme/web-legacy/") {
		t.Errorf("%v", d)
	}
	// A delivery from before the renaming comes once more, and sets no name back.
	old := b.pushed("main", b.repo.Git("rev-parse", one+"^"), one, "one")
	b.awaitSaid(old, "#1")
	_, two, _ := b.moved("two")
	b.await("web", 3, deployerv1.Deployment_COMPLETED)
	if app := b.get("web"); app.GetLive().GetCommit().GetHash() != two || app.GetRepositoryFullName() != "acme/web-legacy" {
		t.Errorf("live %v, %s", app.GetLive(), app.GetRepositoryFullName())
	}
	if d, err := b.redeploy(1); err != nil || b.await("web", d.GetNumber(), deployerv1.Deployment_COMPLETED).GetCommit().GetHash() != one {
		t.Errorf("%v %v", d, err)
	}
	b.noStranger(stranger)
}

// TestStranger_takesTheNameWhileADeploymentWaits: the push was delivered under the name, the fetch comes
// after another repository has it; and the branch has moved on, or the stranger lacks it.
func TestStranger_takesTheNameWhileADeploymentWaits(t *testing.T) {
	for name, lacks := range map[string]bool{"has the branch": false, "lacks the branch": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *deployer.Config) { c.Doubt = 50 * time.Millisecond })
			b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
			b.create("web", web(true))
			b.git.Fail(away)
			b.moved("one")
			testkit.Eventually(t, timeout, func() error {
				d, err := b.deployment("web", 1)
				if err == nil && d.GetWaitingFor() == nil {
					err = fmt.Errorf("it does not wait: %v", d)
				}
				return err
			})
			two := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
			stranger := b.taken()
			if lacks {
				b.git.Repo("acme/web").Git("branch", "-M", "main", "other")
			}
			b.git.Fail(nil)
			if d := b.await("web", 1, deployerv1.Deployment_COMPLETED); d.GetCommit().GetHash() != two || b.live("web") != "two" {
				t.Errorf("live %q, %v", b.live("web"), d)
			}
			b.noStranger(stranger)
		})
	}
}

// TestStranger_aPushIsCheckedWithoutAQuestion: what a delivery told of is known by its hash.
func TestStranger_aPushIsCheckedWithoutAQuestion(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
	b.create("web", web(true))
	st := b.stores()
	testkit.Eventually(t, timeout, func() error { // a new connection's reach is checked
		c, _, err := st.Connections.Get(t.Context(), workspace)
		if err == nil && c.GetCheckedConnectionId() == "" {
			err = fmt.Errorf("not checked yet: %v", c)
		}
		return err
	})
	asked := b.world.questions()
	for i := range int32(5) {
		_, _, delivery := b.moved(fmt.Sprint(i))
		b.deploysAs(delivery, i+1)
	}
	if n := b.world.questions() - asked; n != 0 {
		t.Errorf("%d questions about the repository's name for 5 pushes", n)
	}
	// A delivery with another name costs one, whoever needs the name.
	b.git.Rename("acme/web", "acme/site")
	b.repo = b.git.Repo("acme/site")
	b.world.do(func() { b.world.repositories[repoID] = "acme/site" })
	hash := b.repo.Commit("main", "renamed", map[string]string{"index.html": "renamed"})
	b.deploysAs(b.pushed("main", b.repo.Git("rev-parse", hash+"^"), hash, "renamed", func(e *eventsv1.PushEvent) { e.RepositoryFullName = "acme/site" }), 6)
	if n := b.world.questions() - asked; n != 1 {
		t.Errorf("%d questions about the new name", n)
	}
}
