package deployer_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// pushed delivers a push of a branch from one commit to another.
func (b *bench) pushed(branch, old, hash, message string, change ...func(*eventsv1.PushEvent)) int32 {
	b.t.Helper()
	return b.deliver(func(e *eventsv1.PushEvent) {
		e.Ref, e.New = branch, &eventsv1.Commit{Hash: hash, Message: message}
		if old == "" {
			e.Action = eventsv1.PushEvent_CREATED
		} else {
			e.Old = &eventsv1.Commit{Hash: old}
		}
		for _, fn := range change {
			fn(e)
		}
	})
}

// deploysAs waits until the delivery's outcome is the deployment, and that one is done.
func (b *bench) deploysAs(delivery, number int32) *deployerv1.Deployment {
	b.t.Helper()
	b.awaitSaid(delivery, fmt.Sprintf("Deployed as #%d", number))
	return b.await("web", number, deployerv1.Deployment_COMPLETED)
}

func TestPaths_filterByWhatAPushChanges(t *testing.T) {
	b := newBench(t)
	tree := func(site, docs string, more ...string) map[string]string {
		files := map[string]string{"index.html": "same", "site/page.html": site, "docs/a.md": docs}
		for _, name := range more {
			files[name] = name
		}
		return files
	}
	head := b.repo.Commit("main", "zero", tree("0", "0"))
	a := web(true)
	a.Rules = &deployerv1.AppRules{Paths: []string{"site/**"}, PathsIgnore: []string{"site/*.txt"}}
	b.create("web", a)
	next := func(message string, files map[string]string) (delivery int32) {
		t.Helper()
		old := head
		head = b.repo.Commit("main", message, files)
		return b.pushed("main", old, head, message)
	}
	if words := b.awaitOutcome(next("docs only", tree("0", "1")), "web", "PATHS_UNCHANGED"); !strings.Contains(words, "docs/a.md") {
		t.Errorf("the outcome does not name what changed: %q", words)
	}
	b.awaitOutcome(next("ignored", tree("0", "1", "site/note.txt")), "web", "PATHS_UNCHANGED")
	b.deploysAs(next("the site", tree("1", "1", "site/note.txt")), 1)
	// A file that moves away from a watched place changes it, and so does one that arrives.
	b.deploysAs(next("renamed away", map[string]string{"index.html": "same", "elsewhere/page.html": "1", "docs/a.md": "1", "site/note.txt": "site/note.txt"}), 2)
	b.deploysAs(next("renamed back", tree("1", "1", "site/note.txt")), 3)
	b.awaitOutcome(next("the same tree", tree("1", "1", "site/note.txt")), "web", "PATHS_UNCHANGED")

	// Forced: what counts is how the trees differ, not the history between them.
	old := head
	b.repo.Set("main", b.repo.Git("rev-parse", head+"~3"))
	head = b.repo.Commit("main", "rewritten, same site", tree("1", "rewritten", "site/note.txt"))
	b.awaitOutcome(b.pushed("main", old, head, "rewritten", func(e *eventsv1.PushEvent) { e.Forced = true }), "web", "PATHS_UNCHANGED")
	old = head
	b.repo.Set("main", b.repo.Git("rev-parse", head+"~1"))
	head = b.repo.Commit("main", "rewritten, another site", tree("2", "rewritten", "site/note.txt"))
	b.deploysAs(b.pushed("main", old, head, "rewritten", func(e *eventsv1.PushEvent) { e.Forced = true }), 4)

	// A delivery in between is lost: the changes count from the head that was seen last.
	b.repo.Commit("main", "lost, the site", tree("3", "rewritten", "site/note.txt"))
	lost := b.repo.Head("main")
	head = b.repo.Commit("main", "docs after it", tree("3", "docs after it", "site/note.txt"))
	b.deploysAs(b.pushed("main", lost, head, "docs after it"), 5)
	if app := b.get("web"); app.GetLatest().GetNumber() != 5 {
		t.Errorf("latest is %v", app.GetLatest())
	}
}

func TestPaths_whatCannotBeKnownDeploys(t *testing.T) {
	b := newBench(t)
	a := web(true)
	a.Branch, a.Rules = "release/*", &deployerv1.AppRules{Paths: []string{"nothing/**"}}
	b.create("web", a)
	first := b.repo.Commit("release/1", "first", map[string]string{"index.html": "first"})
	d := b.deploysAs(b.pushed("release/1", "", first, "first"), 1)
	if len(d.GetNotes()) != 1 {
		t.Errorf("notes of a first push: %q", d.GetNotes())
	}
	// The old commit is none that anybody has.
	second := b.repo.Commit("release/2", "second", map[string]string{"index.html": "second"})
	d = b.deploysAs(b.pushed("release/2", "00112233445566778899aabbccddeeff00112233", second, "second"), 2)
	if len(d.GetNotes()) != 1 {
		t.Errorf("notes of a push from nowhere: %q", d.GetNotes())
	}
	// Nor can a repository be asked that does not answer.
	b.git.Fail(func(*http.Request) (int, string) { return http.StatusServiceUnavailable, "away" })
	third := b.repo.Commit("release/2", "third", map[string]string{"index.html": "third"})
	b.awaitSaid(b.pushed("release/2", second, third, "third"), "Deployed as #3")
	b.git.Fail(nil)
	if d = b.await("web", 3, deployerv1.Deployment_COMPLETED); len(d.GetNotes()) != 1 {
		t.Errorf("notes of a push whose changes could not be read: %q", d.GetNotes())
	}
}

func TestSkipPhrases_inTheHeadCommitsMessage(t *testing.T) {
	b := newBench(t)
	head := b.repo.Commit("main", "zero", map[string]string{"index.html": "0"})
	b.create("web", web(true))
	next := func(message string) int32 {
		t.Helper()
		old := head
		head = b.repo.Commit("main", message, map[string]string{"index.html": message})
		return b.pushed("main", old, head, message)
	}
	if words := b.awaitOutcome(next("Fix a typo\n\n[Skip CI]"), "web", "SKIP_PHRASE"); !strings.Contains(words, "[skip ci]") {
		t.Errorf("the outcome does not name the phrase: %q", words)
	}
	b.deploysAs(next("skip ci without brackets"), 1)
	b.update("web", &deployerv1.App{Rules: &deployerv1.AppRules{Skip: &deployerv1.SkipPhrases{Phrases: []string{"#nodeploy"}}}}, "rules.skip")
	b.deploysAs(next("[skip ci] is not ours any more"), 2)
	b.awaitOutcome(next("later #NoDeploy"), "web", "SKIP_PHRASE")
	b.update("web", &deployerv1.App{Rules: &deployerv1.AppRules{Skip: &deployerv1.SkipPhrases{}}}, "rules.skip")
	b.deploysAs(next("#nodeploy [skip ci]"), 3)
}

func TestGlobBranch_hasOneLaneForAllItsBranches(t *testing.T) {
	b := newBench(t)
	base := b.repo.Commit("main", "base", map[string]string{"index.html": "base"})
	a := web(true)
	a.Branch, a.Hooks = "feature/*", []*deployerv1.DeploymentHook{hookAt(postSetup, "wait", `[ "$DEVPILOT_BRANCH" != feature/a ] || sleep `+nap(3270))}
	b.create("web", a)
	_, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonInvalidArgument) // which branch?
	b.repo.Set("feature/a", base)
	hashA := b.repo.Commit("feature/a", "a", map[string]string{"index.html": "a"})
	b.pushed("feature/a", "", hashA, "a")
	b.awaitHook("web", 1, "wait")
	hashB := b.repo.Commit("feature/b", "b", map[string]string{"index.html": "b"})
	b.pushed("feature/b", "", hashB, "b")
	hashC := b.repo.Commit("feature/c", "c", map[string]string{"index.html": "c"})
	b.pushed("feature/c", "", hashC, "c")
	d := b.await("web", 2, deployerv1.Deployment_SUPERSEDED) // while 1 runs, the newest of all branches waits
	if d.GetSupersededBy() != 3 || d.GetBranch() != "feature/b" {
		t.Errorf("%v", d)
	}
	if _, err := b.cancel("web", 1); err != nil {
		t.Fatal(err)
	}
	d = b.await("web", 3, deployerv1.Deployment_COMPLETED)
	if d.GetBranch() != "feature/c" || d.GetCommit().GetHash() != hashC || b.live("web") != "c" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	deep := b.pushed("feature/a/deep", "", hashA, "a")
	b.awaitSaid(deep, "Branch feature/a/deep is not watched; watching feature/*")

	// By hand: the branch that was deployed last, or the one named.
	if d = b.deployed("web", deployerv1.Deployment_COMPLETED); d.GetBranch() != "feature/c" {
		t.Errorf("%v", d)
	}
	resp, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web", Branch: "feature/b"})
	if err != nil {
		t.Fatal(err)
	}
	if d = b.await("web", resp.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED); d.GetCommit().GetHash() != hashB || b.live("web") != "b" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	_, err = b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web", Branch: "main"})
	b.wantReason(err, apierr.ReasonInvalidArgument)
}

func TestTags_deployByPattern(t *testing.T) {
	b := newBench(t)
	tagged := b.repo.Commit("main", "one [skip ci]", map[string]string{"index.html": "one"})
	a := web(true)
	a.Rules = &deployerv1.AppRules{Tags: []string{"v*"}, Paths: []string{"nothing/**"}}
	a.Hooks = []*deployerv1.DeploymentHook{hookAt(postSetup, "show", `echo "tag $DEVPILOT_TAG branch $DEVPILOT_BRANCH"`)}
	b.create("web", a)
	b.repo.Git("update-ref", "refs/tags/v1.0", tagged)
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	push := func(name string, change ...func(*eventsv1.PushEvent)) int32 {
		t.Helper()
		return b.pushed(name, "", tagged, "one [skip ci]", append(change, func(e *eventsv1.PushEvent) { e.RefType = eventsv1.PushEvent_TAG })...)
	}
	d := b.deploysAs(push("v1.0"), 1) // neither phrase nor paths hold for a tag
	if d.GetTag() != "v1.0" || d.GetBranch() != "" || d.GetCommit().GetHash() != tagged || b.live("web") != "one" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	if got := b.printed("web", 1, "show"); !slices.Equal(got, []string{"tag v1.0 branch "}) {
		t.Errorf("hooks see %q", got)
	}
	b.awaitSaid(push("nightly"), "Tag nightly is not watched; watching v*")
	gone := push("v1.0", func(e *eventsv1.PushEvent) { e.Action, e.New = eventsv1.PushEvent_DELETED, nil })
	b.awaitOutcome(gone, "web", "TAG_DELETED")
	if b.live("web") != "one" {
		t.Errorf("live is %q", b.live("web"))
	}
	// The tag's deployment can be redeployed although the tag is gone.
	b.repo.Git("update-ref", "-d", "refs/tags/v1.0")
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if b.live("web") != "two" {
		t.Fatalf("live is %q", b.live("web"))
	}
	if _, err := b.redeploy(1); err != nil {
		t.Fatal(err)
	}
	if d = b.await("web", 3, deployerv1.Deployment_COMPLETED); d.GetTag() != "v1.0" || b.live("web") != "one" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
}

func TestReconcile_appliesTheRules(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 100*time.Millisecond, 10*time.Millisecond
	})
	b.repo.Commit("main", "zero", map[string]string{"index.html": "0", "docs/a.md": "0"})
	filtered := web(true)
	filtered.Rules = &deployerv1.AppRules{PathsIgnore: []string{"docs/**"}}
	b.create("web", filtered)
	glob := web(true)
	glob.Branch = "feature/*"
	b.create("features", glob)
	b.repo.Commit("feature/old", "there before the app was polled", map[string]string{"index.html": "old"})

	b.repo.Commit("main", "docs", map[string]string{"index.html": "0", "docs/a.md": "1"})
	testkit.Eventually(t, timeout, func() error { // it is seen, and turned away
		if !b.logs.Contains("push found by polling, and turned away") {
			return fmt.Errorf("nothing was turned away")
		}
		return nil
	})
	hash := b.repo.Commit("main", "page", map[string]string{"index.html": "1", "docs/a.md": "1"})
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if d.GetTrigger() != deployerv1.Deployment_RECONCILED || d.GetCommit().GetHash() != hash || b.live("web") != "1" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	b.repo.Commit("main", "not this one [skip ci]", map[string]string{"index.html": "2", "docs/a.md": "1"})
	testkit.Eventually(t, timeout, func() error {
		if n := strings.Count(b.logs.Text(), "push found by polling, and turned away"); n < 2 {
			return fmt.Errorf("turned away: %d", n)
		}
		return nil
	})
	// A branch that matches a pattern is found when it is new, and when it moves.
	hash = b.repo.Commit("feature/new", "new", map[string]string{"index.html": "new"})
	awaitCommit := func(hash string) {
		t.Helper()
		testkit.Eventually(t, timeout, func() error {
			if app := b.get("features"); app.GetLive().GetCommit().GetHash() != hash {
				return fmt.Errorf("live %v, latest %v", app.GetLive(), app.GetLatest())
			}
			return nil
		})
	}
	awaitCommit(hash)
	awaitCommit(b.repo.Commit("feature/new", "newer", map[string]string{"index.html": "newer"}))
	if app := b.get("web"); app.GetLatest().GetNumber() != 1 {
		t.Errorf("latest of the filtered app is %v", app.GetLatest())
	}
}

func TestCheckPush_saysWhatWouldComeOfAPush(t *testing.T) {
	b := newBench(t)
	old := b.repo.Commit("main", "zero", map[string]string{"site/a.html": "0", "docs/a.md": "0"})
	docs := b.repo.Commit("main", "docs", map[string]string{"site/a.html": "0", "docs/a.md": "1"})
	page := b.repo.Commit("main", "page [skip ci]", map[string]string{"site/a.html": "1", "docs/a.md": "1"})
	a := web(true)
	a.Rules = &deployerv1.AppRules{Paths: []string{"site/**"}, Tags: []string{"v*"}}
	b.create("web", a)
	for name, c := range map[string]struct {
		req    *deployerv1.CheckPushRequest
		reason string
	}{
		"other branch":       {&deployerv1.CheckPushRequest{Branch: "dev"}, "BRANCH_NOT_WATCHED"},
		"pattern to try":     {&deployerv1.CheckPushRequest{Branch: "dev", WatchedBranch: "d*", ChangedPaths: []string{"site/b"}}, ""},
		"tag":                {&deployerv1.CheckPushRequest{Tag: "v7"}, ""},
		"other tag":          {&deployerv1.CheckPushRequest{Tag: "nightly"}, "TAG_NOT_WATCHED"},
		"docs":               {&deployerv1.CheckPushRequest{Branch: "main", OldCommit: old, NewCommit: docs}, "PATHS_UNCHANGED"},
		"docs, other rules":  {&deployerv1.CheckPushRequest{Branch: "main", OldCommit: old, NewCommit: docs, Rules: &deployerv1.AppRules{Paths: []string{"docs/*.md"}}}, ""},
		"skip phrase":        {&deployerv1.CheckPushRequest{Branch: "main", OldCommit: docs, NewCommit: page}, "SKIP_PHRASE"},
		"page, no phrases":   {&deployerv1.CheckPushRequest{Branch: "main", OldCommit: docs, NewCommit: page, Rules: &deployerv1.AppRules{Paths: []string{"site/**"}, Skip: &deployerv1.SkipPhrases{}}}, ""},
		"first push":         {&deployerv1.CheckPushRequest{Branch: "main", NewCommit: docs}, ""},
		"paths, by name":     {&deployerv1.CheckPushRequest{Branch: "main", ChangedPaths: []string{"docs/b.md"}}, "PATHS_UNCHANGED"},
		"message, by itself": {&deployerv1.CheckPushRequest{Branch: "main", ChangedPaths: []string{"site/b"}, Message: "x [deploy skip]"}, "SKIP_PHRASE"},
	} {
		c.req.Workspace, c.req.App = workspace, "web"
		got, err := b.client.CheckPush(b.member, c.req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.GetDeploys() != (c.reason == "") || got.GetReason() != c.reason || got.GetMessage() == "" || len(got.GetChecks()) == 0 {
			t.Errorf("%s: %v, want %q", name, got, c.reason)
		}
		failed := 0
		for _, check := range got.GetChecks() {
			if check.GetRule() == "" || check.GetMessage() == "" {
				t.Errorf("%s: a check without words: %v", name, check)
			}
			if !check.GetPassed() {
				failed++
			}
		}
		if (failed == 0) != got.GetDeploys() {
			t.Errorf("%s: %d checks failed of %v", name, failed, got)
		}
	}
	for name, req := range map[string]*deployerv1.CheckPushRequest{
		"neither":    {},
		"both":       {Branch: "main", Tag: "v1"},
		"short hash": {Branch: "main", NewCommit: docs[:10]},
		"old alone":  {Branch: "main", OldCommit: docs},
		"bad rules":  {Branch: "main", Rules: &deployerv1.AppRules{Paths: []string{"[a"}}},
		"bad branch": {Branch: "main", WatchedBranch: "a..b"},
	} {
		req.Workspace, req.App = workspace, "web"
		if _, err := b.client.CheckPush(b.member, req); !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if app := b.get("web"); app.GetLatest() != nil {
		t.Errorf("a dry run made a deployment: %v", app.GetLatest())
	}
}
