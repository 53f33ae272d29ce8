package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// TestLiveAddresses_signsAgeOnlyWhileSomebodyGivesThem: a store that is away silences all workers, and none
// of them is taken for dead; one that is silent while others are not comes last, and is forgotten.
func TestLiveAddresses_signsAgeOnlyWhileSomebodyGivesThem(t *testing.T) {
	t.Parallel()
	log := testkit.Logger(t).Logger
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := fleet.New(st.Servers, st.Workers, log, func() time.Time { return now.Add(24 * time.Hour) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	put := func(server string, ages map[string]time.Duration) {
		t.Helper()
		rec := &storev1.Workers{Workers: map[string]*storev1.Worker{"silent-about-it": {SeenTime: timestamppb.New(now)}}}
		for address, age := range ages {
			rec.Workers[address] = &storev1.Worker{LiveAddress: address, LiveEncrypted: address == "b:1", SeenTime: timestamppb.New(now.Add(-age))}
		}
		if _, _, err := st.Workers.Update(t.Context(), server, func(*storev1.Workers) (*storev1.Workers, error) { return rec, nil }); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(server string, want ...string) {
		t.Helper()
		testkit.Eventually(t, 30*time.Second, func() error {
			if got := r.LiveAddresses(server); !slices.Equal(got, want) {
				return fmt.Errorf("%s: %q, want %q", server, got, want)
			}
			return nil
		})
	}
	put("eu", map[string]time.Duration{"a:1": 2 * fleet.Alive, "b:1": 0, "c:1": fleet.Alive / 2, "d:1": 2 * time.Hour})
	put("us", map[string]time.Duration{"x:1": 2 * fleet.Alive})
	wants("eu", "https://b:1", "http://c:1", "http://a:1")
	wants("us", "http://x:1")
	wants("nowhere")
	put("us", map[string]time.Duration{"x:1": -3 * fleet.Alive})
	wants("eu", "http://a:1", "https://b:1", "http://c:1")
}

// TestList_saysHowMuchRoomEachServerHas: what its workers see of the disk, and nothing of one that does not look or
// cannot.
func TestList_saysHowMuchRoomEachServerHas(t *testing.T) {
	t.Parallel()
	log := testkit.Logger(t).Logger
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
	if err != nil {
		t.Fatal(err)
	}
	r := fleet.New(st.Servers, st.Workers, log, time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	for server, disk := range map[string]func() (uint64, uint64, error){
		"eu":      func() (uint64, uint64, error) { return 5000 << 20, 256 << 20, nil },
		"full":    func() (uint64, uint64, error) { return 0, 256 << 20, nil },
		"vast":    func() (uint64, uint64, error) { return math.MaxUint64, math.MaxUint64, nil },
		"blind":   nil,
		"failing": func() (uint64, uint64, error) { return 0, 0, errors.New("no such file system") },
	} {
		if err := r.Join(ctx, server, "/srv/"+server); err != nil {
			t.Fatal(err)
		}
		w := fleet.Worker{Server: server, ID: "w-" + server, Busy: func() int32 { return 0 }, Disk: disk}
		all.Go(func() {
			if err := r.Beat(ctx, w); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	want := map[string]string{"blind": "none", "eu": "5000 of 256", "failing": "none", "full": "0 of 256", "vast": "2147483647 of 2147483647"}
	testkit.Eventually(t, 30*time.Second, func() error {
		got := map[string]string{}
		for _, s := range r.List() {
			for _, w := range s.GetWorkers() {
				got[s.GetId()] = "none"
				if w.DiskFreeMib != nil || w.DiskReserveMib != nil {
					got[s.GetId()] = fmt.Sprintf("%d of %d", w.GetDiskFreeMib(), w.GetDiskReserveMib())
				}
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}
