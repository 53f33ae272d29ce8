package natsstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

const ws = "acme-inc"

func open(t *testing.T) *natsstore.Store {
	t.Helper()
	s := natsstore.New(testkit.JS(t), testkit.Logger(t).Logger, nil)
	if _, err := s.Get(t.Context(), ws, "x"); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("Get before Open: %v", err)
	}
	for range 2 {
		if err := s.Open(t.Context()); err != nil {
			t.Fatalf("Open: %v", err)
		}
	}
	return s
}

func TestEnsure_callersAtOnceGetOneWebhook(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	recs := make([]*storev1.WebhookRecord, 16)
	for i := range recs {
		wg.Go(func() {
			rec, err := s.Ensure(t.Context(), ws, "repo", func() string { return fmt.Sprint("id", i) }, func(rec *storev1.WebhookRecord) error {
				rec.RepositoryFullName = "acme/web"
				return nil
			})
			if err != nil {
				t.Errorf("Ensure: %v", err)
			}
			recs[i] = rec
		})
	}
	wg.Wait()
	for _, rec := range recs {
		if rec.GetId() != recs[0].GetId() || rec.GetNumber() != recs[0].GetNumber() {
			t.Fatalf("two webhooks: %v and %v", rec, recs[0])
		}
	}
	byID, err := s.GetByID(t.Context(), recs[0].GetId())
	if err != nil || byID.GetRepository() != "repo" {
		t.Errorf("by id: %v, %v", byID, err)
	}
	byNumber, err := s.GetByNumber(t.Context(), ws, recs[0].GetNumber())
	if err != nil || byNumber.GetId() != recs[0].GetId() {
		t.Errorf("by number: %v, %v", byNumber, err)
	}
	dir, err := s.Workspace(t.Context(), ws)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for n := int32(1); n <= dir.GetLastNumber(); n++ {
		rec, err := s.GetByNumber(t.Context(), ws, n)
		if err == nil && rec.GetNumber() == n {
			found++
		} else if err != nil && !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("place %d: %v", n, err)
		}
	}
	if found != 1 {
		t.Errorf("the directory has %d webhooks", found)
	}
}

func TestEnsure_finishesWhatADeadCallerBegan(t *testing.T) {
	s := open(t)
	died := errors.New("killed here")
	if _, err := s.Ensure(t.Context(), ws, "repo", func() string { return "first" }, func(*storev1.WebhookRecord) error { return died }); !errors.Is(err, died) {
		t.Fatalf("Ensure: %v", err)
	}
	rec, err := s.Ensure(t.Context(), ws, "repo", func() string { return "second" }, func(*storev1.WebhookRecord) error { return nil })
	if err != nil || rec.GetId() != "first" {
		t.Errorf("webhook %v, %v: the id that was claimed first is the one", rec, err)
	}
}

func TestDeliveries_liveInARing(t *testing.T) {
	s := open(t)
	put := func(number int32, label string) {
		t.Helper()
		err := s.PutDeliveries(t.Context(), ws, "w", []*storev1.DeliveryRecord{{Delivery: &webhookv1.Delivery{Workspace: ws, Webhook: "w", Number: number, ActorLabel: label}}})
		if err != nil {
			t.Fatalf("PutDeliveries: %v", err)
		}
	}
	get := func(number int32) string {
		t.Helper()
		rec, err := s.Delivery(t.Context(), ws, "w", number)
		if errors.Is(err, kv.ErrNotFound) {
			return "gone"
		}
		if err != nil {
			t.Fatalf("Delivery: %v", err)
		}
		return rec.GetDelivery().GetActorLabel()
	}
	put(5, "five")
	put(5, "five again")
	if got := get(5); got != "five" {
		t.Errorf("delivery 5 is %q: a repeat must change nothing", got)
	}
	const round = natsstore.KeptDeliveries + natsstore.PageDeliveries // its page is used again
	put(5+natsstore.KeptDeliveries-1, "the last beside which it is kept")
	if got := get(5); got != "five" {
		t.Errorf("delivery 5 is %q: the last %d are kept", got, natsstore.KeptDeliveries)
	}
	put(5+round, "successor")
	put(5, "late") // an older one that comes again
	if got := get(5); got != "gone" {
		t.Errorf("delivery 5 is %q", got)
	}
	if got := get(5 + round); got != "successor" {
		t.Errorf("its successor is %q", got)
	}
	for _, number := range []int32{5, 6, 0, -5} {
		_, err := s.UpdateDelivery(t.Context(), ws, "w", number, func(*storev1.DeliveryRecord) error { return nil })
		if !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("update of delivery %d: %v", number, err)
		}
	}
	if _, err := s.UpdateDelivery(t.Context(), "other", "w", 5+round, func(*storev1.DeliveryRecord) error { return nil }); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("from another workspace: %v", err)
	}
}

func TestUpdate_ofWhatIsNotThere(t *testing.T) {
	s := open(t)
	called := false
	_, err := s.Update(t.Context(), ws, "none", func(*storev1.WebhookRecord) error { called = true; return nil })
	if !errors.Is(err, kv.ErrNotFound) || called {
		t.Errorf("Update: %v, called %v", err, called)
	}
	ledger, err := s.Ledger(t.Context(), ws, "none")
	if err != nil || ledger.GetLastNumber() != 0 {
		t.Errorf("Ledger: %v, %v", ledger, err)
	}
	if _, err := s.InboxDelivery(context.Background(), 7, 0); !errors.Is(err, natsstore.ErrBodyGone) {
		t.Errorf("InboxDelivery: %v", err)
	}
}
