package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

var (
	frozenServices = flag.String("frozen.services", "auth,gateway", "of which services one of three processes stands still, one after the other")
	frozenCalls    = flag.Int("frozen.calls", 60, "how many calls are made at least while one stands still and all others know")
)

const (
	three = 3
	// knownBy is how long after one stood still everybody keeps away from it. Calls that begin later know nothing of it.
	knownBy = 5 * time.Second
	// frozenRPCs is how many RPCs the others of its service answer at least, beside which those that still went to it are few.
	frozenRPCs = 120
	// frozenPrograms call the API from the beginning, and as many again once everybody knows.
	frozenPrograms = 4
)

// TestAlone_OneOfThreeFrozen has one of three processes of a service stand still while programs call the API: a call that may be made again
// does not fail, no call fails that began when everybody knew, and the others do its work.
//
// make frozen runs it for longer, and its table says how long calls took.
func TestAlone_OneOfThreeFrozen(t *testing.T) {
	seed := seeded(t)
	c := openCluster(t, three)
	l := c.prepare(t, *clusterRepos)
	for i, service := range strings.Split(*frozenServices, ",") {
		l.freeze(seed+uint64(i), seat{service, i % three})
	}
	l.settle("after all stood still", afterFaults)
	t.Logf("%v", l.check())
}

// freeze has a process stand still under load until so much was asked of the others that it would show.
func (l *crowd) freeze(seed uint64, p seat) {
	l.t.Helper()
	l.begin(seed, *clusterRate, *clusterPushes, frozenPrograms)
	before := map[seat]uint64{}
	for i := range l.c.replicas[p.service] {
		before[seat{p.service, i}] = l.c.served(seat{p.service, i})
	}
	others := func() (n uint64) {
		for other, was := range before {
			if other != p {
				n += l.c.served(other) - was
			}
		}
		return n
	}
	before[p] = l.c.served(p)
	l.c.at(p).Stop()
	frozen := time.Now()
	goesOn(knownBy)
	late, stop := context.WithCancel(l.t.Context())
	defer stop()
	l.programs(late, seed+1, frozenPrograms) // those before may all wait for it
	testkit.Eventually(l.t, timeout, func() error {
		if calls := l.between(frozen.Add(knownBy), time.Now()); len(calls) < *frozenCalls || others() < frozenRPCs {
			return fmt.Errorf("while %v stands still: %d calls after %v, %d RPCs answered by the others", p, len(calls), knownBy, others())
		}
		return nil
	})
	stop()
	l.stop()
	answered := others()
	l.c.at(p).Continue() // who waits for it goes on
	l.end()
	asked := l.c.served(p) - before[p]
	if 4*asked > answered {
		l.t.Errorf("%v was asked %d times while it stood still, the others %d times", p, asked, answered)
	}
	l.c.await(l.c.at(p))
	l.failedBeside(p, frozen)
	l.t.Logf("%v stood still, and was asked %d times, the others %d times\n  began within %v: %v\n  began later:     %v", p, asked, answered, knownBy,
		toldOf(l.between(frozen, frozen.Add(knownBy))), toldOf(l.between(frozen.Add(knownBy), time.Now())))
}

// failedBeside fails the test for calls that should not have. What had gone to a gateway before the front knew is lost with it.
func (l *crowd) failedBeside(p seat, frozen time.Time) {
	l.t.Helper()
	for _, call := range l.made() {
		known := call.at.After(frozen.Add(knownBy))
		again := strings.HasPrefix(call.what, http.MethodGet) && p.service != "gateway"
		if call.err != nil && (known || again) {
			l.t.Errorf("%s, %v after %v stood still: after %v: %v", call.what, call.at.Sub(frozen).Round(time.Millisecond), p, call.took.Round(time.Millisecond), call.err)
		}
	}
}

// served is how many requests a process has had so far: RPCs, and at a gateway requests of people and programs.
func (c *cluster) served(p seat) (n uint64) {
	c.t.Helper()
	families := scrape(c.t, c.at(p).ops)
	name := "devpilot_rpc_server_duration_seconds"
	if p.service == "gateway" {
		name = "devpilot_http_request_duration_seconds"
	}
	if families[name] == nil {
		c.t.Fatalf("%v does not tell %s", p, name)
	}
	for _, m := range families[name].GetMetric() {
		n += m.GetHistogram().GetSampleCount()
	}
	return n
}
