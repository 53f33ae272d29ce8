package servicemain_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/ops"
	"devpilot.io/bitbucket/pkg/servicemain"
)

// A door opens when all is ready, stays open, and sends callers elsewhere while something is amiss for
// long, and once the process shuts down.
func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trouble atomic.Pointer[error]
		amiss := errors.New("stores are not open yet")
		trouble.Store(&amiss)
		var readiness ops.Readiness
		readiness.Add("service", func(context.Context) error {
			if err := trouble.Load(); err != nil {
				return *err
			}
			return nil
		})
		d := servicemain.NewDoor()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Keep(ctx, &readiness, nil) }()
		after := func(wait time.Duration, want healthpb.HealthCheckResponse_ServingStatus, open bool) {
			t.Helper()
			<-time.After(wait) // the bubble's clock
			synctest.Wait()
			got, err := d.Health.Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil || got.GetStatus() != want || d.Open() != open {
				t.Fatalf("health %v, %v, open %t; want %v, %t", got.GetStatus(), err, d.Open(), want, open)
			}
		}
		const no, yes = healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING
		after(10*time.Second, no, false)
		trouble.Store(nil)
		after(time.Second, yes, true)
		trouble.Store(&amiss) // for a while
		after(25*time.Second, yes, true)
		trouble.Store(nil)
		after(time.Minute, yes, true)
		trouble.Store(&amiss) // for longer
		after(time.Minute, no, true)
		trouble.Store(nil)
		after(2*time.Second, yes, true)
		readiness.Drain()
		after(2*time.Second, no, true)
		cancel()
		<-done
	})
}
