package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

var (
	chaosFor  = flag.Duration("chaos.for", 0, "how long trouble goes on; zero is once through all kinds")
	chaosSeed = flag.Uint64("chaos.seed", 0, "the order of the trouble; zero is another one each time")
)

const (
	// halves is how many workspaces have trouble at the same time, each of its own.
	halves = 2
	// reposOfHalf is how many repositories a half has; two apps watch two branches of each.
	reposOfHalf = 2
	// truthful is how long a light may be behind what is so, on a busy machine: the interval of looking
	// is a second here.
	truthful = 20 * time.Second
)

// TestChaos has people push to two workspaces of one installation while each has trouble of every kind,
// one after the other, in an order that the seed gives: Bitbucket is down, slow, wrong or says 429;
// deliveries are dropped, doubled, late or out of order; webhooks are deleted, changed and deactivated;
// access is revoked; and in the end the public URL changes. While it lasts no light is green that should
// not be: what is not live is not called in sync, and a webhook that is not right is not called active.
// After it, within a minute, all that was pushed last is live, the lights are green, and a push is
// delivered again.
//
// make chaos runs it for an hour.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-chaos.seed=%d", seed)
	told := &tally{}
	defer func() { t.Logf("\n%s", told) }()
	store := testkit.RealRedis(t)
	calls := store.Client()
	g := openGround(t, &report{}, "DEVPILOT_REDIS_URL="+store.URL())
	until := time.Now().Add(*chaosFor)
	var all sync.WaitGroup
	list := make([]*half, halves)
	for i := range list {
		list[i] = g.half(t, fmt.Sprintf("half-%d", i+1), rand.New(rand.NewPCG(seed, uint64(i))), told)
	}
	for _, h := range list {
		all.Go(func() {
			t.Run(h.workspace, func(t *testing.T) {
				h.on(t)
				for round := 0; round == 0 || time.Now().Before(until); round++ {
					// A round in minutes makes the calls of hours: those of Bitbucket's budget are forgotten.
					forgetCalls(t, calls)
					for _, i := range h.rnd.Perm(len(chaosKinds)) {
						h.suffer(chaosKinds[i])
					}
				}
			})
		})
	}
	all.Wait()
	t.Run("the public URL changes", func(t *testing.T) { g.move(t, list, told) })
}

// forgetCalls has it that no call to Bitbucket was made in the last hour, and leaves alone what else is in Redis.
func forgetCalls(t *testing.T, store redis.UniversalClient) {
	t.Helper()
	keys, err := store.Keys(t.Context(), "rate:*budget*").Result()
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) == 0 {
		return // none was made yet
	}
	if err := store.Del(t.Context(), keys...).Err(); err != nil {
		t.Error(err)
	}
}

// tally is how long it took, of each kind of trouble, until all was well after its end. It is safe for
// concurrent use.
type tally struct {
	mu    sync.Mutex
	kinds map[string][]time.Duration
}

func (c *tally) add(kind string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds == nil {
		c.kinds = map[string][]time.Duration{}
	}
	c.kinds[kind] = append(c.kinds[kind], took)
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-26s %5s %10s %10s\n", "all well after", "times", "median", "longest")
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		list := slices.Sorted(slices.Values(c.kinds[kind]))
		fmt.Fprintf(&b, "%-26s %5d %10v %10v\n", kind, len(list), list[len(list)/2].Round(10*time.Millisecond), list[len(list)-1].Round(10*time.Millisecond))
	}
	return b.String()
}

// half is a workspace that has trouble, with an account of its own.
type half struct {
	*tenant
	t       *testing.T
	g       *ground
	rnd     *rand.Rand
	told    *tally
	account string
	repos   []repository
	pages   map[string]string // app → what was pushed last to its branch
	pushed  int
	// had is how often a repository had a kind of trouble, by both names, and lastHad when last.
	had     map[string]int
	lastHad map[string]time.Time
}

// chaosBranches are what the two apps of a repository watch.
var chaosBranches = []string{"main", "develop"}

// app names the app of a branch.
func (*half) app(repo repository, branch string) string {
	return strings.TrimPrefix(repo.name, "acme/") + "-" + branch
}

func (g *ground) half(t *testing.T, name string, rnd *rand.Rand, told *tally) *half {
	t.Helper()
	h := &half{tenant: g.connected(t, name, name), t: t, g: g, rnd: rnd, told: told, account: name, pages: map[string]string{}, had: map[string]int{}, lastHad: map[string]time.Time{}}
	for i := range reposOfHalf {
		repo := g.repository(t, fmt.Sprintf("%s-%d", name, i+1), name)
		h.repos = append(h.repos, repo)
		for _, branch := range chaosBranches {
			h.tenant.app(h.app(repo, branch), repo, branch)
		}
		h.push(repo)
	}
	h.becomes("before all trouble", recovery, h.well)
	return h
}

// on has what follows belong to a test of its own.
func (h *half) on(t *testing.T) {
	n := *h.tenant
	n.t, n.api = t, h.g.owner.with(t)
	h.tenant, h.t = &n, t
}

// push changes the page of all branches of a repository, one push each.
func (h *half) push(repo repository) {
	h.t.Helper()
	for _, branch := range chaosBranches {
		h.pushed++
		page := fmt.Sprintf("push %d", h.pushed)
		h.g.site().commit(h.t, repo, branch, page)
		h.pages[h.app(repo, branch)] = page
	}
}

// suffer has one kind of trouble, about one repository or all, and reads the lights.
func (h *half) suffer(k chaosKind) {
	h.t.Helper()
	repo := h.repos[h.rnd.IntN(len(h.repos))]
	had := k.name + " " + repo.name
	if k.most > 0 && (h.had[had] >= k.most || time.Since(h.lastHad[had]) < k.apart) {
		return
	}
	h.had[had]++
	h.lastHad[had] = time.Now()
	end := k.begin(h, repo)
	for _, r := range h.repos {
		h.push(r)
	}
	<-time.After(time.Duration(h.rnd.IntN(3000)) * time.Millisecond) // it begins to show, or does not
	h.becomes("during "+k.name, truthful, h.truth)
	if k.shows != nil {
		h.becomes("during "+k.name, truthful, func() error { return k.shows(h, repo) })
	}
	end()
	over := time.Now()
	h.becomes("after "+k.name, recovery, h.well)
	h.delivered("after "+k.name, repo)
	h.told.add(k.name, time.Since(over))
}

// becomes waits until something is so.
func (h *half) becomes(when string, within time.Duration, check func() error) {
	h.t.Helper()
	testkit.Eventually(h.t, within, func() error {
		if err := check(); err != nil {
			return fmt.Errorf("%s, in %s: %w", when, h.workspace, err)
		}
		return nil
	})
}

// truth holds the lights against what is so; it says the first that is untrue.
func (h *half) truth() error {
	for _, repo := range h.repos {
		right, err := h.hookIsRight(repo)
		if err != nil {
			return err
		}
		for _, branch := range chaosBranches {
			id := h.app(repo, branch)
			app := h.api.get(h.path("/apps/%s", id))
			if state := dig(app, "webhook", "state"); (state == "ACTIVE") && !right {
				return fmt.Errorf("the webhook of %s is called %v, and is not right on Bitbucket", id, state)
			}
			state, live := dig(app, "sync", "state"), h.g.shows(h.tenant, id) == h.pages[id]
			switch {
			case !live && state == "IN_SYNC":
				return fmt.Errorf("%s is called in sync, and shows %q instead of %q", id, h.g.shows(h.tenant, id), h.pages[id])
			case state != "IN_SYNC" && (dig(app, "sync", "message") == nil || dig(app, "sync", "reason") == nil):
				return fmt.Errorf("%s is %v, and does not say why: %v", id, state, app["sync"])
			}
		}
	}
	return nil
}

// well is how it should be when there is no trouble; it says the first thing that is not.
func (h *half) well() error {
	if integration := h.api.get(h.path("/integrations/bitbucket")); integration["state"] != "CONNECTED" || integration["lastError"] != nil {
		return fmt.Errorf("the connection is %v: %v", integration["state"], integration["lastError"])
	}
	for _, repo := range h.repos {
		if right, err := h.hookIsRight(repo); err != nil || !right {
			return fmt.Errorf("the webhook of %s is not right on Bitbucket (%w)", repo.name, err)
		}
		for _, branch := range chaosBranches {
			id := h.app(repo, branch)
			app := h.api.get(h.path("/apps/%s", id))
			switch {
			case h.g.shows(h.tenant, id) != h.pages[id]:
				return fmt.Errorf("%s shows %q instead of %q: %v; %s", id, h.g.shows(h.tenant, id), h.pages[id], app["sync"], brief(h.deployments(id)))
			case dig(app, "sync", "state") != "IN_SYNC":
				return fmt.Errorf("%s is live and not called in sync: %v", id, app["sync"])
			case dig(app, "webhook", "state") != "ACTIVE":
				return fmt.Errorf("the webhook of %s is right and not called active: %v", id, app["webhook"])
			}
		}
	}
	return nil
}

// hookIsRight reports whether Bitbucket has the one webhook that it should have, as far as it shows.
func (h *half) hookIsRight(repo repository) (bool, error) {
	hooks, err := h.g.site().Hooks(h.t.Context(), repo.name)
	if err != nil {
		return false, err
	}
	return len(hooks) == 1 && hooks[0].Active && slices.Contains(hooks[0].Events, "repo:push") &&
		strings.HasPrefix(hooks[0].URL, h.url()+"/"), nil
}

// delivered pushes until Bitbucket's delivery of a push is taken.
func (h *half) delivered(when string, repo repository) {
	h.t.Helper()
	for since := time.Now(); ; {
		h.push(repo)
		err := h.taken(repo)
		if err == nil {
			break
		}
		if time.Since(since) > recovery {
			h.t.Fatalf("%s: %v", when, err)
		}
		h.becomes(when, recovery, h.well)
	}
	h.becomes(when, recovery, h.well)
}

// taken says why the newest delivery of a repository was not taken.
func (h *half) taken(repo repository) error {
	if err := h.g.site().WaitIdle(h.t.Context()); err != nil {
		return err
	}
	attempts, err := h.g.site().Deliveries(h.t.Context(), onlyHook(h.t, h.g.site(), repo), 0)
	if err != nil || len(attempts) == 0 {
		return fmt.Errorf("nothing was delivered from %s (%w)", repo.name, err)
	}
	if last := attempts[len(attempts)-1]; last.Status/100 != 2 {
		return fmt.Errorf("a delivery of %s was answered %d", repo.name, last.Status)
	}
	return nil
}

// move gives the installation another public URL, as its admin would: restarted, and the consumer's
// callback changed.
func (g *ground) move(t *testing.T, list []*half, told *tally) {
	o, ok := g.stack.(*outside)
	if !ok {
		t.Fatalf("the stack is a %T", g.stack)
	}
	began := time.Now()
	o.daemon.terminate()
	moved, err := url.Parse(o.address)
	if err != nil {
		t.Fatal(err)
	}
	moved.Host = "localhost:" + moved.Port() // another name of the same place
	o.daemon.env = append(o.daemon.env, "DEVPILOT_PUBLIC_URL="+moved.String())
	o.address = moved.String()
	if err := g.site().SetCallbackURL(t.Context(), o.address+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	o.daemon.start()
	g.owner = newBrowser(t, o.address).signIn(o.token)
	for _, h := range list {
		h.on(t)
		h.becomes("after the public URL changed", recovery, h.well)
		for _, repo := range h.repos {
			h.delivered("after the public URL changed", repo)
		}
	}
	told.add("public URL changed", time.Since(began))
}

// asAdmin calls Bitbucket's API as the half's account, as a person's script would.
func (h *half) asAdmin(method, path string, body object) (status int, answer []byte) {
	h.t.Helper()
	pair, err := h.g.site().IssueTokens(h.t.Context(), h.account)
	if err != nil {
		h.t.Fatal(err)
	}
	var payload io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.g.site().address+"/2.0"+path, payload)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+pair.AccessToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// changeHook changes the webhook of a repository on Bitbucket.
func (h *half) changeHook(repo repository, change object) {
	h.t.Helper()
	hooks, err := h.g.site().Hooks(h.t.Context(), repo.name)
	if err != nil || len(hooks) != 1 {
		h.t.Fatalf("the webhooks of %s: %d, %v", repo.name, len(hooks), err)
	}
	body := object{"description": hooks[0].Description, "url": hooks[0].URL, "active": hooks[0].Active, "events": hooks[0].Events}
	maps.Copy(body, change)
	if status, answer := h.asAdmin(http.MethodPut, "/repositories/"+repo.name+"/hooks/"+url.PathEscape("{"+strings.Trim(hooks[0].UUID, "{}")+"}"), body); status != http.StatusOK {
		h.t.Fatalf("changing the webhook of %s: %d %s", repo.name, status, answer)
	}
}

// revoke takes the access back that the half's account has granted.
func (h *half) revoke() {
	h.t.Helper()
	state, err := h.g.site().State(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, grant := range state.Grants {
		if grant.Account == emulator.SeededUUID("account", h.account) && grant.RevokedAt.IsZero() {
			if err := h.g.site().RevokeGrant(h.t.Context(), grant.ID); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}
