package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// replicasKilled kills one process of each service while pushes come: nothing is lost.
func replicasKilled(t *testing.T, s *shared) {
	running, ok := s.stack.(*processes)
	if !ok {
		t.Fatal("this stack has no processes")
	}
	site := s.site()
	repo := site.repository(t, "killed", "site")
	n := s.tenant(t, "killed")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))
	pushes := 0
	hash, inHand := "", map[string]bool{} // pushes that the killed replica may have had in hand
	for _, service := range testkit.Services {
		victim := running.replicas[service][rand.IntN(pair)]
		for i := range 3 {
			hash = site.commit(t, repo, "main", fmt.Sprintf("%s %d", service, i))
			pushes++
			if i == 1 {
				victim.Kill()
			}
			inHand[hash] = i < 2 && (service == "webhook" || service == "deployer")
		}
		n.live("web", hash)
		victim.Start()
		awaitReady(t, victim.ops)
	}
	for _, d := range n.settled("web") {
		if d["state"] != "COMPLETED" && d["state"] != "SUPERSEDED" {
			t.Errorf("deployment %v is %v: %v", d["number"], d["state"], d["error"])
		}
	}
	// Every push has its delivery, and every delivery became a deployment, but for one that a killed webhook or
	// deployer had in hand while another decided what was pushed after it: that one is passed by, and says so.
	seen := map[string]bool{}
	n.await(n.path("/webhooks/%s/deliveries?pageSize=200", webhook), func(page object) error {
		for _, d := range objects(page["deliveries"]) {
			outcomes, pushed := objects(d["outcomes"]), fmt.Sprint(objects(d["changes"])[0]["newHash"])
			passedBy := len(outcomes) == 1 && outcomes[0]["reason"] == "SEEN_BEFORE" && inHand[pushed]
			if !passedBy && (len(outcomes) != 1 || outcomes[0]["kind"] != "DEPLOYMENT") {
				return fmt.Errorf("delivery %v came to %v", d["number"], outcomes)
			}
			seen[pushed] = true
		}
		if len(seen) != pushes {
			return fmt.Errorf("%d of %d pushes have a delivery", len(seen), pushes)
		}
		return nil
	})
	n.live("web", hash)
}

// daemon is the built devpilot as a process.
type daemon struct {
	t    testing.TB
	args []string
	env  []string
	log  recorder
	ops  string
	// program is what runs; the devpilot that the tests build when empty.
	program string
	// files is how many files it may have open; 0: as many as the test.
	files int
	cmd   *exec.Cmd
	done  chan error
}

func (d *daemon) start() {
	d.t.Helper()
	if d.program == "" {
		d.program = program(d.t, "devpilot")
	}
	d.cmd = exec.Command(d.program, d.args...) // our own program
	if d.files > 0 {
		d.cmd = exec.Command("prlimit", append([]string{fmt.Sprintf("--nofile=%d:%d", d.files, d.files), d.program}, d.args...)...) // our own program
	}
	d.cmd.Env = append(cleanEnviron(), d.env...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.WaitDelay = 5 * time.Second
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	done, cmd := make(chan error, 1), d.cmd
	go func() { done <- cmd.Wait() }()
	d.done = done
	awaitReady(d.t, d.ops)
}

// kill ends the process with SIGKILL; programs that it started are on their own.
func (d *daemon) kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
	<-d.done
}

// terminate asks the process to end, which it must do well and soon.
func (d *daemon) terminate() {
	d.t.Helper()
	began := time.Now()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	select {
	case err := <-d.done:
		if err != nil {
			d.t.Errorf("after SIGTERM: %v", err)
		}
		d.t.Logf("from SIGTERM to exit code 0: %v", time.Since(began).Round(time.Millisecond))
	case <-time.After(2 * time.Minute):
		d.t.Error("SIGTERM does not end the process")
		d.kill()
	}
	d.cmd = nil
}

// startDaemon starts devpilot on a data directory; env are further settings.
func startDaemon(t testing.TB, dir string, env ...string) (d *daemon, url string) {
	t.Helper()
	return startDaemonOf(t, "", dir, env...)
}

// startDaemonOf is startDaemon for a program that was built before.
func startDaemonOf(t testing.TB, path, dir string, env ...string) (d *daemon, url string) {
	t.Helper()
	listen, ops := loopback(t), loopback(t)
	d = &daemon{t: t, program: path, ops: "http://" + ops, env: append([]string{
		"DEVPILOT_LISTEN=" + listen, "DEVPILOT_OPS_LISTEN=" + ops, "DEVPILOT_DATA_DIR=" + dir, "DEVPILOT_LOG_LEVEL=debug", "DEVPILOT_WORKERS=2",
		"DEVPILOT_LIVE_LISTEN=127.0.0.1:0", "DEVPILOT_HOOK_NETWORK=none",
	}, env...)}
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		if t.Failed() {
			t.Logf("the end of devpilot's log, without its calls:\n%s", tail(withoutCalls(d.log.String()), 30_000))
		}
	})
	d.start()
	return d, "http://" + listen
}

// outside is a daemon as a stack. Its engines cannot be reached.
type outside struct {
	stack
	daemon  *daemon
	bucket  *site
	address string
	token   string
}

func (o *outside) url() string        { return o.address }
func (o *outside) site() *site        { return o.bucket }
func (o *outside) adminToken() string { return o.token }
func (o *outside) output() string     { return o.daemon.log.String() }

// TestDevpilot_killedAtAnyMoment kills several installations at random moments of a deployment.
// An unfinished deployment goes on when its wake-up is due again: hence several at once instead of one
// many times.
func TestDevpilot_killedAtAnyMoment(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprintf("installation %d", i+1), func(t *testing.T) {
			t.Parallel()
			killOne(t, time.Duration(i)*300*time.Millisecond)
		})
	}
}

// killOne kills an installation twice, some time after the given moment of a deployment.
func killOne(t *testing.T, moment time.Duration) {
	t.Helper()
	bucket := openSite(t)
	bucket.inProcess(t)
	dir := filepath.Join(testkit.FastDir(t), "data")
	d, address := startDaemon(t, dir,
		"DEVPILOT_BITBUCKET_CLIENT_ID="+consumer.Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE="+secretFile(t),
		"DEVPILOT_BITBUCKET_SITE_URL="+bucket.address, "DEVPILOT_BITBUCKET_API_URL="+bucket.address+"/2.0",
		"DEVPILOT_WORKER_LEASE="+workerLease.String(), "DEVPILOT_RECONCILE_INTERVAL=1s", "DEVPILOT_RECONCILE_GRACE=2s")
	if err := bucket.SetCallbackURL(t.Context(), address+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	token, err := allinone.ReadAdminToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &shared{stack: &outside{daemon: d, bucket: bucket, address: address, token: token.Reveal()}, planted: map[string]string{}}
	s.owner = newBrowser(t, address).signIn(token.Reveal())
	repo := bucket.repository(t, "kill", "site")
	n := s.tenant(t, "kill")
	n.app("web", repo, "main")
	n.live("web", bucket.commit(t, repo, "main", "before"))
	// A deployment takes a while, so that a kill at a random moment meets one.
	if _, err := bucket.Inject(t.Context(), emulator.Fault{Route: "git", Path: "/" + repo.name, Delay: 150 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		n.survive(d, repo, moment+rand.N(300*time.Millisecond), i == 1)
	}
	lives := 0
	for _, d := range n.deployments("web") {
		if d["state"] != "COMPLETED" && d["state"] != "SUPERSEDED" {
			t.Errorf("deployment %v is %v: %v", d["number"], d["state"], d["error"])
		}
		if d["live"] == true {
			lives++
		}
	}
	if lives != 1 {
		t.Errorf("%d deployments are live", lives)
	}
	d.terminate()
	look := newSearch(t, s.secrets())
	look.files(dir, []string{allinone.AdminTokenFile(dir), filepath.Join(dir, "keys")})
	look.in("the log", []byte(d.log.String()))
	look.nothing()
}

// survive kills the product some time after a push, pushes once more while it is down if missed is
// set, and starts it again: everything is as it was, and the last push gets live.
func (n *tenant) survive(d *daemon, repo repository, moment time.Duration, missed bool) {
	t, bucket := n.t, n.site()
	t.Helper()
	hash := bucket.commit(t, repo, "main", "running")
	<-time.After(moment) // a random moment is the point
	d.kill()
	if missed {
		hash = bucket.commit(t, repo, "main", "while down")
		if err := bucket.WaitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	d.start()
	ready := time.Since(began)
	if got := n.api.get(n.path("/integrations/bitbucket"))["state"]; got != "CONNECTED" { // and the session is as it was
		t.Fatalf("after a kill the integration is %v", got)
	}
	if app := n.api.get(n.path("/apps/web")); app["branch"] != "main" || app["live"] == nil {
		t.Fatalf("after a kill the app is %v", app)
	}
	n.live("web", hash)
	list := n.settled("web")
	if list[len(list)-1]["number"] != 1.0 {
		t.Fatalf("after a kill the history is %s", brief(list))
	}
	t.Logf("killed %v after a push (another while down: %v): ready after %v, live after %v: %s", moment.Round(time.Millisecond), missed,
		ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), brief(list))
}

// TestDevpilot_withItsOwnEmulator starts what make run starts, and signs in as a person does.
func TestDevpilot_withItsOwnEmulator(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testkit.FastDir(t), "data")
	emulated := loopback(t)
	_, port, _ := strings.Cut(emulated, ":")
	d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=localhost:"+port)
	info := object{}
	browser := newBrowser(t, address)
	browser.do(http.MethodGet, "/v1/info", nil, &info)
	if info["emulator"] != true || info["bitbucketSiteUrl"] != "http://localhost:"+port {
		t.Errorf("the installation says it is %v", info)
	}
	raw, err := exec.Command(program(t, "devpilot"), "sign-in", "--url", address, "--data-dir", dir).CombinedOutput() // our own program
	link, perr := url.Parse(strings.TrimSpace(string(raw)))
	if err != nil || perr != nil || link.Scheme+"://"+link.Host != address || link.Fragment == "" || link.RawQuery != "" {
		t.Fatalf("devpilot sign-in prints %q: %v, %v", raw, err, perr)
	}
	code := link.Fragment[strings.LastIndexByte(link.Fragment, '=')+1:]
	browser.signIn(code)
	newBrowser(t, address).refused(http.MethodPost, "/v1/session", object{"token": code}, "UNAUTHENTICATED") // it works once
	if at := browser.connect("default", "grant"); at.Query().Get("bitbucket") != "connected" {
		t.Fatalf("connecting ended at %s", at)
	}
	n := &tenant{shared: &shared{stack: &outside{daemon: d, address: address}}, t: t, api: browser, workspace: "default"}
	web := repository{name: "acme/web", id: emulator.SeededUUID("repository", "acme/web")}
	control := emulator.NewControl("http://localhost:" + port)
	n.app("web", web, "main")
	hash, err := control.Commit(t.Context(), web.name, "main", "by the emulator", map[string]string{"index.html": "new\n"})
	if err != nil {
		t.Fatal(err)
	}
	n.live("web", hash)
	if got, err := os.ReadFile(filepath.Join(dir, "apps", "default", "web", "current", "index.html")); err != nil || !bytes.Equal(got, []byte("new\n")) {
		t.Errorf("the release holds %q, %v", got, err)
	}
	d.terminate()
	if secret := regexp.MustCompile(`dpa_[A-Z0-9]{20,}`).FindString(d.log.String()); secret != "" || strings.Contains(d.log.String(), code) {
		t.Error("the admin token or a sign-in code was logged")
	}
}
