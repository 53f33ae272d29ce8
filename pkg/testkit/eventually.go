package testkit

import (
	"testing"
	"time"
)

// Eventually calls check until it returns nil, and fails the test with check's last error when
// that takes longer than timeout. It is how tests wait: for a condition, never for a time.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	pause := time.Millisecond
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", timeout, err)
		}
		<-time.After(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}
