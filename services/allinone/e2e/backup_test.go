package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// restorable is an installation of the one program whose stores are lost and restored, beside a Bitbucket that
// lasts.
type restorable struct {
	*tenant
	daemon *daemon
	dir    string
	repo   repository
	quiet  repository // of an app that pushes do not deploy
	backup string     // its directory, once there is one
}

// startRestorable starts the program with two apps that are live; env are further settings.
func startRestorable(t *testing.T, env ...string) *restorable {
	t.Helper()
	bucket := openSite(t)
	bucket.inProcess(t)
	dir := filepath.Join(testkit.FastDir(t), "data")
	d, address := startDaemon(t, dir, append([]string{
		"DEVPILOT_BITBUCKET_CLIENT_ID=" + consumer.Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE=" + secretFile(t),
		"DEVPILOT_BITBUCKET_SITE_URL=" + bucket.address, "DEVPILOT_BITBUCKET_API_URL=" + bucket.address + "/2.0",
		"DEVPILOT_WORKER_LEASE=" + workerLease.String(), "DEVPILOT_RECONCILE_INTERVAL=1s", "DEVPILOT_RECONCILE_GRACE=2s",
	}, env...)...)
	if err := bucket.SetCallbackURL(t.Context(), address+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	token, err := allinone.ReadAdminToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &shared{stack: &outside{daemon: d, bucket: bucket, address: address, token: token.Reveal()}, planted: map[string]string{}}
	s.owner = newBrowser(t, address).signIn(token.Reveal())
	r := &restorable{tenant: s.tenant(t, "safe"), daemon: d, dir: dir, repo: bucket.repository(t, "safe-web", "site"), quiet: bucket.repository(t, "safe-quiet", "site")}
	r.app("web", r.repo, "main")
	r.live("web", bucket.commit(t, r.repo, "main", "one"))
	hash := bucket.commit(t, r.quiet, "main", "chosen")
	r.api.must("POST", r.path("/apps"), object{"appId": "quiet", "deployNow": true, "app": object{"repository": r.quiet.id, "branch": "main", "autoDeploy": false}})
	r.live("quiet", hash)
	return r
}

// run runs the program's command with the daemon's settings, and env before them.
func (r *restorable) run(env []string, args ...string) (out string, err error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(r.t, "devpilot"), args...) // our own program
	cmd.Env = append(append(cleanEnviron(), r.daemon.env...), env...)
	cmd.WaitDelay = 5 * time.Second
	raw, err := cmd.CombinedOutput()
	return string(raw), err
}

// lose ends the program as a machine ends that burns, and lets it go on with another data directory that has the keys of the one before
// and nothing else.
func (r *restorable) lose() {
	r.t.Helper()
	r.daemon.kill()
	fresh := filepath.Join(testkit.FastDir(r.t), "data")
	if err := os.CopyFS(filepath.Join(fresh, "keys"), os.DirFS(filepath.Join(r.dir, "keys"))); err != nil {
		r.t.Fatal(err)
	}
	for i, v := range r.daemon.env {
		if strings.HasPrefix(v, "DEVPILOT_DATA_DIR=") {
			r.daemon.env[i] = "DEVPILOT_DATA_DIR=" + fresh
		}
	}
	r.dir = fresh
}

// back starts the program again, and signs in: sessions of the admin token end with it, and a new machine has a new one.
func (r *restorable) back() {
	r.t.Helper()
	r.daemon.start()
	token, err := allinone.ReadAdminToken(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.owner = newBrowser(r.t, r.url()).signIn(token.Reveal())
	r.api = r.owner.with(r.t)
}

// told is what people see that must come back as it was.
func (r *restorable) told() (lines []string) {
	r.t.Helper()
	for _, what := range []string{"/members", "/integrations/bitbucket", "/webhooks", "/activity"} {
		answer := r.api.get(r.path("%s", what))
		lines = append(lines, fmt.Sprint(what, answer["label"], answer["state"]))
		for _, list := range answer {
			for _, one := range asList(list) {
				if o, ok := one.(object); ok {
					lines = append(lines, fmt.Sprint(what, o["id"], o["subject"], o["email"], o["role"], o["repository"], o["state"], o["action"], o["time"]))
				}
			}
		}
	}
	for _, d := range r.deployments("web") {
		if d["live"] != true && d["number"] == float64(1) {
			lines = append(lines, fmt.Sprint(d["number"], d["state"], dig(d, "commit", "hash"), d["trigger"], d["endTime"]))
		}
	}
	return lines
}

// pushing pushes until it is stopped, and returns the last commit.
func (r *restorable) pushing() (stop func() (last string)) {
	var mu sync.Mutex
	ended, done, last := make(chan struct{}), make(chan struct{}), ""
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			default:
			}
			hash := r.site().commit(r.t, r.repo, "main", fmt.Sprintf("under way %d", i))
			mu.Lock()
			last = hash
			mu.Unlock()
		}
	}()
	return func() string {
		close(ended)
		<-done
		return last
	}
}

// onceEach fails where a commit was deployed by two pushes.
func (r *restorable) onceEach() {
	r.t.Helper()
	seen := map[any]object{}
	for _, d := range r.settled("web") {
		hash := dig(d, "commit", "hash")
		if other, twice := seen[hash]; twice && d["state"] == "COMPLETED" && other["state"] == "COMPLETED" && d["sourceNumber"] == nil && other["sourceNumber"] == nil {
			r.t.Errorf("commit %.7v was deployed by %v and by %v", hash, d["number"], other["number"])
		}
		if d["state"] == "COMPLETED" {
			seen[hash] = d
		}
	}
}

// byThePage runs a block of deploy/OPERATIONS.md, with the directory of the backup in the place of the page's.
func (r *restorable) byThePage(block int, backup string) string {
	r.t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "OPERATIONS.md"))
	if err != nil {
		r.t.Fatal(err)
	}
	const directory = "/var/backups/devpilot/today"
	blocks := slices.DeleteFunc(shellBlock.FindAllStringSubmatch(string(page), -1), func(b []string) bool { return !strings.Contains(b[1], directory) })
	if len(blocks) != 2 {
		r.t.Fatalf("the page has %d blocks that name %s", len(blocks), directory)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), timeout)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail")
	shell.Stdin = strings.NewReader(strings.ReplaceAll(blocks[block][1], directory, backup))
	shell.Env = append(append(cleanEnviron(), r.daemon.env...), "PATH="+filepath.Dir(program(r.t, "devpilot"))+":"+os.Getenv("PATH"))
	shell.WaitDelay = 5 * time.Second
	out, err := shell.CombinedOutput()
	if err != nil {
		r.t.Fatalf("block %d of the page ended with %v:\n%s", block, err, out)
	}
	r.t.Log(strings.TrimSpace(string(out)))
	return string(out)
}

// What was saved under pushes by the page's words comes back by them: apps, history, people, webhooks, what is live,
// and the pushes that came after the backup. In one place the machine has the keys and nothing else, in the other the releases live and
// only NATS is empty.
func TestOperations_backupAndRestoreByThePage(t *testing.T) {
	t.Parallel()
	t.Run("on an empty machine", func(t *testing.T) {
		t.Parallel()
		r := startRestorable(t)
		r.comesBack(r.lose)
		if out, err := r.run(nil, "restore", r.backup); err == nil || !strings.Contains(out, "stop it first") {
			t.Errorf("a restore beside the running program: %v\n%s", err, out)
		}
		r.daemon.terminate()
		if out, err := r.run(nil, "restore", r.backup); err == nil || !strings.Contains(out, "a restore overwrites nothing") {
			t.Errorf("a restore over what is there: %v\n%s", err, out)
		}
	})
	t.Run("in another NATS", func(t *testing.T) {
		t.Parallel()
		first, second := testkit.RealNATS(t), testkit.RealNATS(t)
		r := startRestorable(t, "DEVPILOT_NATS_URL="+first.URL(), "DEVPILOT_INSTALLATION=acme")
		r.comesBack(func() {
			r.daemon.kill()
			r.daemon.env = append(r.daemon.env, "DEVPILOT_NATS_URL="+second.URL())
		})
		r.daemon.terminate()
	})
}

// comesBack saves the installation under pushes, loses it, restores it, and compares.
func (r *restorable) comesBack(lose func()) {
	t := r.t
	stop := r.pushing()
	testkit.Eventually(t, timeout, func() error {
		if n := len(r.deployments("web")); n < 4 {
			return fmt.Errorf("%d deployments", n)
		}
		return nil
	})
	r.backup = filepath.Join(testkit.FastDir(t), "backup")
	r.byThePage(0, r.backup)
	stop()
	r.settled("web")
	told := r.told()
	lose()
	last := r.site().commit(t, r.repo, "main", "while it is lost")
	if err := r.site().WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.byThePage(1, r.backup)
	r.back()
	r.live("web", last)
	r.live("quiet", r.site().head(t, r.quiet, "main"))
	now := r.told()
	for _, line := range told {
		if !slices.Contains(now, line) {
			t.Errorf("it did not come back: %s", line)
		}
	}
	if n := len(r.deployments("web")); n < 4 {
		t.Errorf("%d deployments are left", n)
	}
	r.onceEach()
	r.live("web", r.site().commit(t, r.repo, "main", "after"))
}
