package deployer_test

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// choose deploys what a person names.
func (b *bench) choose(req *deployerv1.CreateDeploymentRequest) (*deployerv1.Deployment, error) {
	req.Workspace, req.App = workspace, "web"
	resp, err := b.client.CreateDeployment(b.admin, req)
	return resp.GetDeployment(), err
}

func (b *bench) chosen(req *deployerv1.CreateDeploymentRequest) *deployerv1.Deployment {
	b.t.Helper()
	d, err := b.choose(req)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.await("web", d.GetNumber(), deployerv1.Deployment_COMPLETED)
}

// A commit that somebody chose is live exactly, says so, stays live whatever delivery comes again, and gives
// way to the next push.
func TestChosen_aCommitIsLiveUntilTheNextPush(t *testing.T) {
	b := newBench(t)
	b.admin = testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: workspace, Role: identity.RoleAdmin, Label: "Ada Admin"})
	zero := b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
	b.create("web", web(true))
	_, one, first := b.moved("one")
	b.deploysAs(first, 1)
	_, two, second := b.moved("two")
	b.deploysAs(second, 2)

	// It was never live: the clone fetches that commit.
	d := b.chosen(&deployerv1.CreateDeploymentRequest{Commit: strings.ToUpper(zero[:7]), RequestId: "once"})
	if d.GetNumber() != 3 || !d.GetChosen() || d.GetTrigger() != deployerv1.Deployment_MANUAL || d.GetCommit().GetHash() != zero || d.GetBranch() != "main" || b.live("web") != "zero" {
		t.Fatalf("live %q: %v", b.live("web"), d)
	}
	if s := b.stands("web", deployerv1.Sync_CHOSEN, "COMMIT_CHOSEN", two); s.GetDeployment() != 3 || s.GetMessage() !=
		"Ada Admin chose commit "+zero[:7]+", which is live by deployment #3; main is at "+two[:7]+". The next push deploys again." {
		t.Errorf("%v", s)
	}
	if got := b.get("web").GetNeed(); got != deployerv1.App_ROLLED_BACK {
		t.Errorf("need = %s", got)
	}
	// The same request is the same deployment, also while Bitbucket is away; another one is another.
	b.world.do(func() { b.world.restDown = true })
	if again, err := b.choose(&deployerv1.CreateDeploymentRequest{Commit: zero[:7], RequestId: "once"}); err != nil || again.GetNumber() != 3 {
		t.Errorf("repeated: %v, %v", again, err)
	}
	if _, err := b.choose(&deployerv1.CreateDeploymentRequest{Commit: one, RequestId: "once"}); !apierr.Has(err, apierr.ReasonRequestIDReused) {
		t.Errorf("another commit by the same request: %v", err)
	}
	if _, err := b.choose(&deployerv1.CreateDeploymentRequest{Commit: one}); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
		t.Errorf("while it cannot be looked up: %v", err)
	}
	b.world.do(func() { b.world.restDown = false })
	for _, push := range [][2]string{{zero, one}, {one, two}} {
		b.pushed("main", push[0], push[1], "again")
	}
	b.awaitSaid(b.pushed("main", one, two, "again"), "#2")
	if b.latest("web") != 3 || b.live("web") != "zero" {
		t.Fatalf("latest %d, live %q", b.latest("web"), b.live("web"))
	}
	_, _, third := b.moved("three")
	b.deploysAs(third, 4)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", b.repo.Head("main"))
	// The branch's own newest commit, by its name: there is nothing to tell.
	if d := b.chosen(&deployerv1.CreateDeploymentRequest{Commit: b.repo.Head("main")}); d.GetNumber() != 5 {
		t.Errorf("%v", d)
	}
	b.stands("web", deployerv1.Sync_IN_SYNC, "", b.repo.Head("main"))
}

// A tag is deployed as it is now, whatever the app's rules say of tags, and auto-deploy can be switched off with it.
func TestChosen_aTagWithAutoDeployPaused(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	_, main, first := b.moved("two")
	b.deploysAs(first, 1)
	// It is ahead of the branch, and on none.
	ahead := b.repo.Commit("side", "ahead", map[string]string{"index.html": "ahead"})
	b.tag("v2.0", ahead)
	b.repo.Delete("side")
	req := &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web", Tag: "v2.0", PauseAutoDeploy: true}
	if _, err := b.client.CreateDeployment(b.member, req); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("a member switched auto-deploy off: %v", err)
	}
	d := b.chosen(&deployerv1.CreateDeploymentRequest{Tag: "v2.0", PauseAutoDeploy: true})
	if d.GetTag() != "v2.0" || d.GetBranch() != "" || !d.GetChosen() || d.GetCommit().GetHash() != ahead || b.live("web") != "ahead" {
		t.Fatalf("live %q: %v", b.live("web"), d)
	}
	if s := b.stands("web", deployerv1.Sync_CHOSEN, "TAG_CHOSEN", main); !strings.Contains(s.GetMessage(), " chose tag v2.0 ("+ahead[:7]+"), which is live by deployment #2") ||
		!strings.HasSuffix(s.GetMessage(), "Auto-deploy is off: it stays so until somebody deploys.") {
		t.Errorf("%v", s)
	}
	a := b.get("web")
	if a.GetAutoDeploy() || a.GetAutoDeployOff().GetRolledBack() {
		t.Errorf("auto-deploy %t, %v", a.GetAutoDeploy(), a.GetAutoDeployOff())
	}
	if text, _ := b.log("web", 2, &deployerv1.ReadLogRequest{}); !strings.Contains(text, "Fetching tag v2.0 ("+ahead[:7]+")") {
		t.Errorf("log:\n%s", text)
	}
	// A tag that moves meanwhile moves nothing that was chosen before.
	again, err := b.client.RedeployDeployment(b.member, &deployerv1.RedeployDeploymentRequest{Workspace: workspace, App: "web", Number: 2})
	if err != nil {
		t.Fatal(err)
	}
	b.await("web", again.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED)
	if b.live("web") != "ahead" {
		t.Errorf("redeployed: %q", b.live("web"))
	}
}

func TestChosen_refusals(t *testing.T) {
	b := newBench(t)
	one := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	side := b.repo.Commit("side", "aside", map[string]string{"index.html": "aside"})
	for what, c := range map[string]struct {
		req    *deployerv1.CreateDeploymentRequest
		reason apierr.Reason
		field  string
	}{
		"both":                   {&deployerv1.CreateDeploymentRequest{Commit: one, Tag: "v1"}, apierr.ReasonInvalidArgument, "tag"},
		"a tag of a branch":      {&deployerv1.CreateDeploymentRequest{Branch: "main", Tag: "v1"}, apierr.ReasonInvalidArgument, "branch"},
		"six digits":             {&deployerv1.CreateDeploymentRequest{Commit: one[:6]}, apierr.ReasonInvalidArgument, "commit"},
		"a revision":             {&deployerv1.CreateDeploymentRequest{Commit: "main~1"}, apierr.ReasonInvalidArgument, "commit"},
		"no name of a tag":       {&deployerv1.CreateDeploymentRequest{Tag: "a..b"}, apierr.ReasonInvalidArgument, "tag"},
		"pausing for the head":   {&deployerv1.CreateDeploymentRequest{PauseAutoDeploy: true}, apierr.ReasonInvalidArgument, "pauseAutoDeploy"},
		"of an unwatched branch": {&deployerv1.CreateDeploymentRequest{Commit: side, Branch: "side"}, apierr.ReasonInvalidArgument, "branch"},
		"of another branch":      {&deployerv1.CreateDeploymentRequest{Commit: side}, apierr.ReasonCommitNotInBranch, ""},
		"no such tag":            {&deployerv1.CreateDeploymentRequest{Tag: "v1"}, apierr.ReasonTagNotFound, ""},
	} {
		_, err := b.choose(c.req)
		if !apierr.Has(err, c.reason) {
			t.Errorf("%s: %v, want %s", what, err, c.reason)
			continue
		}
		if fields := apierr.From(err).Fields(); c.field != "" && (len(fields) != 1 || fields[0].Name != c.field) {
			t.Errorf("%s: fields %v, want %s", what, fields, c.field)
		}
	}
	if n := b.latest("web"); n != 0 {
		t.Errorf("a refusal made deployment %d", n)
	}
}
