package refusals_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/refusals"
)

type fakeStore struct {
	mu     sync.Mutex
	rings  map[string]*storev1.RefusedRecord
	writes int
	fail   error
}

func (f *fakeStore) UpdateRefused(_ context.Context, _, webhook string, change func(*storev1.RefusedRecord) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.fail != nil {
		return f.fail
	}
	if f.rings[webhook] == nil {
		f.rings[webhook] = &storev1.RefusedRecord{}
	}
	return change(f.rings[webhook])
}

func (f *fakeStore) last(webhook string) (number int32, kept, writes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rings[webhook].GetLastNumber(), len(f.rings[webhook].GetRequests()), f.writes
}

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func start(t *testing.T, store refusals.Store, now func() time.Time) *refusals.Ring {
	t.Helper()
	r := refusals.New(refusals.Config{Store: store, Refused: func(context.Context, *webhookv1.Delivery) error { return nil }, Logger: logs.Discard(), Now: now})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func TestAdd_floodCausesFewWrites(t *testing.T) {
	store := &fakeStore{rings: map[string]*storev1.RefusedRecord{}}
	c := &clock{now: time.Now()}
	r := start(t, store, c.Now)
	for range 10_000 {
		r.Add(&webhookv1.Delivery{Webhook: "flooded"})
	}
	r.Add(&webhookv1.Delivery{Webhook: "other"})
	testkit.Eventually(t, 5*time.Second, func() error {
		if n, _, _ := store.last("other"); n != 1 {
			return errors.New("another webhook's refused request is not kept")
		}
		return nil
	})
	if _, _, writes := store.last("flooded"); writes > 10 {
		t.Errorf("%d writes", writes)
	}
}

func TestAdd_keepsTheNewest(t *testing.T) {
	store := &fakeStore{rings: map[string]*storev1.RefusedRecord{}}
	c := &clock{now: time.Now()}
	r := start(t, store, c.Now)
	for i := range refusals.Kept + 5 {
		c.advance(time.Minute)
		r.Add(&webhookv1.Delivery{Webhook: "w"})
		testkit.Eventually(t, 5*time.Second, func() error {
			if n, _, _ := store.last("w"); n != int32(i+1) {
				return fmt.Errorf("%d kept", n)
			}
			return nil
		})
	}
	number, kept, _ := store.last("w")
	if number != refusals.Kept+5 || kept != refusals.Kept {
		t.Errorf("last number %d, %d kept", number, kept)
	}
	if first := store.rings["w"].GetRequests()[0].GetNumber(); first != 6 {
		t.Errorf("the oldest is number %d", first)
	}
}

func TestAdd_storeTroubleBlocksNobody(t *testing.T) {
	store := &fakeStore{rings: map[string]*storev1.RefusedRecord{}, fail: errors.New("away")}
	r := start(t, store, time.Now)
	for i := range 1000 {
		r.Add(&webhookv1.Delivery{Webhook: fmt.Sprint(i)})
	}
	testkit.Eventually(t, 5*time.Second, func() error {
		if _, _, writes := store.last("0"); writes == 0 {
			return errors.New("nothing was tried")
		}
		return nil
	})
}
