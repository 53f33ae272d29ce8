package status

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// short is a budget that has nothing left for the background until it is filled.
type short struct {
	filled atomic.Bool
	asked  atomic.Int32
}

func (s *short) Take(_ context.Context, c bitbucket.Call, p bitbucket.Priority, _ string) time.Duration {
	if s.filled.Load() || p != bitbucket.Background {
		return 0
	}
	s.asked.Add(1)
	return time.Minute
}

func (s *short) Exhausted(context.Context, bitbucket.Call, time.Duration) {}

// TestSender_holdsBackWhileTheBudgetIsShort: nothing is lost however long it takes, a later state takes an
// earlier one's place, and it costs one call.
func TestSender_holdsBackWhileTheBudgetIsShort(t *testing.T) {
	w := newWorld(t)
	budget := &short{}
	client := bitbucket.NewClient(w.client.Site(), bitbucket.ClientOptions{Budget: budget})
	with := func(c *Config) { c.Client = client }
	stop := w.run(w.sender(with))
	w.record(1, running)
	w.waiting(1)
	next := w.next("two")
	w.record(2, func(d *deployerv1.Deployment) { running(d); d.Commit.Hash = next })
	w.record(1, completed)
	w.waiting(2)
	w.offset.Store(int64(time.Hour)) // far longer than trouble is waited out
	w.waiting(2)
	stop() // the next process knows of them too
	if n := w.calls(); n != 0 || budget.asked.Load() == 0 {
		t.Fatalf("%d calls while none is left", n)
	}
	w.run(w.sender(with))
	budget.filled.Store(true)
	w.offset.Store(int64(2 * time.Hour))
	w.settled()
	if got := w.states(); got[w.commit] != "SUCCESSFUL" || got[next] != "INPROGRESS" {
		t.Errorf("statuses %v", got)
	}
	if n := w.calls(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

// TestSender_holdsBackAfterA429 the same way.
func TestSender_holdsBackAfterA429(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender())
	fault, err := w.control.Inject(t.Context(), emulator.Fault{Method: "POST", Route: statusRoute, Status: http.StatusTooManyRequests})
	if err != nil {
		t.Fatal(err)
	}
	w.record(1, running)
	w.waiting(1)
	w.record(1, completed)
	w.waiting(1)
	w.offset.Store(int64(timeout + time.Minute))
	testkit.Eventually(t, 15*time.Second, func() error { // asked again, and still held back
		if n := w.calls(); n < 2 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	if err := w.control.RemoveFault(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	w.offset.Store(int64(3 * timeout))
	w.shows("connection-1", "SUCCESSFUL")
	w.settled()
}
