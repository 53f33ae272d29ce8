package emulator_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// pusher pushes and reads what is delivered.
type pusher struct {
	*fixture
	r    *receiver
	n    int
	refs map[string]string // before the last push
}

func newPusher(t *testing.T) *pusher {
	f := start(t)
	r := newReceiver(t, nil)
	f.hook("acme/web", r.URL, "s")
	return &pusher{fixture: f, r: r}
}

// tip is where main was before the last push.
func (p *pusher) tip() string { return p.refs["refs/heads/main"] }

func (p *pusher) pushed(changes ...emulator.RefChange) received {
	p.t.Helper()
	p.refs = must(p.control.Refs(p.t.Context(), "acme/web"))(p.t)
	p.push("acme/web", changes...)
	p.n++
	return p.r.wait(p.t, p.n)[p.n-1]
}

func (p *pusher) change(change emulator.RefChange) any {
	p.t.Helper()
	got := p.pushed(change)
	changes, _ := dig(got.json, "push", "changes").([]any)
	if len(changes) != 1 {
		p.t.Fatalf("%d changes in %s", len(changes), got.body)
	}
	return changes[0]
}

func commits(messages ...string) []emulator.CommitSpec {
	var list []emulator.CommitSpec
	for _, message := range messages {
		list = append(list, emulator.CommitSpec{Message: message, Files: map[string]string{"index.html": message}})
	}
	return list
}

func keysOf(value any) string {
	object, _ := value.(map[string]any)
	return strings.Join(slices.Sorted(maps.Keys(object)), " ")
}

func flags(change any) string {
	return fmt.Sprintf("created=%v closed=%v forced=%v truncated=%v",
		dig(change, "created"), dig(change, "closed"), dig(change, "forced"), dig(change, "truncated"))
}

func (p *pusher) expect(name string, got, want any) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s: %v, want %v", name, got, want)
	}
}

func TestPayload_topLevel(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	got := p.pushed(commitOn("main", "Change")).json
	p.expect("top level", keysOf(got), "actor push repository")
	// No slug, no mainbranch, no clone links (BITBUCKET.md#push-payload).
	p.expect("repository", keysOf(got["repository"]), "full_name is_private links name owner parent project scm type uuid website workspace")
	p.expect("repository links", keysOf(dig(got, "repository", "links")), "avatar html self")
	p.expect("repository uuid", dig(got, "repository", "uuid"), "{"+emulator.SeededUUID("repository", "acme/web")+"}")
	p.expect("workspace", keysOf(dig(got, "repository", "workspace")), "links name slug type uuid")
	p.expect("actor", keysOf(got["actor"]), "account_id display_name links nickname type uuid")
	p.expect("actor nickname", dig(got, "actor", "nickname"), "Jane")
}

func TestPayload_case1_update(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	change := p.change(emulator.RefChange{Branch: "main", Commits: commits("First", "Second")})
	old, tip := p.tip(), must(p.control.Refs(t.Context(), "acme/web"))(t)["refs/heads/main"]
	p.expect("keys", keysOf(change), "closed commits created forced links new old truncated")
	p.expect("flags", flags(change), "created=false closed=false forced=false truncated=false")
	p.expect("old", dig(change, "old", "target", "hash"), old)
	p.expect("new", dig(change, "new", "target", "hash"), tip)
	p.expect("name", dig(change, "new", "name"), "main")
	p.expect("type", dig(change, "new", "type"), "branch")
	p.expect("ref keys", keysOf(dig(change, "new")), "default_merge_strategy links merge_strategies name sync_strategies target type")
	p.expect("ref links", keysOf(dig(change, "new", "links")), "commits html pullrequest_create self")
	p.expect("target keys", keysOf(dig(change, "new", "target")), "author committer date hash links message parents properties rendered summary type")
	p.expect("target links", keysOf(dig(change, "new", "target", "links")), "html self")
	p.expect("message", dig(change, "new", "target", "message"), "Second\n")
	p.expect("author", dig(change, "new", "target", "author", "raw"), "Jane Developer <jane@example.test>")
	p.expect("author user", dig(change, "new", "target", "author", "user", "nickname"), "Jane")
	p.expect("date zone", strings.HasSuffix(dig(change, "new", "target", "date").(string), "+00:00"), true)
	p.expect("commits", len(dig(change, "commits").([]any)), 2)
	p.expect("newest first", dig(change, "commits", 0, "hash"), tip)
	p.expect("parent", dig(change, "commits", 1, "parents", 0, "hash"), old)
	p.expect("commit links", keysOf(dig(change, "commits", 0, "links")), "approve comments diff html patch self statuses")
	api, site := p.server.APIURL()+"/repositories/acme/web", p.server.SiteURL()+"/acme/web"
	p.expect("links.commits", dig(change, "links", "commits", "href"), api+"/commits?include="+tip+"&exclude="+old)
	p.expect("links.diff", dig(change, "links", "diff", "href"), api+"/diff/"+tip+".."+old)
	p.expect("links.html", dig(change, "links", "html", "href"), site+"/branches/compare/"+tip+".."+old)
}

func TestPayload_case2_createBranch(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	change := p.change(emulator.RefChange{Branch: "feature/new", From: "main"})
	tip := p.tip()
	p.expect("flags", flags(change), "created=true closed=false forced=false truncated=false")
	p.expect("old", dig(change, "old"), nil)
	p.expect("has old", has(change, "old"), true)
	p.expect("name", dig(change, "new", "name"), "feature/new")
	p.expect("commits known elsewhere", len(dig(change, "commits").([]any)), 3)
	p.expect("links", keysOf(dig(change, "links")), "commits html")
	p.expect("links.commits", dig(change, "links", "commits", "href"), p.server.APIURL()+"/repositories/acme/web/commits?include="+tip)
	p.expect("links.html", dig(change, "links", "html", "href"), p.server.SiteURL()+"/acme/web/branch/feature/new")
}

func TestPayload_case3_deleteBranch(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	change := p.change(emulator.RefChange{Branch: "develop", Delete: true})
	p.expect("keys", keysOf(change), "closed created forced new old truncated")
	p.expect("flags", flags(change), "created=false closed=true forced=false truncated=false")
	p.expect("new", dig(change, "new"), nil)
	p.expect("old", dig(change, "old", "target", "message"), "Try a new title\n")
}

func TestPayload_case4_createTag(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	light := p.change(emulator.RefChange{Tag: "light", From: "main"})
	tip := p.tip()
	p.expect("keys", keysOf(light), "closed created forced links new old truncated")
	p.expect("flags", flags(light), "created=true closed=false forced=false truncated=false")
	p.expect("type", dig(light, "new", "type"), "tag")
	p.expect("links", keysOf(dig(light, "links")), "commits")
	p.expect("tag keys", keysOf(dig(light, "new")), "date links message name tagger target type")
	p.expect("tag links", keysOf(dig(light, "new", "links")), "commits html self")
	p.expect("message", dig(light, "new", "message"), nil)

	annotated := p.change(emulator.RefChange{Tag: "v2", From: "main", Annotation: "Release 2"})
	p.expect("peeled target", dig(annotated, "new", "target", "hash"), tip)
	p.expect("target type", dig(annotated, "new", "target", "type"), "commit")
	p.expect("message", dig(annotated, "new", "message"), "Release 2\n")
	p.expect("tagger", dig(annotated, "new", "tagger", "raw"), "Jane Developer <jane@example.test>")
	p.expect("date", dig(annotated, "new", "date") != nil, true)
}

func TestPayload_case5_deleteTag(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	change := p.change(emulator.RefChange{Tag: "v1.0", Delete: true})
	p.expect("keys", keysOf(change), "closed created forced new old truncated")
	p.expect("flags", flags(change), "created=false closed=true forced=false truncated=false")
	p.expect("old message", dig(change, "old", "message"), "Release 1.0\n")
	p.expect("old target", dig(change, "old", "target", "type"), "commit")
}

func TestPayload_case6_forcedAndTruncated(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	change := p.change(emulator.RefChange{Branch: "main", From: "main~1", Commits: commits("1", "2", "3", "4", "5", "6")})
	old := p.tip()
	p.expect("flags", flags(change), "created=false closed=false forced=true truncated=true")
	p.expect("old", dig(change, "old", "target", "hash"), old)
	p.expect("commits", len(dig(change, "commits").([]any)), 5)
	p.expect("newest", dig(change, "commits", 0, "message"), "6\n")
	p.expect("links", keysOf(dig(change, "links")), "commits html")
	p.expect("links.html", dig(change, "links", "html", "href"), p.server.SiteURL()+"/acme/web/branch/main")

	back := p.change(emulator.RefChange{Branch: "main", From: old})
	p.expect("flags", flags(back), "created=false closed=false forced=true truncated=false")
	p.expect("new", dig(back, "new", "target", "hash"), old)

	// A fast forward of exactly five commits is not truncated.
	five := p.change(emulator.RefChange{Branch: "main", Commits: commits("1", "2", "3", "4", "5")})
	p.expect("flags", flags(five), "created=false closed=false forced=false truncated=false")
}

// TestPayload_case7_severalRefsInOneDelivery pushes with the git program.
func TestPayload_case7_severalRefsInOneDelivery(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	g := newGit(t, "jane-dev", "jane-dev-password")
	dir := g.clone(p.remote("acme/web"))
	g.write(dir, "index.html", "Change")
	g.run(dir, "commit", "--quiet", "--all", "--message", "Change")
	g.run(dir, "tag", "v3")
	g.run(dir, "tag", "--force", "--annotate", "--message", "Again", "v1.0")
	g.run(dir, "push", "--quiet", "origin", "main", "+main:refs/heads/develop", "main:refs/heads/release/1.0",
		":refs/heads/feature/login", "main:refs/heads/new", "refs/tags/v3", "+refs/tags/v1.0")
	got := p.r.wait(t, 1)[0]
	changes, _ := dig(got.json, "push", "changes").([]any)
	summary := map[string]string{}
	for _, change := range changes {
		side := "new"
		if dig(change, "new") == nil {
			side = "old"
		}
		summary[fmt.Sprint(dig(change, side, "type"), " ", dig(change, side, "name"))] = flags(change)
	}
	want := map[string]string{
		"branch main":          "created=false closed=false forced=false truncated=false",
		"branch develop":       "created=false closed=false forced=true truncated=false",
		"branch release/1.0":   "created=false closed=false forced=false truncated=false",
		"branch feature/login": "created=false closed=true forced=false truncated=false",
		"branch new":           "created=true closed=false forced=false truncated=false",
		"tag v3":               "created=true closed=false forced=false truncated=false",
		"tag v1.0":             "created=false closed=false forced=true truncated=false",
	}
	if !maps.Equal(summary, want) {
		t.Errorf("got %v", summary)
	}
	p.expect("actor", dig(got.json, "actor", "nickname"), "Jane")
}

func TestPayload_case9_movedTag(t *testing.T) {
	t.Parallel()
	p := newPusher(t)
	change := p.change(emulator.RefChange{Tag: "v1.0", From: "develop"})
	p.expect("flags", flags(change), "created=false closed=false forced=true truncated=false")
	p.expect("old type", dig(change, "old", "type"), "tag")
	p.expect("old message", dig(change, "old", "message"), "Release 1.0\n")
	p.expect("new type", dig(change, "new", "type"), "tag")
	p.expect("new message", dig(change, "new", "message"), nil)
	p.expect("has commits", has(change, "commits"), false)
}

func TestPayload_fiftyBranchesThroughControl(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, nil)
	f.hook("acme/web", r.URL, "s")
	branches := func(prefix string, n int) (changes []emulator.RefChange) {
		for i := range n {
			changes = append(changes, emulator.RefChange{Branch: fmt.Sprintf("%s/%02d", prefix, i), From: "main"})
		}
		return changes
	}
	if results := f.push("acme/web", branches("few", 10)...); len(results) != 10 {
		t.Fatalf("%d refs changed", len(results))
	}
	if got := r.wait(t, 1)[0]; len(dig(got.json, "push", "changes").([]any)) != 10 {
		t.Errorf("got %s", got.body)
	}
	// 50 changes of three commits each are more than 256 KB: Bitbucket stays silent (BITBUCKET.md#delivery-size), and so does this.
	f.push("acme/web", branches("many", 50)...)
	f.must(f.control.WaitIdle(t.Context()))
	attempts := f.deliveries("")
	if last := attempts[len(attempts)-1]; len(attempts) != 2 || last.Outcome != emulator.OutcomeDropped || len(r.got()) != 1 {
		t.Errorf("outcome %s, %d bytes", last.Outcome, len(last.Body))
	}
}

func TestControlPush_chainsAndRefusals(t *testing.T) {
	t.Parallel()
	f := start(t)
	results := f.push("acme/empty",
		emulator.RefChange{Branch: "main", Commits: []emulator.CommitSpec{{Message: "One", Files: map[string]string{"a": "1"}}, {Message: "Two", Files: map[string]string{"dir/b": "2"}, Remove: []string{"a"}}}},
		emulator.RefChange{Branch: "next", From: "main", Commits: []emulator.CommitSpec{{Message: "Three"}}},
		emulator.RefChange{Tag: "v1", From: "next", Annotation: "Release"},
	)
	if len(results) != 3 || results[0].Old != "" {
		t.Fatalf("got %+v", results)
	}
	g := newGit(t, "jane-dev", "jane-dev-password")
	dir := g.clone(f.remote("acme/empty"), "--branch=next")
	if log := g.run(dir, "log", "--format=%s"); log != "Three\nTwo\nOne" {
		t.Errorf("log %q", log)
	}
	if files := g.run(dir, "ls-files"); files != "dir/b" {
		t.Errorf("files %q", files)
	}
	if again := f.push("acme/empty", emulator.RefChange{Branch: "next", From: "next"}); len(again) != 0 {
		t.Errorf("nothing changed, but %+v", again)
	}
	f.push("acme/empty", emulator.RefChange{Branch: "next", From: "next~1"}, emulator.RefChange{Branch: "island", Orphan: true, Commits: []emulator.CommitSpec{{Message: "Alone"}}})
	for name, change := range map[string]emulator.RefChange{
		"neither":       {},
		"both":          {Branch: "a", Tag: "b"},
		"bad name":      {Branch: "a b", From: "main"},
		"no such start": {Branch: "x", From: "nothing"},
		"option":        {Branch: "x", From: "--all"},
		"delete absent": {Branch: "absent", Delete: true},
		"bad path":      {Branch: "main", Commits: []emulator.CommitSpec{{Message: "x", Files: map[string]string{"a\nb": ""}}}},
	} {
		if _, err := f.control.Push(t.Context(), "acme/empty", "", change); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
