package testkit

import (
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// busy is how many times longer than on a quiet machine a condition may take to come true: tests run
// beside others, under the race detector, and how fast something is belongs into a benchmark.
const busy = 4

// Eventually calls check until it returns nil, and fails the test with check's last error when
// that takes much longer than timeout, which is what it takes a quiet machine at most. It is how
// tests wait: for a condition, never for a time.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(busy * timeout)
	pauses := backoff.ExponentialBackOff{InitialInterval: time.Millisecond, MaxInterval: 50 * time.Millisecond, Multiplier: 2}
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", busy*timeout, err)
		}
		<-time.After(pauses.NextBackOff())
	}
}
