package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

var (
	deep      = flag.Bool("kill.deep", false, "kill and freeze deployers at 200 and 40 random moments instead of 12 and 6")
	killLimit = flag.Duration("kill.limit", 20*time.Second, "how long deployers are killed, and frozen, at most")
)

const (
	// lease is how long a silent deployer keeps its work here.
	lease = time.Second
	// files is how many files a release has; a release is complete when all hold the same.
	files = 12
	// killsInARow is how often one push's deployments are cut at most: fewer than what would make
	// them end as those of dying workers.
	killsInARow = 3
)

// shot are apps whose deployments are cut.
type shot struct {
	*tenant
	apps    []string
	repo    repository
	running *processes
	count   int
	stages  map[string]int // at which stage a deployment was cut
	span    time.Duration  // how long the quickest deployment took
	marker  string         // in the arguments of what these apps' hooks start
}

// markers counts the markers that were given out.
var markers atomic.Int64

// tree is a commit's content: many files that say the same.
func tree(version int) map[string]string {
	m := map[string]string{}
	for i := range files {
		m[fmt.Sprintf("d%d/f%02d", i%5, i)] = strconv.Itoa(version)
	}
	return m
}

// startShot starts a topology with apps on one branch that have hooks at every stage. The hook that builds is what
// makes a release complete; each leaves a program behind that would run for long.
func startShot(t *testing.T, name string, apps int, top topology) *shot {
	t.Helper()
	top.env = append(top.env, "DEVPILOT_WORKER_LEASE="+lease.String())
	running := startTopology(t, top)
	s := &shared{stack: running, planted: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the product's log:\n%s", tail(running.output(), 20_000))
		}
	})
	s.owner = newBrowser(t, running.url()).signIn(running.adminToken())
	x := &shot{repo: running.site().repository(t, name, "site"), running: running, stages: map[string]int{}}
	x.marker = fmt.Sprintf("0.04%d%d", markers.Add(1), os.Getpid())
	x.tenant = s.tenant(t, name)
	var hooks []any
	for _, stage := range []string{"PRE_EXECUTION", "PRE_SOURCE_CONTROL", "POST_SOURCE_CONTROL", "POST_SETUP", "POST_RELEASE"} {
		command := "sleep 9" + x.marker + " & sleep " + x.marker
		if stage == "POST_SETUP" {
			command += "\nfor f in d*/f*; do read -r v <$f || :; printf %s \"$v\" >$f.built; done; sleep " + x.marker
		}
		hooks = append(hooks, object{"name": strings.ToLower(stage), "stage": stage, "command": command})
	}
	hash := x.push()
	for i := range apps {
		id := fmt.Sprint("web-", i)
		x.apps = append(x.apps, id)
		x.api.must("POST", x.path("/apps"), object{"appId": id, "deployNow": true, "app": object{
			"repository": x.repo.id, "branch": "main", "autoDeploy": true, "hooks": hooks, "retention": 3,
		}})
	}
	x.everywhere(hash)
	t.Logf("a deployment takes %v", x.span.Round(time.Millisecond))
	return x
}

// push pushes the next version and returns its commit.
func (x *shot) push() string {
	x.t.Helper()
	x.count++
	hash, err := x.site().Commit(x.t.Context(), x.repo.name, "main", fmt.Sprint("version ", x.count), tree(x.count))
	if err != nil {
		x.t.Fatal(err)
	}
	return hash
}

// everywhere waits until a commit is live in all apps, and notes how long a deployment takes: the first ones are slow,
// and those that were cut.
func (x *shot) everywhere(hash string) {
	x.t.Helper()
	for _, app := range x.apps {
		x.live(app, hash)
		d := x.newest(app)
		span := max(instant(x.t, d["endTime"]).Sub(instant(x.t, d["startTime"])), 200*time.Millisecond)
		if x.span == 0 || span < x.span {
			x.span = span
		}
	}
}

func instant(t testing.TB, v any) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, fmt.Sprint(v))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// newest is the newest deployment of an app.
func (x *shot) newest(app string) object {
	x.t.Helper()
	return objects(x.api.get(x.path("/apps/%s/deployments?pageSize=1", app))["deployments"])[0]
}

// cut notes at which stage the apps' deployments are right before they are cut, and returns how many
// run.
func (x *shot) cut() (running int) {
	x.t.Helper()
	for _, app := range x.apps {
		d := x.newest(app)
		if d["state"] == "PROCESSING" {
			running++
			x.stages[fmt.Sprint(d["stage"])]++
		}
	}
	return running
}

// begun waits until a deployment of the commit runs, and a random moment longer.
func (x *shot) begun(hash string) {
	x.t.Helper()
	testkit.Eventually(x.t, timeout, func() error {
		for _, app := range x.apps {
			if d := x.newest(app); dig(d, "commit", "hash") == hash && d["state"] != "PENDING" {
				return nil
			}
		}
		return fmt.Errorf("no deployment of %.7s runs", hash)
	})
	<-time.After(rand.N(x.span)) // a random moment is the point
}

// again tells whether more is cut: until there was enough of it or the time is over, and until one cut met what it
// is for, which takes a slow machine longer.
func (x *shot) again(cuts, enough, met int, began time.Time) bool {
	over := cuts >= enough || time.Since(began) >= *killLimit
	return !x.t.Failed() && (!over || met == 0 && cuts < 10*enough)
}

// ended looks whether every deployment has its end, and a good one.
func (x *shot) ended() {
	t := x.t
	t.Helper()
	states, attempts := map[string]int{}, 0
	for _, app := range x.apps {
		for token := ""; ; {
			page := x.api.get(x.path("/apps/%s/deployments?pageSize=200&pageToken=%s", app, token))
			for _, d := range objects(page["deployments"]) {
				states[fmt.Sprint(d["state"])]++
				if n, ok := d["attempt"].(float64); ok {
					attempts += int(n)
				}
				if d["state"] != "COMPLETED" && d["state"] != "SUPERSEDED" {
					t.Errorf("deployment %v of %s is %v: %v", d["number"], app, d["state"], d["error"])
				}
			}
			if token, _ = page["nextPageToken"].(string); token == "" {
				break
			}
		}
	}
	t.Logf("deployments by state %v, %d attempts, cut at %v", states, attempts, x.stages)
}

// watch reads the apps' current releases again and again until it is told to stop, and returns how
// often it looked. A release is complete, and no older one ever comes back.
func (x *shot) watch() (stop func() int) {
	t := x.t
	done, looks := make(chan struct{}), 0
	newest := map[string]int{}
	var wg sync.WaitGroup
	wg.Go(func() {
		pause := 10 * time.Millisecond
		if *deep {
			pause = time.Millisecond
		}
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			app := x.apps[looks%len(x.apps)]
			version, err := complete(filepath.Join(x.releases(), "apps", x.workspace, app, "current"))
			switch {
			case err != nil:
				t.Errorf("look %d at what is live: %v", looks, err)
				return
			case version < newest[app]:
				t.Errorf("version %d of %s is live after version %d", version, app, newest[app])
				return
			}
			newest[app] = version
			looks++
		}
	})
	stop = sync.OnceValue(func() int {
		close(done)
		wg.Wait()
		return looks
	})
	t.Cleanup(func() { stop() })
	return stop
}

// complete reads the release that is current: its version, or what is wrong with it.
func complete(current string) (version int, err error) {
	for {
		target, err := os.Readlink(current)
		if err != nil {
			return 0, err
		}
		version, err = readRelease(filepath.Join(filepath.Dir(current), target))
		if !errors.Is(err, fs.ErrNotExist) {
			return version, err
		}
		// It may have been removed while we read; not while it is current.
		if again, rerr := os.Readlink(current); rerr != nil || again == target {
			return 0, errors.Join(fmt.Errorf("%s is current and lacks something: %w", target, err), rerr)
		}
	}
}

func readRelease(dir string) (version int, err error) {
	var first []byte
	for i := range files {
		for _, suffix := range []string{"", ".built"} {
			name := fmt.Sprintf("d%d/f%02d%s", i%5, i, suffix)
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return 0, err
			}
			if first == nil {
				first = b
			}
			if !bytes.Equal(b, first) || len(b) == 0 {
				return 0, fmt.Errorf("%s holds %q where others hold %q", filepath.Join(dir, name), b, first)
			}
		}
	}
	return strconv.Atoi(string(first))
}

// signal sends a signal to a process alone: what it started is on its own.
func signal(t testing.TB, r *replica, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(r.Pid(), sig); err != nil {
		t.Fatal(err)
	}
}

// orphans are processes of the apps' hooks, and of git on their mirrors.
func (x *shot) orphans() []string {
	t, caches := x.t, x.running.caches
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range list {
		c, err := os.ReadFile(p)
		if err == nil && (bytes.Contains(c, []byte("sleep\x009"+x.marker)) || bytes.Contains(c, []byte(caches))) {
			out = append(out, filepath.Base(filepath.Dir(p))+" "+strings.ReplaceAll(string(c), "\x00", " "))
		}
	}
	return out
}

// kill kills a deployer and waits until nothing that it started is left; it returns how long that
// took.
func (x *shot) kill(deployer *replica) time.Duration {
	x.t.Helper()
	signal(x.t, deployer, syscall.SIGKILL)
	<-deployer.Exited()
	killed := time.Now()
	testkit.Eventually(x.t, 5*time.Second, func() error {
		if left := x.orphans(); len(left) > 0 {
			return fmt.Errorf("the deployer is dead and these run: %q", left)
		}
		return nil
	})
	return time.Since(killed)
}

// TestDeployer_killedAtAnyMoment kills the only deployer again and again while it deploys, and starts
// it right away. Every deployment comes to its end, what is live is whole at every moment, and no
// program of a hook outlives its worker.
func TestDeployer_killedAtAnyMoment(t *testing.T) {
	t.Parallel()
	moments := 12
	if *deep {
		moments = 200
	}
	x := startShot(t, "shot", 4, topology{count: 1, env: []string{"DEVPILOT_WORKERS=4"}})
	deployer := x.running.replicas["deployer"][0]
	looks := x.watch()
	began, met, kills := time.Now(), 0, 0
	var slowest time.Duration
	for x.again(kills, moments, met, began) {
		hash := x.push()
		for range 1 + rand.N(killsInARow) { // what a worker resumes is cut as well
			x.begun(hash)
			met += x.cut()
			slowest = max(slowest, x.kill(deployer))
			kills++
			deployer.Start()
			awaitReady(t, deployer.ops)
		}
		x.everywhere(hash)
	}
	if met == 0 {
		t.Error("no kill met a deployment")
	}
	x.ended()
	t.Logf("%d kills met %d running deployments in %v; what is live was read %d times; the last program was gone %v after its worker at most",
		kills, met, time.Since(began).Round(time.Second), looks(), slowest.Round(time.Millisecond))
}

// TestDeployer_frozenBeyondItsLease freezes one of two workers of a server for longer than its lease,
// and thaws it once the other has done its work: it changes nothing.
func TestDeployer_frozenBeyondItsLease(t *testing.T) {
	t.Parallel()
	moments := 6
	if *deep {
		moments = 40
	}
	x := startShot(t, "frozen", 2, topology{count: 1, deployers: 3, of: func(service string, i int) []string {
		switch {
		case service != "deployer":
			return nil
		case i == 0:
			return []string{"DEVPILOT_ROLES=api"}
		}
		return []string{workerOnly}
	}})
	workers := x.running.replicas["deployer"][1:]
	looks := x.watch()
	began, freezes, met, tookOver := time.Now(), 0, 0, 0
	for ; met < moments && x.again(freezes, 2*moments, tookOver, began); freezes++ {
		hash := x.push()
		x.begun(hash)
		worker := x.busy(workers)
		met += x.cut()
		signal(t, worker, syscall.SIGSTOP)
		x.elsewhere(hash)
		x.noHook(worker)
		for _, app := range x.apps {
			if n, _ := x.newest(app)["attempt"].(float64); n > 1 {
				tookOver++
			}
		}
		before := x.current()
		signal(t, worker, syscall.SIGCONT)
		awaitReady(t, worker.ops)
		x.idle(worker)
		x.everywhere(hash)
		if after := x.current(); after != before {
			t.Errorf("a worker that woke up made %s current where %s was", after, before)
		}
	}
	if tookOver == 0 {
		t.Error("no deployment was taken over")
	}
	x.ended()
	t.Logf("%d times frozen in %v, met %d running deployments, %d taken over; what is live was read %d times",
		freezes, time.Since(began).Round(time.Second), met, tookOver, looks())
}

// current are the directories that are current in all apps.
func (x *shot) current() string {
	var all []string
	for _, app := range x.apps {
		target, err := os.Readlink(filepath.Join(x.releases(), "apps", x.workspace, app, "current"))
		if err != nil {
			x.t.Error(err)
		}
		all = append(all, target)
	}
	return strings.Join(all, " ")
}

// busy is the worker that has a program running, or any.
func (x *shot) busy(workers []*replica) *replica {
	x.t.Helper()
	for _, w := range workers {
		if len(family(x.t, []int{w.Pid()})) > 1 {
			return w
		}
	}
	return workers[rand.IntN(len(workers))]
}

// elsewhere waits until the commit is live although a worker is frozen. One that was frozen with the
// lock of the app's directory in its hands holds it until it is thawed; then nothing is to be done.
func (x *shot) elsewhere(hash string) {
	x.t.Helper()
	for _, app := range x.apps {
		testkit.Eventually(x.t, timeout, func() error {
			d := x.newest(app)
			if d["state"] == "COMPLETED" && dig(d, "commit", "hash") == hash || dig(d, "waitingFor", "reason") == "RELEASE_LOCKED" {
				return nil
			}
			return fmt.Errorf("%.7s: %s", hash, brief([]object{d}))
		})
	}
}

// noHook waits until a frozen worker has no hook running any more: what a hook does outside its
// release must not be done twice.
func (x *shot) noHook(worker *replica) {
	x.t.Helper()
	testkit.Eventually(x.t, timeout, func() error {
		for _, r := range family(x.t, []int{worker.Pid()}) {
			if bytes.Contains(r.environment, []byte("DEVPILOT_HOOK=")) {
				return fmt.Errorf("%s of the frozen worker still runs", r.name)
			}
		}
		return nil
	})
}

// idle waits until a worker has no program running any more.
func (x *shot) idle(worker *replica) {
	x.t.Helper()
	quiet := 0
	testkit.Eventually(x.t, timeout, func() error {
		programs := slices.DeleteFunc(family(x.t, []int{worker.Pid()}), func(r relative) bool { return r.pid == worker.Pid() })
		if len(programs) > 0 {
			quiet = 0
			return fmt.Errorf("%d programs run", len(programs))
		}
		if quiet++; quiet < 5 {
			return errors.New("not quiet for long enough")
		}
		return nil
	})
}
