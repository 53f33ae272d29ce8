package census_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/census"
)

var now = time.Unix(1_800_000_000, 0)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

func collector(c *census.Census, complete *bool) *census.Collector {
	return census.NewCollector(c, census.Config{
		Complete: func() bool { return *complete }, Servers: func() []string { return []string{"default", "idle"} }, Now: func() time.Time { return now },
	})
}

func TestCensus_countsWhatLanesHaveToDo(t *testing.T) {
	c, complete := census.New(), true
	col := collector(c, &complete)
	c.Note("a.one", &storev1.Lane{
		Running: &storev1.Running{Job: &storev1.Job{Server: "default", AskTime: ago(time.Hour)}, StartTime: ago(30 * time.Second)},
		Waiting: &storev1.Job{Server: "default", AskTime: ago(20 * time.Second)},
	})
	c.Note("a.two", &storev1.Lane{Waiting: &storev1.Job{Server: "other", AskTime: ago(40 * time.Second)}})
	c.Note("a.three", &storev1.Lane{Candidates: []*storev1.Candidate{{ReceiveTime: ago(7 * time.Second)}, {ReceiveTime: ago(6 * time.Second)}}})
	c.Note("a.four", &storev1.Lane{LastNumber: 9}) // nothing to do
	says(t, col, 1, 2, 40, 30, 2, 7)

	c.Note("a.two", &storev1.Lane{LastNumber: 1})                                                            // done
	c.Note("a.three", nil)                                                                                   // gone
	c.Note("a.one", &storev1.Lane{Retired: true, Waiting: &storev1.Job{Server: "default", AskTime: ago(1)}}) // its app is deleted
	says(t, col, 0, 0, 0, 0, 0, 0)
}

func TestCensus_saysNothingBeforeItKnowsAllLanes(t *testing.T) {
	c, complete := census.New(), false
	if n := testutil.CollectAndCount(collector(c, &complete)); n != 0 {
		t.Errorf("%d series of what is not known", n)
	}
}

// A scrape costs what there is to do, not what there is: lanes without work are not kept.
func TestCensus_doesNotWalkOverIdleLanes(t *testing.T) {
	c, complete := census.New(), true
	col := collector(c, &complete)
	allocs := func() float64 {
		return testing.AllocsPerRun(10, func() {
			ch := make(chan prometheus.Metric, 100)
			col.Collect(ch)
		})
	}
	before := allocs()
	for i := range 100_000 {
		c.Note(fmt.Sprint("a.", i), &storev1.Lane{LastNumber: 1})
	}
	if after := allocs(); after != before {
		t.Errorf("a scrape takes %v allocations with 100,000 idle lanes and %v without", after, before)
	}
}

func says(t *testing.T, c prometheus.Collector, processing, pending int, oldestPending, oldestProcessing float64, undecided int, oldestUndecided float64) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "devpilot_deployer_")
			for _, l := range m.GetLabel() {
				if l.GetName() == "state" {
					name += " " + l.GetValue()
				}
			}
			got[name] += m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"deployments processing": float64(processing), "deployments pending": float64(pending), "oldest_pending_seconds": oldestPending,
		"oldest_processing_seconds": oldestProcessing, "undecided_pushes": float64(undecided), "oldest_undecided_seconds": oldestUndecided,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
