package e2e

import (
	"fmt"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// onBranch is a change that adds one commit with a file to a branch.
func onBranch(branch, text string) emulator.RefChange {
	return emulator.RefChange{Branch: branch, Commits: []emulator.CommitSpec{{Message: text, Files: map[string]string{"index.html": text + "\n"}}}}
}

// outcomesByRef are the outcomes of a delivery by the ref that they are about.
func outcomesByRef(t *testing.T, delivery object) map[string][]object {
	t.Helper()
	changes, byRef := objects(delivery["changes"]), map[string][]object{}
	for _, o := range objects(delivery["outcomes"]) {
		change, ok := o["change"].(float64)
		if !ok || int(change) >= len(changes) {
			t.Fatalf("outcome %v is about no change of %v", o, changes)
		}
		ref := fmt.Sprint(changes[int(change)]["ref"])
		byRef[ref] = append(byRef[ref], o)
	}
	return byRef
}

// manyChanges pushes two watched branches, a new one, a deletion and a tag at once.
func manyChanges(t *testing.T, s *shared) {
	repo := s.site().repository(t, "many-changes", "site")
	n := s.tenant(t, "many-changes")
	app := n.app("on-main", repo, "main")
	n.app("on-develop", repo, "develop")

	s.site().push(t, repo, onBranch("main", "one"), onBranch("develop", "two"), onBranch("brand-new", "three"),
		emulator.RefChange{Branch: "release/1.0", Delete: true}, emulator.RefChange{Tag: "v2.0", From: "main"})
	n.live("on-main", s.site().head(t, repo, "main"))
	n.live("on-develop", s.site().head(t, repo, "develop"))

	webhook := fmt.Sprint(dig(app, "webhook", "id"))
	delivery := n.delivery(webhook, 1, 5)
	byRef := outcomesByRef(t, delivery)
	for ref, want := range map[string]struct{ app, kind, words string }{
		"main":        {"on-main", "DEPLOYMENT", "#1"},
		"develop":     {"on-develop", "DEPLOYMENT", "#1"},
		"brand-new":   {"", "IGNORED", "not watched"},
		"release/1.0": {"", "IGNORED", "not watched"},
		"v2.0":        {"", "IGNORED", "no app of this repository deploys tags"},
	} {
		got := byRef[ref]
		if len(got) != 1 || got[0]["app"] != want.app && want.app != "" || got[0]["kind"] != want.kind || !strings.Contains(fmt.Sprint(got[0]["message"]), want.words) {
			t.Errorf("the outcome of %s is %v, want %+v", ref, got, want)
		}
	}
	for _, id := range []string{"on-main", "on-develop"} {
		if list := n.settled(id); len(list) != 1 {
			t.Errorf("%s has %d deployments, want one: %s", id, len(list), brief(list))
		}
		seen := objects(n.api.get(n.path("/apps/%s/deliveries", id))["deliveries"])
		if len(seen) != 1 {
			t.Fatalf("%s has %d deliveries, want one", id, len(seen))
		}
		for _, o := range objects(seen[0]["outcomes"]) {
			if o["app"] != id && o["app"] != nil && o["app"] != "" {
				t.Errorf("the deliveries of %s show an outcome of another app: %v", id, o)
			}
		}
	}
}

// pushShapes pushes everything that is not simply one more commit.
func pushShapes(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "shapes", "site")
	n := s.tenant(t, "shapes")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))

	// Forced: history is rewritten.
	forced := onBranch("main", "rewritten")
	forced.From = "main~1"
	site.push(t, repo, forced)
	a := site.head(t, repo, "main")
	n.live("web", a)
	if d := n.delivery(webhook, 1, 1); objects(d["changes"])[0]["forced"] != true {
		t.Errorf("the forced push is shown as %v", d["changes"])
	}

	// A, B, A: going back is a push like any other.
	b := site.commit(t, repo, "main", "second thoughts")
	n.live("web", b)
	site.push(t, repo, emulator.RefChange{Branch: "main", From: a})
	if d := n.live("web", a); d["number"] != 3.0 {
		t.Errorf("going back to A is deployment %v, want 3: %s", d["number"], brief(n.deployments("web")))
	}
	// And in haste: B and A again before anything is deployed.
	site.push(t, repo, emulator.RefChange{Branch: "main", From: b})
	site.push(t, repo, emulator.RefChange{Branch: "main", From: a})
	n.delivery(webhook, 5, 1)
	list := n.settled("web")
	for _, d := range list {
		if d["state"] != "COMPLETED" && d["state"] != "SUPERSEDED" {
			t.Errorf("after A, B, A deployment %v is %v", d["number"], d["state"])
		}
	}
	if app := n.api.get(n.path("/apps/web")); dig(app, "live", "commit", "hash") != a {
		t.Errorf("after A, B, A %v is live, want %s: %s", dig(app, "live", "commit", "hash"), a, brief(list))
	}

	fiftyBranches(t, n, repo, webhook)
	emptyChanges(t, n, repo, webhook)
}

// fiftyBranches pushes fifty new branches, one of them watched before it exists.
func fiftyBranches(t *testing.T, n *tenant, repo repository, webhook string) {
	t.Helper()
	app := n.app("one-of-fifty", repo, "b-25")
	if warnings := objects(app["warnings"]); len(warnings) != 1 || warnings[0]["reason"] != "BRANCH_NOT_FOUND" {
		t.Errorf("an app on a branch that does not exist yet has warnings %v", warnings)
	}
	before := len(n.settled("web"))
	var changes []emulator.RefChange
	for i := range 50 {
		// One commit each: Bitbucket sends no payload above 256 KB (BITBUCKET.md#delivery-size).
		change := onBranch(fmt.Sprintf("b-%02d", i), "one of fifty")
		change.Orphan, change.Commits[0].AuthorName, change.Commits[0].AuthorEmail = true, "J", "j@example.test"
		changes = append(changes, change)
	}
	n.site().push(t, repo, changes...)
	attempts, err := n.site().Deliveries(t.Context(), onlyHook(t, n.site(), repo), 0)
	if err != nil {
		t.Fatal(err)
	}
	if last := attempts[len(attempts)-1]; last.Outcome == emulator.OutcomeDropped {
		t.Fatalf("Bitbucket does not deliver so large a push: %s", last.Error)
	}
	n.live("one-of-fifty", n.site().head(t, repo, "b-25"))
	byRef := outcomesByRef(t, n.delivery(webhook, 6, 50))
	for i := range 50 {
		ref, want := fmt.Sprintf("b-%02d", i), "IGNORED"
		if i == 25 {
			want = "DEPLOYMENT"
		}
		if got := byRef[ref]; len(got) != 1 || got[0]["kind"] != want {
			t.Errorf("the outcome of %s is %v, want %s", ref, got, want)
		}
	}
	if a, b := len(n.settled("one-of-fifty")), len(n.settled("web"))-before; a != 1 || b != 0 {
		t.Errorf("fifty branches made %d deployments of the one that is watched and %d of another", a, b)
	}
}

// emptyChanges receives deliveries that do not say what changed: Devpilot looks for itself.
func emptyChanges(t *testing.T, n *tenant, repo repository, webhook string) {
	t.Helper()
	if _, err := n.site().Inject(t.Context(), emulator.Fault{Kind: emulator.FaultEmptyChanges, Repository: repo.name, Times: 1}); err != nil {
		t.Fatal(err)
	}
	hash := n.site().commit(t, repo, "main", "nobody says so")
	n.live("web", hash)
	if d := n.delivery(webhook, 7, 1); objects(d["outcomes"])[0]["kind"] != "DEPLOYMENT" {
		t.Errorf("the outcome of an empty list of changes: %v", d["outcomes"])
	}
	if count, err := n.site().Deliver(t.Context(), repo.name, "repo:push", nil); err != nil || count != 1 {
		t.Fatalf("deliver: %d, %v", count, err)
	}
	d := n.delivery(webhook, 8, 1)
	if o := objects(d["outcomes"])[0]; o["kind"] != "IGNORED" || !strings.Contains(fmt.Sprint(o["message"]), "no watched branch had moved") {
		t.Errorf("the outcome of a push of nothing: %v", o)
	}
}

// firstPush pushes into a repository that was empty when the app was saved.
func firstPush(t *testing.T, s *shared) {
	repo := s.site().repository(t, "first-push", "")
	n := s.tenant(t, "first-push")
	app := n.app("web", repo, "main")
	if warnings := objects(app["warnings"]); len(warnings) != 1 || warnings[0]["reason"] != "BRANCH_NOT_FOUND" {
		t.Errorf("an app on an empty repository has warnings %v", warnings)
	}
	c := &checkout{t: t, dir: t.TempDir()}
	c.git("init", "--quiet", "--initial-branch", "main")
	hash := c.commit("index.html", "first\n")
	c.git("push", "--quiet", s.site().remote(t, repo), "main")
	n.live("web", hash)
	if list := n.settled("web"); len(list) != 1 {
		t.Errorf("the first push made %s", brief(list))
	}
	if got := n.api.get(n.path("/apps/web"))["warnings"]; len(asList(got)) != 0 {
		t.Errorf("warnings after the branch exists: %v", got)
	}
}
