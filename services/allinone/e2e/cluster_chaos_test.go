package e2e

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	clusterFor    = flag.Duration("cluster.for", 15*time.Second, "how long faults are made")
	clusterPushes = flag.Int64("cluster.pushes", math.MaxInt64, "how many pushes are made at most")
	clusterFaults = flag.Int("cluster.faults", math.MaxInt, "how many faults are made at most")
	clusterRate   = flag.Float64("cluster.rate", 3, "pushes in a second")
	clusterSeed   = flag.Uint64("cluster.seed", slowDisksFirst, "which faults and when; zero is others each time")
	clusterRepos  = flag.Int("cluster.repositories", 2, "how many repositories there are; a webhook keeps its newest 1,000 deliveries")
	clusterLogs   = flag.String("cluster.logs", "", "directory where logs of all processes stay; none when empty")
	clusterRolls  = flag.Int("cluster.rolls", 1, "how often everything is restarted under load")
	clusterClocks = flag.Bool("cluster.clocks", false, "build programs whose clocks can be set, and have clocks jump as well; everything is compiled anew for it")
	clusterFrom   = flag.String("cluster.from", "", "directory of programs that were built earlier: everything begins with them, and each restart of everything changes between them and this tree's")
)

// slowDisksFirst is a seed whose first faults are slow disks, of a worker and of a NATS server, so that a short round has them.
const slowDisksFirst = 424

func TestFaults_aShortRoundHasSlowDisks(t *testing.T) {
	for i, list := range [][]clusterFault{serviceFaults, storeFaults} {
		if f := anyFault(list, faultsOf(slowDisksFirst, i)); !strings.HasPrefix(f.name, "the disk of a") || !strings.HasSuffix(f.name, "is slow") {
			t.Errorf("the first fault of list %d is %q: choose another seed", i, f.name)
		}
	}
}

// afterFaults is within which all must be well once no fault is made any more.
const afterFaults = 20 * time.Second

func seeded(t *testing.T) uint64 {
	t.Helper()
	seed := *clusterSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-cluster.seed=%d", seed)
	return seed
}

// TestAlone_ChaosCluster has people push and programs call the API while processes, servers of NATS and Redis and the ways between them
// fail, in an order that the seed gives. Afterwards the API tells of each push once, what was pushed last is live and served, and
// nothing is left over.
//
// make chaos-cluster runs it for long.
func TestAlone_ChaosCluster(t *testing.T) {
	seed := seeded(t)
	c := openCluster(t, pair)
	c.sayWhereTheyStand()
	l := c.prepare(t, *clusterRepos)
	before := c.inventory()
	l.begin(seed, *clusterRate, *clusterPushes, 2)
	if *clusterClocks {
		l.clocksJump()
	}
	until := time.Now().Add(*clusterFor)
	made := &faults{}
	c.suffer(t, seed, made, func() bool {
		return time.Now().After(until) || made.sum() >= *clusterFaults || l.pushed.Load() >= *clusterPushes
	})
	l.end()
	if t.Failed() {
		return
	}
	began := time.Now()
	c.awaitReady()
	l.settle("after all trouble", afterFaults)
	t.Logf("all well %v after the last fault", time.Since(began).Round(100*time.Millisecond))
	sum := l.check()
	l.leftNothing(before)
	l.noSecrets()
	t.Logf("%v\n%d faults:\n%v%v", sum, made.sum(), made, toldOf(l.made()))
}

// toldOf is how calls went.
func toldOf(calls []clusterCall) string {
	var took []time.Duration
	failed := map[string]int{}
	for _, call := range calls {
		took = append(took, call.took)
		if call.err != nil {
			why, _, _ := strings.Cut(call.err.Error(), ":")
			failed[why]++
		}
	}
	if len(took) == 0 {
		return "no calls"
	}
	slices.Sort(took)
	at := func(part float64) time.Duration {
		return took[int(part*float64(len(took)-1))].Round(time.Millisecond)
	}
	return fmt.Sprintf("%d calls of programs without tries of their own: median %v, 99 %% within %v, longest %v; failed: %v", len(took), at(0.5), at(0.99), at(1), failed)
}
