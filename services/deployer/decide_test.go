package deployer_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// apiAlone leaves the worker to [bench.work].
func apiAlone(c *deployer.Config) { c.Worker = false }

// work runs a worker beside the bench's api, as a process of its own; the function returned ends it.
func (b *bench) work() (cacheDir string, stop func()) {
	b.t.Helper()
	cfg := b.cfg
	cfg.API, cfg.Worker, cfg.CacheDir = false, true, b.t.TempDir()
	s, err := deployer.New(cfg, b.keyset)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				b.t.Errorf("worker: %v", err)
			}
		})
	}
	b.t.Cleanup(stop)
	return cfg.CacheDir, stop
}

func withPaths(paths ...string) *deployerv1.App {
	a := web(true)
	a.Rules = &deployerv1.AppRules{Paths: paths}
	return a
}

// outcomes are a delivery's, as they came, of one app.
func (b *bench) outcomes(delivery int32, app string) []*webhookv1.DeliveryOutcome {
	var out []*webhookv1.DeliveryOutcome
	b.world.do(func() {
		for _, o := range b.world.outcomes {
			if o.GetDelivery() == delivery && o.GetOutcome().GetApp() == app {
				out = append(out, o.GetOutcome())
			}
		}
	})
	return out
}

// undecided tells whether a delivery has heard that it is being decided about, and nothing else.
func (b *bench) undecided(delivery int32, app string) bool {
	out := b.outcomes(delivery, app)
	for _, o := range out {
		if o.GetKind() != webhookv1.DeliveryOutcome_DECIDING || o.GetReason() == "" {
			return false
		}
	}
	return len(out) > 0
}

func (b *bench) awaitUndecided(delivery int32, app string) {
	b.t.Helper()
	testkit.Eventually(b.t, timeout, func() error {
		if !b.undecided(delivery, app) {
			return fmt.Errorf("delivery %d: %v", delivery, b.outcomes(delivery, app))
		}
		return nil
	})
}

// A role without a disk decides what it can and leaves the rest, all of it, to the worker.
func TestDecide_theAPIFetchesNothing(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	b := newBench(t, apiAlone, func(c *deployer.Config) { c.CacheDir = none })
	first := b.repo.Commit("main", "zero", map[string]string{"site/a.html": "0", "docs/a.md": "0", "index.html": "0"})
	b.create("web", withPaths("site/**"))
	coded := web(true)
	coded.ConfigAsCode = true
	b.create("coded", coded)
	docs := b.repo.Commit("main", "docs", map[string]string{"site/a.html": "0", "docs/a.md": "1", "index.html": "0", ".devpilot.yaml": "version: 1\nrules:\n  paths: [nothing/**]\n"})
	turned := b.pushed("main", first, docs, "docs")
	b.awaitUndecided(turned, "web")
	b.awaitUndecided(turned, "coded")
	b.awaitSaid(turned, "No worker of server default is live")
	check := func() *deployerv1.CheckPushResponse {
		t.Helper()
		resp, err := b.client.CheckPush(b.member, &deployerv1.CheckPushRequest{Workspace: workspace, App: "coded", Branch: "main", OldCommit: first, NewCommit: docs})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if resp := check(); !resp.GetDeploys() || !strings.Contains(strings.Join(resp.GetNotes(), "\n"), "No worker of server default answered") {
		t.Errorf("without a worker: %v", resp)
	}
	// With given paths and no commit, nobody has to look.
	resp, err := b.client.CheckPush(b.member, &deployerv1.CheckPushRequest{Workspace: workspace, App: "web", Branch: "main", ChangedPaths: []string{"docs/a.md"}})
	if err != nil || resp.GetDeploys() || resp.GetReason() != "PATHS_UNCHANGED" {
		t.Errorf("with paths: %v %v", resp, err)
	}
	// Skipped by what the delivery says: but it came after one that waits, so that it does, too.
	site := b.repo.Commit("main", "site", map[string]string{"site/a.html": "1", "docs/a.md": "1", "index.html": "1"})
	deploys := b.pushed("main", docs, site, "site")
	b.awaitUndecided(deploys, "web")
	b.stopOne() // a replica that restarts forgets nothing
	b.start()

	cache, _ := b.work()
	b.awaitOutcome(turned, "web", "PATHS_UNCHANGED")
	b.awaitOutcome(turned, "coded", "PATHS_UNCHANGED")
	b.deploysAs(deploys, 1)
	if resp := check(); resp.GetDeploys() || resp.GetReason() != "PATHS_UNCHANGED" {
		t.Errorf("by the file of the commit: %v", resp)
	}
	if _, err := os.Lstat(none); !os.IsNotExist(err) {
		t.Errorf("the api made a cache directory (%v)", err)
	}
	if mirrors, _ := filepath.Glob(filepath.Join(cache, "mirrors", workspace, "*")); len(mirrors) != 1 {
		t.Errorf("the worker's mirrors: %v", mirrors)
	}
}

// Forty pushes whose git is silent, of five workspaces: nobody else's decision waits for theirs.
func TestDecide_silentGitsHoldUpNobodyElse(t *testing.T) {
	const stalled = 40
	b := newBench(t, func(c *deployer.Config) {
		c.DecisionTimeout, c.Limits.StallTime = time.Hour, time.Hour
	})
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	b.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/silent-") {
			select {
			case <-released:
			case <-r.Context().Done():
			}
		}
		return false
	})
	in := func(tenant string) context.Context {
		return testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: tenant, Role: identity.RoleAdmin})
	}
	// push makes an app of a repository of its own in a workspace, and pushes to it.
	pushes := 0
	push := func(tenant, repository string, a *deployerv1.App) (delivery int32) {
		t.Helper()
		pushes++
		id := fmt.Sprintf("85d08b4e-571d-44e9-a507-%012d", pushes)
		r := b.git.Repo("acme/" + repository)
		old := r.Commit("main", "zero", map[string]string{"site/a.html": "0", "index.html": "0"})
		b.world.do(func() { b.world.repositories[id] = "acme/" + repository })
		a.Repository = id
		if _, err := b.client.CreateApp(in(tenant), &deployerv1.CreateAppRequest{Workspace: tenant, AppId: repository, App: a}); err != nil {
			t.Fatal(err)
		}
		hash := r.Commit("main", "one", map[string]string{"site/a.html": "1", "index.html": "1"})
		return b.pushed("main", old, hash, "one", func(e *eventsv1.PushEvent) {
			e.Workspace, e.Repository, e.RepositoryFullName = tenant, id, "acme/"+repository
		})
	}
	silent := map[string]int32{}
	for i := range stalled {
		name := fmt.Sprintf("silent-%d", i)
		silent[name] = push([]string{workspace, "two", "three", "four", "five"}[i%5], name, withPaths("site/**"))
	}
	for name, delivery := range silent {
		b.awaitUndecided(delivery, name)
	}
	testkit.Eventually(t, timeout, func() error {
		if n := strings.Count(strings.Join(b.git.Requests(), "\n"), "/silent-"); n < stalled {
			return fmt.Errorf("git of %d is asked", n)
		}
		return nil
	})
	// Without rules that need git, in a workspace whose git is silent; and with them, in another.
	plain, ruled := push(workspace, "plain", web(true)), push("six", "ruled", withPaths("site/**"))
	b.awaitSaid(plain, "Deployed as #1")
	b.awaitSaid(ruled, "Deployed as #1")
	for name, delivery := range silent {
		if !b.undecided(delivery, name) {
			t.Errorf("%s was decided about while its git was silent: %v", name, b.outcomes(delivery, name))
		}
	}
	release()
	for _, delivery := range silent {
		b.awaitSaid(delivery, "Deployed as #1")
	}
}

// A commit that a rule turned away does not go live because the branch moved there: neither alone, nor
// together with what was pushed before it.
func TestDecide_whatWasTurnedAwayIsNotDeployedInPassing(t *testing.T) {
	b := newBench(t, apiAlone)
	tree := func(site, docs string) map[string]string {
		return map[string]string{"index.html": site + docs, "site/a.html": site, "docs/a.md": docs}
	}
	zero := b.repo.Commit("main", "zero", tree("0", "0"))
	b.create("web", withPaths("site/**"))
	wanted := b.repo.Commit("main", "wanted", tree("1", "0"))
	first := b.pushed("main", zero, wanted, "wanted")
	skipped := b.repo.Commit("main", "skipped [skip ci]", tree("2", "0"))
	second := b.pushed("main", wanted, skipped, "skipped [skip ci]")
	docs := b.repo.Commit("main", "docs", tree("2", "1"))
	third := b.pushed("main", skipped, docs, "docs")
	for _, delivery := range []int32{first, second, third} {
		b.awaitUndecided(delivery, "web")
	}
	b.work()
	b.awaitOutcome(second, "web", "SKIP_PHRASE")
	b.awaitOutcome(third, "web", "PATHS_UNCHANGED")
	d := b.deploysAs(first, 1)
	if d.GetCommit().GetHash() != wanted || b.live("web") != "10" {
		t.Errorf("live %q, %v", b.live("web"), d.GetCommit())
	}
	if n := b.latest("web"); n != 1 {
		t.Errorf("latest is %d", n)
	}
}

// What people do while a push waits for its decision counts.
func TestDecide_whatChangedMeanwhileCounts(t *testing.T) {
	b := newBench(t, apiAlone)
	next := 0
	push := func() int32 {
		t.Helper()
		next++
		old := b.repo.Head("main")
		content := fmt.Sprint(next)
		hash := b.repo.Commit("main", content, map[string]string{"index.html": content, "site/a.html": content})
		return b.pushed("main", old, hash, content)
	}
	b.repo.Commit("main", "zero", map[string]string{"index.html": "0", "site/a.html": "0"})
	for _, app := range []string{"web", "off", "moved", "gone"} {
		b.create(app, withPaths("site/**"))
	}
	_, stop := b.work()
	b.deploysAs(push(), 1)
	b.deploysAs(push(), 2)
	stop()
	delivery := push()
	for _, app := range []string{"web", "off", "moved", "gone"} {
		b.awaitUndecided(delivery, app)
	}
	if _, err := b.rollBack(1); err != nil {
		t.Fatal(err)
	}
	b.update("off", &deployerv1.App{}, "auto_deploy")
	b.update("moved", &deployerv1.App{Branch: "release"}, "branch")
	if _, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "gone"}); err != nil {
		t.Fatal(err)
	}
	b.work()
	b.await("web", 3, deployerv1.Deployment_COMPLETED)
	if words := b.awaitOutcome(delivery, "web", "OVERTAKEN"); !strings.Contains(words, "#3") {
		t.Errorf("%q", words)
	}
	b.awaitOutcome(delivery, "off", "AUTO_DEPLOY_OFF")
	b.awaitOutcome(delivery, "moved", "BRANCH_NOT_WATCHED")
	b.awaitOutcome(delivery, "gone", "APP_DELETED")
	if b.live("web") != "1" || b.latest("web") != 3 {
		t.Errorf("live %q, latest %d", b.live("web"), b.latest("web"))
	}
	b.deploysAs(push(), 4) // what comes after it deploys
}

// The same delivery, and the same push by another one, make no second deployment while the first waits.
func TestDecide_repeatsWhileAPushWaits(t *testing.T) {
	b := newBench(t, apiAlone)
	zero := b.repo.Commit("main", "zero", map[string]string{"index.html": "0", "site/a.html": "0"})
	b.create("web", withPaths("site/**"))
	hash := b.repo.Commit("main", "one", map[string]string{"index.html": "1", "site/a.html": "1"})
	first := b.pushed("main", zero, hash, "one")
	again := func(e *eventsv1.PushEvent) { e.Id, e.Delivery = fmt.Sprintf("hook-1.%d.0", first), first }
	b.pushed("main", zero, hash, "one", again)
	other := b.pushed("main", zero, hash, "one")
	b.awaitUndecided(first, "web")
	b.awaitUndecided(other, "web")
	b.work()
	b.deploysAs(first, 1)
	b.awaitSaid(other, "Deployed as #1")
	if n := b.latest("web"); n != 1 {
		t.Errorf("latest is %d", n)
	}
}

// A process without the role api says so.
func TestDecide_aWorkerServesNoAPI(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.API = false })
	_, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace})
	b.wantReason(err, apierr.ReasonServiceUnavailable)
}

// More pushes of one app may wait for a worker than its lane has room for. The oldest are then decided
// without the repository, in their order, as where git cannot be asked; none is lost, and another app
// of the repository does not notice.
func TestDecide_beyondWhatMayWaitTheOldestIsDecided(t *testing.T) {
	const beyond = 3
	b := newBench(t, apiAlone)
	zero := b.repo.Commit("main", "zero", map[string]string{"index.html": "0"})
	b.create("web", withPaths("site/**"))
	old := zero
	var deliveries []int32
	var hashes []string
	for i := range lane.MaxCandidates + beyond {
		hash := fmt.Sprintf("%040x", i+1)
		deliveries, hashes = append(deliveries, b.pushed("main", old, hash, "m")), append(hashes, hash)
		old = hash
	}
	for i, delivery := range deliveries[:beyond] {
		b.awaitSaid(delivery, fmt.Sprintf("Deployed as #%d", i+1))
		d, err := b.client.GetDeployment(b.member, &deployerv1.GetDeploymentRequest{Workspace: workspace, App: "web", Number: int32(i + 1)})
		if err != nil || d.GetDeployment().GetCommit().GetHash() != hashes[i] {
			t.Errorf("push %d is decided as %v (%v), want %s", i, d.GetDeployment().GetCommit(), err, hashes[i])
		}
	}
	for _, delivery := range deliveries[beyond:] {
		b.awaitUndecided(delivery, "web")
	}
	b.create("plain", web(true))
	b.awaitSaid(b.pushed("main", zero, b.repo.Commit("main", "one", map[string]string{"index.html": "1"}), "one"), "Deployed as #1")
	for _, delivery := range deliveries[beyond+1:] { // the last push took the place of one more
		if !b.undecided(delivery, "web") {
			t.Errorf("delivery %d: %v", delivery, b.outcomes(delivery, "web"))
		}
	}
}
