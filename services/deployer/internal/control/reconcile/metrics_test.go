package reconcile

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"devpilot.io/bitbucket/services/deployer/internal/metrics"
	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
)

// A reconciler that stands still shows: its age grows, and what is due is late.
func TestMetrics_aReconcilerThatStandsStillShows(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	r := New(Config{Now: func() time.Time { return now }})
	says := func(answered, failing, age, overdue string) {
		t.Helper()
		want := `# HELP devpilot_deployer_reconcile_age_seconds Time since this process last looked at any repository, 0 where there is none to look at.
# TYPE devpilot_deployer_reconcile_age_seconds gauge
devpilot_deployer_reconcile_age_seconds ` + age + `
# HELP devpilot_deployer_reconcile_overdue_seconds For how long the repository that has been due for longest has waited for its poll in this process.
# TYPE devpilot_deployer_reconcile_overdue_seconds gauge
devpilot_deployer_reconcile_overdue_seconds ` + overdue + `
# HELP devpilot_deployer_reconcile_repositories Repositories whose branches are compared with Bitbucket: those whose last poll answered, and those whose last poll by this process failed.
# TYPE devpilot_deployer_reconcile_repositories gauge
devpilot_deployer_reconcile_repositories{state="answered"} ` + answered + `
devpilot_deployer_reconcile_repositories{state="failing"} ` + failing + "\n"
		if err := testutil.CollectAndCompare(r.Metrics(), strings.NewReader(want), "devpilot_deployer_reconcile_age_seconds", "devpilot_deployer_reconcile_overdue_seconds", "devpilot_deployer_reconcile_repositories"); err != nil {
			t.Error(err)
		}
	}
	now = now.Add(time.Hour)
	says("0", "0", "0", "0") // nobody watches anything: nothing is late
	r.changed("k", watchedBy("web"))
	r.loop.Set("k", now)
	now = now.Add(10 * time.Minute)
	says("1", "0", "600", "600")
	r.loop.Set("k", r.turned("k", now.Add(time.Minute), true))
	says("0", "1", "0", "0")
}

func TestMetrics_countsPollsAndWhatTheyFound(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	m, err := metrics.New(reg, func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Now: time.Now, Found: m.PushBy(verdict.Poll)})
	reg.MustRegister(r.Metrics())
	r.metrics.poll(nil)
	r.metrics.poll(errors.New("away"))
	r.counted(&tally{made: make([]made, 3), turned: make([]decision, 2), proposed: make([]decision, 1)})
	want := `# HELP devpilot_deployer_pushes_total Pushes, for each app that they are about, by who decided (delivery, worker, poll) and what came of it (deploys, ignored, repeated, deciding). Those by poll were told of by no delivery.
# TYPE devpilot_deployer_pushes_total counter
devpilot_deployer_pushes_total{by="delivery",verdict="deciding"} 0
devpilot_deployer_pushes_total{by="delivery",verdict="deploys"} 0
devpilot_deployer_pushes_total{by="delivery",verdict="ignored"} 0
devpilot_deployer_pushes_total{by="delivery",verdict="repeated"} 0
devpilot_deployer_pushes_total{by="poll",verdict="deciding"} 1
devpilot_deployer_pushes_total{by="poll",verdict="deploys"} 3
devpilot_deployer_pushes_total{by="poll",verdict="ignored"} 2
devpilot_deployer_pushes_total{by="worker",verdict="deploys"} 0
devpilot_deployer_pushes_total{by="worker",verdict="ignored"} 0
devpilot_deployer_pushes_total{by="worker",verdict="repeated"} 0
# HELP devpilot_deployer_reconcile_polls_total Comparisons of a repository's branches with Bitbucket, by result: answered or failed.
# TYPE devpilot_deployer_reconcile_polls_total counter
devpilot_deployer_reconcile_polls_total{result="answered"} 1
devpilot_deployer_reconcile_polls_total{result="failed"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "devpilot_deployer_pushes_total", "devpilot_deployer_reconcile_polls_total"); err != nil {
		t.Error(err)
	}
}
