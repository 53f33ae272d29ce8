package fleet_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// A server whose workers are all silent is told of, with none; of the disks the fullest counts.
func TestCollector_tellsOfServersFromTheSignsOfLife(t *testing.T) {
	t.Parallel()
	log := testkit.Logger(t).Logger
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := fleet.New(st.Servers, st.Workers, log, func() time.Time { return now })
	if testutil.CollectAndCount(fleet.NewCollector(r)) != 0 {
		t.Error("something is told before anything is known")
	}
	for _, server := range []string{"default", "silent"} {
		if err := r.Join(t.Context(), server, "directory-of-"+server); err != nil {
			t.Fatal(err)
		}
	}
	worker := func(age time.Duration, slots, busy, free int32) *storev1.Worker {
		return &storev1.Worker{SeenTime: timestamppb.New(now.Add(-age)), Slots: slots, Busy: busy, DiskFreeMib: proto.Int32(free), DiskReserveMib: 10}
	}
	for server, workers := range map[string]map[string]*storev1.Worker{
		"default": {"a": worker(0, 4, 1, 300), "b": worker(time.Second, 2, 2, 100), "dead": worker(time.Hour, 8, 8, 1)},
		"silent":  {"c": worker(2*time.Minute, 4, 0, 1)},
	} {
		if _, _, err := st.Workers.Update(t.Context(), server, func(*storev1.Workers) (*storev1.Workers, error) {
			return &storev1.Workers{Workers: workers}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	want := `# HELP devpilot_deployer_disk_free_bytes Room on the fullest disk of a server's live workers, of those that hold releases and mirrors; all replicas tell the same.
# TYPE devpilot_deployer_disk_free_bytes gauge
devpilot_deployer_disk_free_bytes{server="default"} 1.048576e+08
# HELP devpilot_deployer_worker_slots_busy Deployments that a server's live workers ran at their last sign of life; all replicas tell the same.
# TYPE devpilot_deployer_worker_slots_busy gauge
devpilot_deployer_worker_slots_busy{server="default"} 3
devpilot_deployer_worker_slots_busy{server="silent"} 0
# HELP devpilot_deployer_workers Workers of a server that gave a sign of life within the last minute; all replicas tell the same.
# TYPE devpilot_deployer_workers gauge
devpilot_deployer_workers{server="default"} 2
devpilot_deployer_workers{server="silent"} 0
`
	testkit.Eventually(t, 30*time.Second, func() error {
		return testutil.CollectAndCompare(fleet.NewCollector(r), strings.NewReader(want), "devpilot_deployer_workers", "devpilot_deployer_worker_slots_busy", "devpilot_deployer_disk_free_bytes")
	})
}
