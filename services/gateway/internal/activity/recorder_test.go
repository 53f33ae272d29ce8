package activity

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m, func() error { return goleak.Find() }) }

func recorderOver(t *testing.T) (*Recorder, *Store, prometheus.Counter) {
	t.Helper()
	store := NewStore(testkit.NATS(t).JS(), 0)
	if err := store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost := prometheus.NewCounter(prometheus.CounterOpts{Name: "lost"})
	return NewRecorder(logs.Discard(), lost), store, lost
}

// drained writes all that waits.
func drained(t *testing.T, r *Recorder, store *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ctx, store)
}

func TestRecorder_whatWaitsIsNumberedTogetherInItsOrder(t *testing.T) {
	r, store, lost := recorderOver(t)
	const each = 20
	for i := range each {
		for _, workspace := range []string{"acme", "other"} {
			r.Record(t.Context(), Entry{Workspace: workspace, Time: time.Now(), Action: fmt.Sprint("action-", i)})
		}
	}
	drained(t, r, store)
	r.Record(t.Context(), Entry{Workspace: "acme", Time: time.Now(), Action: fmt.Sprint("action-", each)})
	drained(t, r, store)

	for workspace, want := range map[string]int{"acme": each + 1, "other": each} {
		list, next, err := store.List(t.Context(), workspace, Filter{}, 0, 100)
		if err != nil || next != 0 || len(list) != want {
			t.Fatalf("%s has %d records, next %d, %v; want %d", workspace, len(list), next, err, want)
		}
		for i, a := range list { // the newest first
			if n := want - i; a.GetNumber() != int32(n) || a.GetAction() != fmt.Sprint("action-", n-1) {
				t.Fatalf("%s: record %d is number %d, %s", workspace, n, a.GetNumber(), a.GetAction())
			}
		}
	}
	if n := testutil.ToFloat64(lost); n != 0 {
		t.Fatalf("%v records are lost", n)
	}
	// A bucket's revision counts its writes: one for each workspace of the first turn, and one for the second.
	if _, revision, err := store.counters.Get(t.Context(), "acme"); err != nil || revision != 3 {
		t.Fatalf("the counters were written %d times, want 3: %v", revision, err)
	}
}

func TestStore_aRecordThatIsStoredAgainIsThereOnce(t *testing.T) {
	_, store, _ := recorderOver(t)
	first, err := store.number(t.Context(), "acme", 2)
	if err != nil || first != 1 {
		t.Fatalf("the first number is %d, %v", first, err)
	}
	record := Entry{Workspace: "acme", Time: time.Now(), Action: "app.create"}.record()
	record.Number = first
	for range 2 { // the answer to the first try was lost
		if err := store.put(t.Context(), "acme", record); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := store.List(t.Context(), "acme", Filter{}, 0, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d records, %v; want 1", len(list), err)
	}
}
