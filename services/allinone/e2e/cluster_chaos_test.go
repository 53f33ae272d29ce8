package e2e

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

var (
	clusterFor    = flag.Duration("cluster.for", 15*time.Second, "how long faults are made")
	clusterPushes = flag.Int64("cluster.pushes", math.MaxInt64, "how many pushes are made at most")
	clusterFaults = flag.Int("cluster.faults", math.MaxInt, "how many faults are made at most")
	clusterRate   = flag.Float64("cluster.rate", 3, "pushes in a second")
	clusterSeed   = flag.Uint64("cluster.seed", 1, "which faults and when; zero is others each time")
	clusterRepos  = flag.Int("cluster.repositories", 2, "how many repositories there are; a webhook keeps its newest 1,000 deliveries")
	clusterLogs   = flag.String("cluster.logs", "", "directory where logs of all processes stay; none when empty")
	clusterRolls  = flag.Int("cluster.rolls", 1, "how often everything is restarted under load")
)

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
	c := openCluster(t)
	l := c.prepare(t, *clusterRepos)
	before := c.inventory()
	l.begin(seed, *clusterRate, *clusterPushes, 2)
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
	t.Logf("%v\n%d faults:\n%v%v", sum, made.sum(), made, l.told(time.Time{}))
}

// TestAlone_RollingRestarts restarts every process of the services and every server of NATS, one after the other, while
// people push and programs call the API without trying again: no call fails, and no delivery is refused.
func TestAlone_RollingRestarts(t *testing.T) {
	seed := seeded(t)
	c := openCluster(t)
	l := c.prepare(t, *clusterRepos)
	before := c.inventory()
	l.begin(seed, *clusterRate, *clusterPushes, 2)
	for range *clusterRolls {
		for _, service := range testkit.Services {
			c.roll(service)
		}
		c.rollNATS()
	}
	l.end()
	l.settle("after all restarts", afterFaults)
	sum := l.check()
	for _, call := range l.calls {
		if call.err != nil {
			t.Errorf("%s at %s, after %v: %v", call.what, call.at.Format("15:04:05.000"), call.took.Round(time.Millisecond), call.err)
		}
	}
	// A push may be found as well: a server of NATS that restarts holds up what was taken, and polls look meanwhile.
	if sum.taken != sum.pushes {
		t.Errorf("not every delivery was taken: %v", sum)
	}
	l.leftNothing(before)
	l.noSecrets()
	t.Logf("%d restarts of everything\n%v\n%v", *clusterRolls, sum, l.told(time.Time{}))
}

// told is how calls went that began after a time.
func (l *crowd) told(since time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []time.Duration
	failed := map[string]int{}
	for _, call := range l.calls {
		if call.at.Before(since) {
			continue
		}
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
