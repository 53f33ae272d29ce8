package deployer_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// gitRuns counts what was asked of git, by operation: of the program, or of a server over a kept connection.
func gitRuns(t *testing.T, reg *prometheus.Registry) map[string]uint64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]uint64{}
	for _, f := range families {
		if f.GetName() != "devpilot_deployer_git_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "operation" {
					runs[l.GetValue()] += m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	return runs
}

// While nobody pushes, a repository is asked over a connection that stays open, however often: no process is
// started for it.
func TestIdle_pollsStartNoProcess(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := newBenchOf(t, func(d *deployer.Deps) { d.Registerer = reg }, quick)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	const connected = "ls-refs"
	polls := func(n uint64) map[string]uint64 {
		from := gitRuns(t, reg)[connected]
		var now map[string]uint64
		testkit.Eventually(t, timeout, func() error {
			if now = gitRuns(t, reg); now[connected] < from+n {
				return fmt.Errorf("%d polls of %d", now[connected]-from, n)
			}
			return nil
		})
		return now
	}
	before := polls(1) // what the deployment began is over
	after := polls(5)
	if before["log"] == 0 {
		t.Error("the runs of the program are not counted")
	}
	delete(before, connected)
	delete(after, connected)
	if !maps.Equal(before, after) {
		t.Errorf("while nothing happened git was run: %v, before %v", after, before)
	}
}
