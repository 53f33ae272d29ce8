package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// clusterFault is a kind of fault. make makes one, says what it did, and ends it; it may take some seconds, and
// leaves everything running and connected.
type clusterFault struct {
	name  string
	often int // beside the others
	make  func(c *cluster, rnd *rand.Rand) (what string)
}

// Faults of two kinds of places are made at the same time, one of each: a service and a store may fail together.
var (
	serviceFaults = []clusterFault{
		{"a process is killed", 6, killReplica},
		{"a process stands still", 4, freezeReplica},
		{"a process is cut off from its callers", 3, cutCallers},
		{"a process is cut off from NATS", 3, cutStores},
		{"a process loses one NATS server", 1, cutOneStore},
		{"a service is restarted", 2, rollService},
		{"the disk of the workers is full", 1, fillDisk},
		{"the disk of a worker is slow", 1, slowWorker},
	}
	storeFaults = []clusterFault{
		{"a NATS server is killed", 4, killNode},
		{"a NATS server stands still", 3, freezeNode},
		{"a NATS server is cut off from the others", 3, isolateNode},
		{"two NATS servers do not see each other", 2, partNodes},
		{"the disk of a NATS server is slow", 3, slowNode},
		{"leaders of streams hand over", 3, stepDown},
		{"NATS is restarted", 1, rollNodes},
		{"Redis's master is killed", 2, killMaster},
		{"Redis's master stands still", 2, freezeMaster},
		{"a sentinel is killed", 1, killSentinel},
	}
)

// clockFault needs programs of -cluster.clocks.
var clockFault = clusterFault{"the clock of a process jumps", 3, setClock}

// madeFaults are the two lists of this run.
func madeFaults() [2][]clusterFault {
	services := serviceFaults
	if *clusterClocks {
		services = append(slices.Clone(services), clockFault)
	}
	return [2][]clusterFault{services, storeFaults}
}

// anyFault chooses one.
func anyFault(list []clusterFault, rnd *rand.Rand) clusterFault {
	all := 0
	for _, f := range list {
		all += f.often
	}
	at, i := rnd.IntN(all), 0
	for ; at >= list[i].often; i++ {
		at -= list[i].often
	}
	return list[i]
}

// lasting is how long a fault lasts: mostly a moment, at times longer than leases and timeouts.
func lasting(rnd *rand.Rand) time.Duration {
	if rnd.IntN(4) == 0 {
		return 5*time.Second + time.Duration(rnd.IntN(7000))*time.Millisecond
	}
	return 200*time.Millisecond + time.Duration(rnd.IntN(3000))*time.Millisecond
}

// goesOn lets a fault last.
func goesOn(d time.Duration) time.Duration {
	<-time.After(d) // how long a fault lasts is what is tried
	return d.Round(100 * time.Millisecond)
}

func (c *cluster) anyone(rnd *rand.Rand) seat {
	seats := c.seats()
	return seats[rnd.IntN(len(seats))]
}

func killReplica(c *cluster, rnd *rand.Rand) string {
	p := c.anyone(rnd)
	c.at(p).Kill()
	away := goesOn(time.Duration(rnd.IntN(2000)) * time.Millisecond)
	c.at(p).Start()
	c.await(c.at(p))
	return fmt.Sprintf("%v, away for %v", p, away)
}

func freezeReplica(c *cluster, rnd *rand.Rand) string {
	p := c.anyone(rnd)
	c.at(p).Stop()
	still := goesOn(lasting(rnd))
	c.at(p).Continue()
	c.await(c.at(p))
	return fmt.Sprintf("%v, for %v", p, still)
}

// anyWay is one way or both.
func anyWay(rnd *rand.Rand) (d testkit.Direction, called string) {
	d = []testkit.Direction{testkit.There, testkit.Back, testkit.BothWays}[rnd.IntN(3)]
	return d, map[testkit.Direction]string{testkit.There: "there", testkit.Back: "back", testkit.BothWays: "both ways"}[d]
}

func (c *cluster) cutWays(ways []*testkit.Link, d testkit.Direction, rnd *rand.Rand) time.Duration {
	for _, way := range ways {
		way.Cut(d)
	}
	took := goesOn(lasting(rnd))
	for _, way := range ways {
		way.Heal()
	}
	return took
}

func cutCallers(c *cluster, rnd *rand.Rand) string {
	p := c.anyone(rnd)
	d, called := anyWay(rnd)
	took := c.cutWays(slices.Collect(maps.Values(c.calls[p])), d, rnd)
	c.await(c.at(p))
	return fmt.Sprintf("%v, %s, for %v", p, called, took)
}

func cutStores(c *cluster, rnd *rand.Rand) string {
	p := c.anyone(rnd)
	d, called := anyWay(rnd)
	took := c.cutWays(c.stores[p], d, rnd)
	c.await(c.at(p))
	return fmt.Sprintf("%v, %s, for %v", p, called, took)
}

func cutOneStore(c *cluster, rnd *rand.Rand) string {
	p, n := c.anyone(rnd), rnd.IntN(len(c.nodes.Nodes))
	d, called := anyWay(rnd)
	took := c.cutWays(c.stores[p][n:n+1], d, rnd)
	c.await(c.at(p))
	return fmt.Sprintf("%v, n%d, %s, for %v", p, n, called, took)
}

// clockJumps are what a machine that was paused is behind by, and more than anything lives that is short-lived, ahead and back.
var clockJumps = []time.Duration{
	10 * time.Second, 2 * time.Minute, 3 * time.Hour, 400 * 24 * time.Hour,
	-10 * time.Second, -2 * time.Minute, -3 * time.Hour, -400 * 24 * time.Hour,
}

// clocksJump has the clock of a process of each service jump, by all that there are, one after the other. Calls may fail while it is
// wrong, and none does once it is right again.
func (l *crowd) clocksJump() {
	for i, jump := range clockJumps {
		for _, service := range testkit.Services {
			p := seat{service, i % pair}
			l.c.clocks[p].Set(jump)
			goesOn(2 * time.Second)
			l.c.clocks[p].Set(0)
			l.c.await(l.c.at(p))
			goesOn(time.Second) // what was under way ends
			right := time.Now()
			goesOn(2 * time.Second)
			for _, call := range l.between(right, time.Now()) {
				if call.err != nil {
					l.t.Errorf("after the clock of %v was off by %v: %s: %v", p, jump, call.what, call.err)
				}
			}
		}
	}
}

// setClock has a process's clock jump, and back again.
func setClock(c *cluster, rnd *rand.Rand) string {
	p := c.anyone(rnd)
	jump := clockJumps[rnd.IntN(len(clockJumps))]
	c.clocks[p].Set(jump)
	took := goesOn(lasting(rnd))
	c.clocks[p].Set(0)
	c.await(c.at(p))
	return fmt.Sprintf("%v, by %v, for %v", p, jump, took)
}

// rollService restarts all processes of a service, as an upgrade does: one after the other, the next when the
// one before is ready.
func rollService(c *cluster, rnd *rand.Rand) string {
	service := testkit.Services[rnd.IntN(len(testkit.Services))]
	c.roll(service)
	return service
}

func (c *cluster) roll(service string) {
	c.t.Helper()
	for _, r := range c.replicas[service] {
		r.Terminate()
		r.Start()
		c.await(r)
	}
}

func fillDisk(c *cluster, rnd *rand.Rand) string {
	if err := c.disk.fill(); err != nil {
		c.t.Error(err)
	}
	took := goesOn(lasting(rnd))
	if err := c.disk.empty(); err != nil {
		c.t.Error(err)
	}
	return fmt.Sprintf("for %v", took)
}

// slowDisk has what a program writes take long for a while.
func (c *cluster) slowDisk(p *testkit.Process, rnd *rand.Rand) string {
	longer := time.Duration(50+rnd.IntN(450)) * time.Millisecond
	disk := p.SlowDisk(c.t, longer)
	took := goesOn(lasting(rnd))
	return fmt.Sprintf("by %v, for %v: %d calls", longer, took, disk.End())
}

func slowWorker(c *cluster, rnd *rand.Rand) string {
	p := seat{"deployer", rnd.IntN(clusterDeployers)}
	what := c.slowDisk(c.at(p).Process, rnd)
	c.await(c.at(p))
	return fmt.Sprintf("%v, %s", p, what)
}

func slowNode(c *cluster, rnd *rand.Rand) string {
	n := rnd.IntN(len(c.nodes.Nodes))
	what := c.slowDisk(c.nodes.Nodes[n].Process, rnd)
	c.awaitWhole()
	return fmt.Sprintf("n%d, %s", n, what)
}

func killNode(c *cluster, rnd *rand.Rand) string {
	n := rnd.IntN(len(c.nodes.Nodes))
	c.nodes.Nodes[n].Kill()
	away := goesOn(lasting(rnd))
	c.nodes.Nodes[n].Start()
	c.awaitWhole()
	return fmt.Sprintf("n%d, away for %v", n, away)
}

func freezeNode(c *cluster, rnd *rand.Rand) string {
	n := rnd.IntN(len(c.nodes.Nodes))
	c.nodes.Nodes[n].Stop()
	still := goesOn(lasting(rnd))
	c.nodes.Nodes[n].Continue()
	c.awaitWhole()
	return fmt.Sprintf("n%d, for %v", n, still)
}

func isolateNode(c *cluster, rnd *rand.Rand) string {
	n := rnd.IntN(len(c.nodes.Nodes))
	d, called := anyWay(rnd)
	c.nodes.Isolate(n, d)
	took := goesOn(lasting(rnd))
	c.nodes.Heal()
	c.awaitWhole()
	return fmt.Sprintf("n%d, %s, for %v", n, called, took)
}

func partNodes(c *cluster, rnd *rand.Rand) string {
	a := rnd.IntN(len(c.nodes.Nodes))
	b := (a + 1) % len(c.nodes.Nodes)
	d, called := anyWay(rnd)
	c.nodes.Routes[a][b].Cut(d)
	c.nodes.Routes[b][a].Cut(d)
	took := goesOn(lasting(rnd))
	c.nodes.Heal()
	c.awaitWhole()
	return fmt.Sprintf("n%d and n%d, %s, for %v", a, b, called, took)
}

// stepDown has the leaders of some streams hand over at once.
func stepDown(c *cluster, rnd *rand.Rand) string {
	var names []string
	nc, js := c.connect()
	if nc == nil {
		return "nothing: no server answers"
	}
	defer nc.Close()
	for name := range js.StreamNames(c.t.Context()).Name() {
		names = append(names, name)
	}
	slices.Sort(names)
	rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:min(len(names), 1+rnd.IntN(8))]
	for _, name := range names {
		// One that has no leader at the moment has none that could hand over.
		_, _ = nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+name, nil, time.Second)
	}
	goesOn(time.Second)
	return strings.Join(names, ", ")
}

// rollNodes restarts the NATS servers one after the other, each when the one before has all that it missed.
func rollNodes(c *cluster, _ *rand.Rand) string {
	c.rollNATS()
	return ""
}

func (c *cluster) rollNATS() {
	c.t.Helper()
	for _, node := range c.nodes.Nodes {
		node.Terminate()
		node.Start()
		c.awaitWhole()
	}
}

// awaitWhole waits until every stream has a leader and all of its replicas have what it has.
func (c *cluster) awaitWhole() {
	c.t.Helper()
	c.nodes.AwaitReady()
	testkit.Eventually(c.t, timeout, func() error {
		nc, js := c.connect()
		if nc == nil {
			return errors.New("no server answers")
		}
		defer nc.Close()
		lister := js.ListStreams(c.t.Context())
		for info := range lister.Info() {
			if info.Cluster == nil || info.Cluster.Leader == "" {
				return fmt.Errorf("%s has no leader", info.Config.Name)
			}
			for _, r := range info.Cluster.Replicas {
				if r.Offline || !r.Current {
					return fmt.Errorf("%s is behind on %s", info.Config.Name, r.Name)
				}
			}
		}
		return lister.Err()
	})
}

func killMaster(c *cluster, rnd *rand.Rand) string {
	master := c.sentinels.Master()
	master.Kill()
	away := goesOn(lasting(rnd))
	master.Start()
	c.sentinels.Master()
	return fmt.Sprintf("away for %v", away)
}

func freezeMaster(c *cluster, rnd *rand.Rand) string {
	master := c.sentinels.Master()
	master.Stop()
	still := goesOn(lasting(rnd))
	master.Continue()
	c.sentinels.Master()
	return fmt.Sprintf("for %v", still)
}

func killSentinel(c *cluster, rnd *rand.Rand) string {
	sentinel := c.sentinels.Sentinels[rnd.IntN(len(c.sentinels.Sentinels))]
	sentinel.Kill()
	away := goesOn(lasting(rnd))
	sentinel.Start()
	return fmt.Sprintf("away for %v", away)
}

// faults counts what was made. It is safe for concurrent use.
type faults struct {
	mu     sync.Mutex
	counts map[string]int
}

func (f *faults) add(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	f.counts[name]++
}

func (f *faults) sum() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, count := range f.counts {
		n += count
	}
	return n
}

func (f *faults) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.counts)) {
		fmt.Fprintf(&b, "%5d  %s\n", f.counts[name], name)
	}
	return b.String()
}

// faultsOf chooses the faults of one of the two lists.
func faultsOf(seed uint64, list int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(list)))
}

// suffer makes faults of both kinds, one after the other of each, until over says that it is enough.
func (c *cluster) suffer(t *testing.T, seed uint64, made *faults, over func() bool) {
	t.Helper()
	var both sync.WaitGroup
	for i, list := range madeFaults() {
		rnd := faultsOf(seed, i)
		both.Go(func() {
			for !over() && !t.Failed() {
				f, began := anyFault(list, rnd), time.Now()
				what := f.make(c, rnd)
				made.add(f.name)
				t.Logf("%s  %s: %s; all well after %v", began.Format("15:04:05.000"), f.name, what, time.Since(began).Round(100*time.Millisecond))
				goesOn(time.Duration(rnd.IntN(1500)) * time.Millisecond)
			}
		})
	}
	both.Wait()
	c.heal()
}
