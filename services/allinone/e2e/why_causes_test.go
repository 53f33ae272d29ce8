package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/services/allinone"
)

// cause is one reason for which a push is not live, or was not told of: in a workspace of its own, with an
// account and a repository of its own.
type cause struct {
	*half
	name string
	repo repository
}

// because asks until the answer has a reason, a sentence that matches the pattern, and what mends it.
func (c *cause) because(question, reason, pattern, remedy string) object {
	c.t.Helper()
	sentence := regexp.MustCompile("^" + pattern + "$")
	e := c.await(c.path("/why?%s", question), func(e object) error {
		got, _ := e["reason"].(string)
		message, _ := e["message"].(string)
		kind, _ := dig(e, "remedy", "kind").(string)
		if got != reason || !sentence.MatchString(message) || kind != remedy {
			return fmt.Errorf("why %s: %s %q with remedy %q, want %s %q with %q", question, got, message, kind, reason, pattern, remedy)
		}
		return nil
	})
	recorded(c.t, c.name, e)
	return e
}

// named is a text of a pattern.
func named(text string) string { return regexp.QuoteMeta(text) }

// live makes the app "web" of main, and has a first push go live.
func (c *cause) live() {
	c.t.Helper()
	c.tenant.app("web", c.repo, "main")
	c.tenant.live("web", c.push("one"))
}

// push commits a page to main, and returns the commit.
func (c *cause) push(page string) string {
	c.t.Helper()
	return c.g.site().commit(c.t, c.repo, "main", page)
}

func (c *cause) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// unhooked makes the app "web" of a repository in which no webhook can be made.
func (c *cause) unhooked() {
	c.t.Helper()
	c.api.must("POST", c.path("/apps"), object{"appId": "web", "app": object{"repository": c.repo.id, "branch": "main", "autoDeploy": true}})
	c.webhookState("web", "NOT_REGISTERED")
}

// liveAnyway is what is said of a push that polling found.
const liveAnyway = `It is live since deployment #\d+\. No delivery told of it: `

// polled is what is said where pushes are found by polling meanwhile.
const polled = ` Until then pushes are found by polling, a little later\.`

// TestWhy_causes makes causes for which a push is not live, or no delivery told of it, on the real services
// and with the emulator's faults, and holds each answer to its sentence and to what mends it.
func TestWhy_causes(t *testing.T) {
	t.Parallel()
	g := openWhy(t, func(*allinone.Settings) {})
	for name, run := range map[string]func(c *cause){
		"off by rollback": offByRollback, "rolled back": rolledBack, "path": pathRule, "superseded": supersededPush, "branch of another app": branchOfAnother,
		"webhook deleted": webhookDeleted, "webhook deactivated": webhookDeactivated, "webhook URL changed": webhookMoved, "webhook secret changed": webhookSecret,
		"not admin": neverAdmin, "not admin any more": noLongerAdmin, "webhook limit": webhookLimit, "delivery lost": deliveryLost, "delivery lost, then healed": lostAndHealed,
		"access revoked": accessRevoked, "Bitbucket down": bitbucketDown, "name taken": nameTaken, "repository deleted": repositoryDeleted,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(g.cause(t, name))
		})
	}
}

// openWhy starts the product with polls that come often.
func openWhy(t *testing.T, change func(*allinone.Settings)) *ground {
	t.Helper()
	s := &shared{planted: map[string]string{}, stack: startProcess(t, "info", func(s *allinone.Settings) {
		s.ReconcileInterval, s.ReconcileGrace = time.Second, 5*time.Second
		change(s)
	})}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the product's log:\n%s", tail(s.output(), 20_000))
		}
	})
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	return &ground{shared: s, dir: s.releases()}
}

var notSlug = regexp.MustCompile(`[^a-z]+`)

func (g *ground) cause(t *testing.T, name string) *cause {
	t.Helper()
	slug := "why-" + notSlug.ReplaceAllString(strings.ToLower(name), "-")
	h := &half{tenant: g.connected(t, slug, slug), t: t, g: g, account: slug}
	h.on(t)
	return &cause{half: h, name: name, repo: g.repository(t, slug, slug)}
}

func offByRollback(c *cause) {
	c.live()
	c.tenant.live("web", c.push("two"))
	c.settled("web")
	c.api.must("POST", c.path("/apps/web:rollback"), object{"pauseAutoDeploy": true})
	c.settled("web")
	c.because("commit="+c.push("three"), "AUTO_DEPLOY_OFF",
		`Auto-deploy is off: Local owner switched it off with a rollback\. Deploy the latest commit, or switch auto-deploy on\.`, "SWITCH_AUTO_DEPLOY_ON")
}

func rolledBack(c *cause) {
	c.live()
	one, two := c.g.site().head(c.t, c.repo, "main"), c.push("two")
	c.tenant.live("web", two)
	c.settled("web")
	c.api.must("POST", c.path("/apps/web:rollback"), object{})
	c.because("commit="+two, "OLDER_RELEASE", fmt.Sprintf(`Local owner made %.7s live again in deployment #3; main is at %.7s\.`, one, two), "DEPLOY")
	rollback := c.why("deployment=3&app=web", "")
	says(c.t, rollback, "It is live since deployment #3.", "")
	var made bool
	for _, s := range objects(rollback["steps"]) {
		made = made || s["message"] == "web made deployment #3 of it: Local owner rolled back to #1."
	}
	if !made {
		c.t.Errorf("the steps of a rollback: %v", rollback["steps"])
	}
	three := c.push("three")
	c.tenant.live("web", three)
	c.name = "replaced"
	c.because("deployment=2&app=web", "REPLACED", `It was live with deployment #2, until another one took its place; #4 is live now\.`, "OPEN_DEPLOYMENT")
}

func pathRule(c *cause) {
	c.live()
	c.api.must("PATCH", c.path("/apps/web"), object{"rules": object{"paths": []any{"site/**"}}})
	c.because("commit="+c.push("two"), "PATHS_UNCHANGED", named("No file under site/** changed (only index.html changed)."), "EDIT_RULES")
}

func supersededPush(c *cause) {
	c.live()
	c.api.must("PATCH", c.path("/apps/web?updateMask=hooks"), object{"hooks": []object{{
		"name": "build", "stage": "POST_SOURCE_CONTROL", "command": "until test -e /tmp/go; do sleep 0.1; done", "timeoutSeconds": 600,
	}}})
	running := c.push("two")
	c.why("commit="+running, "DEPLOYING")
	waiting := c.push("three")
	c.await(c.path("/apps/web/deployments"), func(list object) error {
		if n := len(objects(list["deployments"])); n != 3 {
			return fmt.Errorf("%d deployments", n)
		}
		return nil
	})
	c.push("four")
	c.because("commit="+waiting, "SUPERSEDED", `Deployment #3 of it was superseded by #4, which a newer push made\.`, "OPEN_DEPLOYMENT")
	for number := range 3 {
		c.api.do("POST", c.path("/apps/web/deployments/%d:cancel", number+2), object{}, nil) // what does not run is refused
	}
}

func branchOfAnother(c *cause) {
	c.live()
	c.tenant.app("dev", c.repo, "develop")
	hash := c.g.site().commit(c.t, c.repo, "develop", "for the other one")
	c.tenant.live("dev", hash)
	says(c.t, c.why("commit="+hash, ""), "It is live since deployment #1.", "")
	c.because("commit="+hash+"&app=web", "BRANCH_NOT_WATCHED", `Branch develop is not watched by web, which watches main\.`, "EDIT_RULES")
}

func webhookDeleted(c *cause) {
	c.live()
	c.must(c.g.site().RemoveHook(c.t.Context(), onlyHook(c.t, c.g.site(), c.repo)))
	c.because("commit="+c.push("two"), "WEBHOOK_DELETED",
		liveAnyway+`Something was changed about the webhook on Bitbucket: it was deleted\. Devpilot put it right\.`, "")
	// The one that was made in its place tells of pushes: the answer about the next is about itself.
	next := c.push("three")
	c.tenant.live("web", next)
	says(c.t, c.why("commit="+next, ""), "It is live since deployment #3.", "")
}

func webhookDeactivated(c *cause) {
	c.live()
	c.changeHook(c.repo, object{"active": false})
	const off = `Somebody switched the webhook off on Bitbucket, so that pushes are found by polling\. If that was not meant, press Repair: Devpilot switches it on again\.`
	c.because("commit="+c.push("two"), "WEBHOOK_INACTIVE", liveAnyway+off, "REPAIR_WEBHOOK")
	id := dig(c.api.get(c.path("/apps/web")), "webhook", "id")
	c.api.must("POST", c.path("/webhooks/%v:repair", id), object{})
	c.name = "webhook repaired"
	c.because("branch=main&app=web", "WEBHOOK_INACTIVE",
		liveAnyway+`Something was changed about the webhook on Bitbucket: it was switched off\. Devpilot put it right\.`, "")
}

func webhookMoved(c *cause) {
	c.live()
	c.changeHook(c.repo, object{"url": "http://127.0.0.1:9/elsewhere"})
	c.because("commit="+c.push("two"), "WEBHOOK_URL_CHANGED",
		liveAnyway+`Something was changed about the webhook on Bitbucket: its URL was changed\. Devpilot put it right\.`, "")
}

func webhookSecret(c *cause) {
	c.live()
	c.changeHook(c.repo, object{"secret": "another secret of somebody else"})
	hash := c.push("two")
	c.must(c.g.site().WaitIdle(c.t.Context()))
	attempts, err := c.g.site().Deliveries(c.t.Context(), onlyHook(c.t, c.g.site(), c.repo), 0)
	c.must(err)
	refused := attempts[len(attempts)-1].RequestUUID
	c.because("commit="+hash, "WEBHOOK_SECRET_CHANGED",
		liveAnyway+`A request to the webhook was refused shortly before, for its signature was wrong: the webhook's secret on Bitbucket may have been another one\.`, "REPAIR_WEBHOOK")
	c.name = "delivery refused"
	c.because("delivery="+refused, "DELIVERY_REFUSED",
		`Devpilot refused the request: The signature does not match: enter the secret that Devpilot shows for this webhook at Bitbucket, in the webhook's settings\.`, "REPAIR_WEBHOOK")
}

const notAnAdmin = `The connected account is not an admin of \S+, so Devpilot cannot register its webhook, look at it or repair it\. Give it the right on Bitbucket, or have an admin add the webhook by hand with the URL and the secret that are shown\.` + polled

func neverAdmin(c *cause) {
	c.must(c.g.site().SetPermission(c.t.Context(), c.repo.name, c.account, "write"))
	c.unhooked()
	c.because("commit="+c.push("two"), "WEBHOOK_NOT_ADMIN", liveAnyway+notAnAdmin, "ADD_WEBHOOK_BY_HAND")
}

func noLongerAdmin(c *cause) {
	c.live()
	c.must(c.g.site().SetPermission(c.t.Context(), c.repo.name, c.account, "write"))
	c.must(c.g.site().RemoveHook(c.t.Context(), onlyHook(c.t, c.g.site(), c.repo)))
	c.because("commit="+c.push("two"), "WEBHOOK_NOT_ADMIN", liveAnyway+notAnAdmin, "ADD_WEBHOOK_BY_HAND")
}

func webhookLimit(c *cause) {
	c.must(c.g.site().Switch(c.t.Context(), func(s *emulator.Switches) { s.MaxHooks = 3 })) // others have one
	for range 3 {
		_, err := c.g.site().AddHook(c.t.Context(), c.repo.name, emulator.Hook{URL: "http://127.0.0.1:9/", Active: false})
		c.must(err)
	}
	c.unhooked()
	c.because("commit="+c.push("two"), "WEBHOOK_LIMIT_REACHED",
		liveAnyway+named(c.repo.name)+` has as many webhooks as Bitbucket allows\. Delete one there that is no longer needed, then press Repair\.`+polled, "REGISTER_WEBHOOK")
}

func deliveryLost(c *cause) {
	c.live()
	c.g.inject(c.t, []emulator.Fault{{Kind: emulator.FaultDropDelivery, Repository: c.repo.name}}, func(*emulator.Fault) {})
	hash := c.push("two")
	lost := liveAnyway + `A push to ` + named(c.repo.name) + ` came without a delivery\. Devpilot compares the webhook with Bitbucket's and puts right what differs; if more are lost, look at the webhook's requests on Bitbucket\.` + polled
	c.because("commit="+hash, "WEBHOOK_DELIVERIES_MISSING", lost, "REPAIR_WEBHOOK")
	c.because("branch=main", "WEBHOOK_DELIVERIES_MISSING", lost, "REPAIR_WEBHOOK")
	c.because("delivery=2&app=web", "WEBHOOK_DELIVERIES_MISSING", lost, "REPAIR_WEBHOOK") // polling's find has a number too
	c.because("deployment=2&app=web", "WEBHOOK_DELIVERIES_MISSING", lost, "REPAIR_WEBHOOK")
}

func accessRevoked(c *cause) {
	c.live()
	c.revoke()
	c.because("commit="+c.push("two"), "TOKEN_EXPIRED",
		`Deployment #2 of it waits: Bitbucket refused the refresh token at \S+ \d\d:\d\d UTC\. That can pass, so we try again at \S+ \d\d:\d\d UTC before we ask you to connect again\. Deployments wait until then\.`, "OPEN_INTEGRATION")
	c.name = "access revoked, not seen"
	c.because("commit="+nowhere, "TOKEN_EXPIRED",
		`Devpilot has not seen commit 0000000: .* Of \S+: Bitbucket refused the refresh token at .*`, "OPEN_INTEGRATION")
}

func bitbucketDown(c *cause) {
	c.live()
	c.g.inject(c.t, []emulator.Fault{{Status: http.StatusServiceUnavailable, Account: c.account}}, func(*emulator.Fault) {})
	c.because("commit="+c.push("two"), "BITBUCKET_UNAVAILABLE",
		`Deployment #2 of it waits: Bitbucket does not answer as it should; Devpilot tries again\.`, "OPEN_DEPLOYMENT")
	c.g.inject(c.t, []emulator.Fault{{Kind: emulator.FaultDropDelivery, Repository: c.repo.name}}, func(*emulator.Fault) {})
	c.name = "Bitbucket down, delivery lost"
	c.because("commit="+c.push("three"), "BITBUCKET_UNAVAILABLE",
		`Devpilot has not seen commit .{7}: .* Of \S+: Bitbucket does not answer as it should; Devpilot tries again\.`, "OPEN_INTEGRATION")
}

func nameTaken(c *cause) {
	c.live()
	slug := c.account + "-before"
	c.must(c.g.site().ReplaceRepository(c.t.Context(), c.repo.name, slug, emulator.RepositoryInput{Name: c.account, Seed: "stranger"}))
	ours := repository{name: "acme/" + slug, id: c.repo.id}
	stranger := c.push("of the stranger")
	c.because("commit="+stranger, "REPOSITORY_RENAMED", `Devpilot has not seen commit .{7}: .* What was `+named(c.repo.name)+` is called `+named(ours.name)+
		` since \d.*: a repository that has the name `+named(c.repo.name)+` now is another one, and its pushes deploy nothing here\.`, "CREATE_APP")
	c.tenant.live("web", c.g.site().commit(c.t, ours, "main", "of ours"))
}

func repositoryDeleted(c *cause) {
	c.live()
	c.must(c.g.site().DeleteRepository(c.t.Context(), c.repo.name))
	c.because("branch=main&app=web", "REPOSITORY_NOT_FOUND", `It is live since deployment #1\. Where the branch is now is not known: .*`, "OPEN_INTEGRATION")
}

// The operator gives Devpilot another secret of the consumer, which is not the one that Bitbucket has.
func TestWhy_consumerRefused(t *testing.T) {
	t.Parallel()
	g := openGround(t, &report{})
	c := g.cause(t, "consumer refused")
	c.live()
	wrong := filepath.Join(t.TempDir(), "secret")
	c.must(os.WriteFile(wrong, []byte("another secret"), 0o600))
	o, ok := g.stack.(*outside)
	if !ok {
		t.Fatalf("the stack is a %T", g.stack)
	}
	o.daemon.terminate()
	o.daemon.env = append(o.daemon.env, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE="+wrong)
	o.daemon.start()
	(&story{tenant: c.tenant, t: t, g: g, account: c.account}).expire()
	c.because("commit="+c.push("two"), "CONSUMER_REFUSED",
		`Deployment #2 of it waits: Bitbucket has refused the refresh token since the secret of Devpilot's OAuth consumer was changed \(.*\)\. `+
			`The operator checks DEVPILOT_BITBUCKET_CLIENT_SECRET; if it is right, connect again\. .*`, "OPEN_INTEGRATION")
	c.refuses(`Bitbucket has refused the refresh token since the secret of Devpilot's OAuth consumer was changed .*`,
		"The operator checks the OAuth consumer's key and secret at Bitbucket against DEVPILOT_BITBUCKET_CLIENT_ID and _SECRET.")
}

// whySmallVolume names a directory and makes the test binary run the story of a full disk.
const whySmallVolume = "DEVPILOT_TEST_WHY_SMALL_VOLUME"

// The disk of the server's mirrors has less room than is to stay free. It is mounted in namespaces of a process
// of its own.
func TestWhy_diskFull(t *testing.T) {
	if dir := os.Getenv(whySmallVolume); dir != "" {
		diskFull(t, dir)
		return
	}
	t.Parallel()
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", fmt.Sprintf("-test.timeout=%s", 4*timeout), fmt.Sprintf("-why.record=%t", *record)}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), whySmallVolume+"="+t.TempDir())
	one := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: one(os.Getuid()), GidMappings: one(os.Getgid()),
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, tail(string(out), 20_000))
	}
}

func diskFull(t *testing.T, dir string) {
	size := func(flags uintptr, mib int) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%dm", mib)); err != nil {
			t.Fatalf("mount a volume of %d MiB: %v", mib, err)
		}
	}
	size(0, 200)
	c := openWhy(t, func(s *allinone.Settings) { s.CacheDir = dir }).cause(t, "disk full")
	c.tenant.app("web", c.repo, "main")
	hash := c.push("one")
	c.because("commit="+hash, "DISK_FULL",
		`Deployment #1 of it waits: The server's disk has \d+ MiB left, less than its reserve\. Make room; the deployment then goes on by itself\.`, "OPEN_DEPLOYMENT")
	size(syscall.MS_REMOUNT, 1000)
	c.tenant.live("web", hash)
	says(t, c.why("commit="+hash, ""), "It is live since deployment #1.", "")
}
