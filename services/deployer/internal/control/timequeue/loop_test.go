package timequeue_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/control/timequeue"
)

// run runs a loop until the returned function is called.
func run(t *testing.T, l *timequeue.Loop, do func(ctx context.Context, key string) time.Time) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(ctx, do) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func TestLoop_doesEachThingWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := timequeue.NewLoop(2, time.Now)
		start := time.Now()
		var mu sync.Mutex
		var done []string
		stop := run(t, l, func(_ context.Context, key string) time.Time {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, fmt.Sprint(key, " ", time.Since(start)))
			if key == "again" && len(done) < 6 {
				return time.Now().Add(7 * time.Second)
			}
			return time.Time{}
		})
		l.Set("late", start.Add(time.Minute))
		l.Set("again", start.Add(time.Second))
		l.Set("gone", start.Add(2*time.Second))
		l.Set("moved", start.Add(time.Hour))
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // the clock is the test's own
		l.Remove("gone")
		l.Set("moved", start.Add(20*time.Second))
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the clock is the test's own
		stop()
		want := []string{"again 1s", "again 8s", "again 15s", "moved 20s", "again 22s", "again 29s", "late 1m0s"}
		if !slices.Equal(done, want) {
			t.Errorf("%q, want %q", done, want)
		}
	})
}

func TestLoop_whatIsSaidMeanwhileCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := timequeue.NewLoop(4, time.Now)
		start := time.Now()
		var mu sync.Mutex
		runs := map[string]int{}
		stop := run(t, l, func(_ context.Context, key string) time.Time {
			mu.Lock()
			runs[key]++
			n := runs[key]
			mu.Unlock()
			time.Sleep(10 * time.Second) //nolint:forbidigo // the clock is the test's own
			mu.Lock()
			defer mu.Unlock()
			if runs[key] != n {
				t.Errorf("%s runs twice at once", key)
			}
			return time.Now().Add(time.Hour)
		})
		for _, key := range []string{"set", "removed", "both"} {
			l.Set(key, start)
		}
		time.Sleep(time.Second) //nolint:forbidigo // the clock is the test's own
		l.Set("set", start)
		l.Set("both", start)
		l.Remove("both") // it comes again as do said
		l.Remove("removed")
		time.Sleep(time.Minute) //nolint:forbidigo // the clock is the test's own
		stop()
		if runs["set"] != 2 || runs["removed"] != 1 || runs["both"] != 1 {
			t.Errorf("%v", runs)
		}
	})
}

// TestLoop_aClockThatIsSetForward: what is due by then is done soon.
func TestLoop_aClockThatIsSetForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ahead time.Duration
		l := timequeue.NewLoop(1, func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(ahead)
		})
		done := make(chan string, 1)
		stop := run(t, l, func(_ context.Context, key string) time.Time {
			done <- key
			return time.Time{}
		})
		l.Set("a", time.Now().Add(time.Hour))
		synctest.Wait()
		mu.Lock()
		ahead = 2 * time.Hour
		mu.Unlock()
		begin := time.Now()
		<-done
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("after %v", d)
		}
		stop()
	})
}
