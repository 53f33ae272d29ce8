package natsstore_test

import (
	"fmt"
	"strings"
	"testing"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

func delivery(number int32, label string) *storev1.DeliveryRecord {
	return &storev1.DeliveryRecord{Delivery: &webhookv1.Delivery{Workspace: ws, Webhook: "w", Number: number, ActorLabel: label}}
}

func put(t *testing.T, s *natsstore.Store, recs ...*storev1.DeliveryRecord) {
	t.Helper()
	if err := s.PutDeliveries(t.Context(), ws, "w", recs); err != nil {
		t.Fatal(err)
	}
}

func wantDelivery(t *testing.T, s *natsstore.Store, number int32, label string, outcomes int) {
	t.Helper()
	rec, err := s.Delivery(t.Context(), ws, "w", number)
	if err != nil {
		t.Errorf("delivery %d: %v", number, err)
		return
	}
	d := rec.GetDelivery()
	if d.GetNumber() != number || d.GetActorLabel() != label || len(d.GetOutcomes()) != outcomes {
		t.Errorf("delivery %d: number %d, %d bytes of label, %d outcomes; want %d bytes, %d outcomes", number, d.GetNumber(), len(d.GetActorLabel()), len(d.GetOutcomes()), len(label), outcomes)
	}
}

// A delivery that is too large for its page is kept beside it, and its neighbours are as they were.
func TestPages_aLargeDeliveryHasARecordOfItsOwn(t *testing.T) {
	s := open(t)
	large := strings.Repeat("x", 20<<10)
	put(t, s, delivery(1, "one"), delivery(2, large), delivery(3, "three"))
	put(t, s, delivery(2, "again"), delivery(3, "again")) // a repeat changes neither
	wantDelivery(t, s, 1, "one", 0)
	wantDelivery(t, s, 2, large, 0)
	wantDelivery(t, s, 3, "three", 0)
	for n := range int32(3) {
		if _, err := s.UpdateDelivery(t.Context(), ws, "w", n+1, addOutcome("said")); err != nil {
			t.Errorf("outcome of delivery %d: %v", n+1, err)
		}
	}
	wantDelivery(t, s, 1, "one", 1)
	wantDelivery(t, s, 2, large, 1)
	wantDelivery(t, s, 3, "three", 1)
	// A small one that comes late under the number of the large one is the same delivery.
	put(t, s, delivery(2, "late"))
	wantDelivery(t, s, 2, large, 1)
}

func addOutcome(message string) func(*storev1.DeliveryRecord) error {
	return func(rec *storev1.DeliveryRecord) error {
		rec.Delivery.Outcomes = append(rec.Delivery.Outcomes, &webhookv1.DeliveryOutcome{Message: message})
		return nil
	}
}

// A page that its deliveries' outcomes make too large gives the largest away, and nothing is lost or doubled.
func TestPages_whatGrowsTooLargeMovesOut(t *testing.T) {
	s := open(t)
	const n = natsstore.PageDeliveries
	var recs []*storev1.DeliveryRecord
	for number := range int32(n) {
		recs = append(recs, delivery(number+1, fmt.Sprint("label ", number+1)))
	}
	put(t, s, recs...)
	// Four times as much as a page may hold, in all of them and most in the second.
	const rounds = 8
	share := (1 << 20) / n / rounds
	for range rounds {
		changes := map[int32]func(*storev1.DeliveryRecord) error{}
		for number := range int32(n) {
			length := share
			if number == 1 {
				length *= 4
			}
			changes[number+1] = addOutcome(strings.Repeat("y", length))
		}
		if err := s.UpdateDeliveries(t.Context(), ws, "w", changes); err != nil {
			t.Fatal(err)
		}
	}
	for number := range int32(n) {
		wantDelivery(t, s, number+1, fmt.Sprint("label ", number+1), rounds)
	}
	put(t, s, recs...) // the inbox is read again
	for number := range int32(n) {
		wantDelivery(t, s, number+1, fmt.Sprint("label ", number+1), rounds)
	}
}
