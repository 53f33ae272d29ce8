package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// ground is one installation with a Bitbucket of its own, on which stories of trouble run beside each
// other.
type ground struct {
	*shared
	dir  string
	told *report
	// making bounds how many stories prepare themselves at a time.
	making chan struct{}
	// common is the workspace of stories about single repositories.
	common *tenant
}

// openGround starts the product and an emulator, with further settings of the product.
func openGround(t *testing.T, told *report, env ...string) *ground {
	t.Helper()
	listen := loopback(t)
	address := onLocalhost("http://" + listen)
	server, err := emulator.Start(listen, emulator.Options{
		SiteURL: address, DataDir: t.TempDir(), Consumer: consumer, Scenario: "sample",
		// A used refresh token lives on for ten minutes, as on Atlassian's platform: an answer may be lost.
		Tokens: emulator.TokenOptions{Rotate: true, Grace: 10 * time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("stop the emulator: %v", err)
		}
	})
	bucket := &site{address: address, Control: server.Control(), secrets: map[string]string{}}
	dir := filepath.Join(testkit.FastDir(t), "data")
	d, at := startDaemon(t, dir, append(env,
		"DEVPILOT_BITBUCKET_CLIENT_ID="+consumer.Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE="+secretFile(t),
		"DEVPILOT_BITBUCKET_SITE_URL="+bucket.address, "DEVPILOT_BITBUCKET_API_URL="+bucket.address+"/2.0",
		"DEVPILOT_WORKER_LEASE="+workerLease.String(), "DEVPILOT_RECONCILE_INTERVAL=5s", "DEVPILOT_RECONCILE_GRACE=5s")...) // polling fifty repositories each second keeps a small machine busy with git alone
	if err := bucket.SetCallbackURL(t.Context(), at+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	token, err := allinone.ReadAdminToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{dir: dir, told: told, making: make(chan struct{}, 3)}
	g.shared = &shared{stack: &outside{daemon: d, bucket: bucket, address: at, token: token.Reveal()}, planted: map[string]string{}}
	g.owner = newBrowser(t, at).signIn(token.Reveal())
	g.common = g.connected(t, "common", "common")
	return g
}

// connected makes a workspace that is connected to an account, which it makes too.
func (g *ground) connected(t *testing.T, workspace, account string) *tenant {
	t.Helper()
	if _, err := g.site().PutAccount(t.Context(), account, emulator.Account{}); err != nil {
		t.Fatal(err)
	}
	n := g.unconnected(t, workspace)
	g.connect(n, account)
	return n
}

// connect has an account grant access, as one person in one browser.
func (g *ground) connect(n *tenant, account string) {
	n.t.Helper()
	_, at := n.api.open(n.api.begin(n.workspace))
	if _, at = n.api.post(at, url.Values{"account": {account}, "action": {"grant"}}); at.Query().Get("bitbucket") != "connected" {
		n.t.Fatalf("connecting %s ended at %s", n.workspace, at)
	}
}

// attempt tries to connect, which may end anywhere.
func (g *ground) attempt(n *tenant, account string) {
	n.t.Helper()
	visit := func(method, address string, form url.Values) *url.URL {
		req, err := http.NewRequestWithContext(n.t.Context(), method, address, strings.NewReader(form.Encode()))
		if err != nil {
			n.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := n.api.http.Do(req)
		if err != nil {
			return nil
		}
		_ = answer.Body.Close()
		return answer.Request.URL
	}
	if at := visit(http.MethodGet, n.api.begin(n.workspace), nil); at != nil {
		visit(http.MethodPost, at.String(), url.Values{"account": {account}, "action": {"grant"}})
	}
}

// shows tells what page of an app is live.
func (g *ground) shows(n *tenant, app string) string {
	page, err := os.ReadFile(filepath.Join(g.dir, "apps", n.workspace, app, "current", "index.html"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(page))
}

// appears waits until a page is live in an app, and tells for how long it waited.
func (g *ground) appears(n *tenant, app, page string, within time.Duration) time.Duration {
	n.t.Helper()
	began := time.Now()
	testkit.Eventually(n.t, within, func() error {
		if got := g.shows(n, app); got != page {
			return fmt.Errorf("%s of %s shows %q, want %q: %s", app, n.workspace, got, page, brief(n.deployments(app)))
		}
		return nil
	})
	return time.Since(began)
}

// repository makes a repository that jane pushes to and an account deploys from.
func (g *ground) repository(t *testing.T, slug, account string) repository {
	t.Helper()
	made, err := g.site().PutRepository(t.Context(), "acme/"+slug, emulator.RepositoryInput{
		Name: slug, Seed: "site", Permissions: map[string]string{jane: "admin", account: "admin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return repository{name: "acme/" + slug, id: made.UUID}
}

// tellAll opens a ground and tells its stories at the same time, beside an app that is well.
func tellAll(t *testing.T, stories []trouble, lengths []length, told *report) {
	g := openGround(t, told)
	stop := make(chan struct{})
	var bystander, all sync.WaitGroup
	bystander.Go(func() { t.Run("well", func(t *testing.T) { g.well(t, stop) }) })
	var ofSite, others []trouble
	for _, one := range stories {
		if one.plane == pages {
			ofSite = append(ofSite, one)
		} else {
			others = append(others, one)
		}
	}
	all.Go(func() {
		for _, next := range longestFirst(others, lengths) {
			g.making <- struct{}{}
			all.Go(func() {
				told := false
				t.Run(next.name, func(t *testing.T) {
					told = true // prepare gives the place back
					g.tell(t, next.trouble, next.lengths)
				})
				if !told { // it was not asked for
					<-g.making
				}
			})
		}
	})
	for _, one := range ofSite { // pages are nobody's: one after the other
		t.Run(one.name(), func(t *testing.T) { g.tellOfSite(t, one, lengths) })
	}
	all.Wait()
	close(stop)
	bystander.Wait()
}

// telling is a story for some lengths of time.
type telling struct {
	trouble
	name    string
	lengths []length
}

// longestFirst orders stories so that all of them end soon: those that are told until a refusal is believed come
// first. A token that was issued a moment ago does not expire: of tokens each length is a story, the longest first.
func longestFirst(stories []trouble, lengths []length) []telling {
	var list []telling
	for _, one := range stories {
		if one.plane != tokens {
			list = append(list, telling{trouble: one, name: one.name(), lengths: lengths})
			continue
		}
		for _, l := range lengths {
			list = append(list, telling{trouble: one, name: one.name() + " " + string(l), lengths: []length{l}})
		}
	}
	slices.SortStableFunc(list, func(a, b telling) int {
		return cmp.Compare(b.rank(), a.rank())
	})
	return list
}

// rank is higher for what takes longer.
func (x telling) rank() int {
	if x.doubtful {
		return len(order)
	}
	return slices.Index(order, x.lengths[len(x.lengths)-1])
}

// well pushes to an app that nothing is wrong with, of the common workspace, as long as there is trouble
// elsewhere.
func (g *ground) well(t *testing.T, stop <-chan struct{}) {
	n := *g.common
	n.t, n.api = t, g.owner.with(t)
	repo := g.repository(t, "well", "common")
	n.appWhenAllowed("well", repo, "main")
	var worst time.Duration
	for count := 1; ; count++ {
		page := fmt.Sprintf("well %d", count)
		g.site().commit(t, repo, "main", page)
		worst = max(worst, g.appears(&n, "well", page, usual))
		select {
		case <-stop:
			g.told.add("%-22s %d pushes meanwhile, the slowest live after %v", t.Name()[strings.LastIndexByte(t.Name(), '/')+1:], count, worst.Round(time.Millisecond))
			return
		case <-time.After(2 * time.Second): // beside the trouble, not instead of it
		}
	}
}

// tellOfSite has the site's pages in trouble while somebody connects.
func (g *ground) tellOfSite(t *testing.T, x trouble, lengths []length) {
	slug := strings.ReplaceAll(x.name(), " ", "-")
	if _, err := g.site().PutAccount(t.Context(), slug, emulator.Account{}); err != nil {
		t.Fatal(err)
	}
	for i, l := range lengths {
		n := g.unconnected(t, fmt.Sprintf("%s-%s", slug, l))
		ids := g.inject(t, x.faults, func(*emulator.Fault) {})
		for range i + 1 {
			g.attempt(n, slug)
		}
		g.lift(t, ids)
		g.connect(n, slug)
		if got := n.api.get(n.path("/integrations/bitbucket"))["state"]; got != "CONNECTED" {
			t.Errorf("after %s the connection is %v", l, got)
		}
		g.told.add("%-22s %-6s connected at once", x.name(), l)
	}
}

func (g *ground) inject(t *testing.T, faults []emulator.Fault, about func(*emulator.Fault)) (ids []string) {
	t.Helper()
	for _, fault := range faults {
		about(&fault)
		id, err := g.site().Inject(t.Context(), fault)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// lift ends faults, and tells how often they were met.
func (g *ground) lift(t *testing.T, ids []string) (hits int) {
	t.Helper()
	left := g.left(t)
	for _, id := range ids {
		fault, there := left[id]
		if !there { // used up
			hits++
			continue
		}
		hits += fault.Hits
		if err := g.site().RemoveFault(t.Context(), id); err != nil && !strings.Contains(err.Error(), fmt.Sprint(http.StatusNotFound)) {
			t.Fatal(err)
		}
	}
	return hits
}

// left are the faults that are still there.
func (g *ground) left(t *testing.T) map[string]emulator.Fault {
	t.Helper()
	list, err := g.site().Faults(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]emulator.Fault{}
	for _, fault := range list {
		left[fault.ID] = fault
	}
	return left
}
