package router

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

const otherHook, otherRepo = "zyxwvutsrqponmlkjihgfedc26", "0d2a5a4b-6f3e-4c2b-9a51-000000000002"

// other makes a second webhook.
func (w *world) other() {
	w.t.Helper()
	_, err := w.store.Ensure(w.t.Context(), ws, otherRepo, func() string { return otherHook }, func(rec *storev1.WebhookRecord) error {
		rec.RepositoryFullName, rec.State = "acme/other", webhookv1.Webhook_ACTIVE
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs a router until the function that it returns is called.
func (w *world) run(r *Router) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

func (w *world) until(what func() error) { testkit.Eventually(w.t, 30*time.Second, what) }

// stuckRegistry never learns anything of one webhook, as if its record could not be written.
type stuckRegistry struct{ fakeRegistry }

func (f *stuckRegistry) Verified(ctx context.Context, rec *storev1.WebhookRecord, name string, version int32) (*storev1.WebhookRecord, error) {
	if rec.GetId() == hookID {
		return nil, fmt.Errorf("%w: its record cannot be written", kv.ErrUnavailable)
	}
	return f.fakeRegistry.Verified(ctx, rec, name, version)
}

// TestRun_oneWebhooksBacklogHoldsUpNoOther: thousands of deliveries of a webhook that cannot be routed
// at all lie before one of another webhook.
func TestRun_oneWebhooksBacklogHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	w.other()
	const packs, each = 100, 60
	for range packs {
		var ds []*storev1.InboxDelivery
		for range each {
			ds = append(ds, w.delivery(fmt.Sprint("r", w.n), "unwatched"))
		}
		w.put(ds...)
	}
	b := w.delivery("b", "main")
	b.Webhook, b.Push = otherHook, &storev1.ReadPush{Repository: otherRepo, Changes: []*storev1.ReadChange{{New: &storev1.ReadRef{Name: "main"}}}}
	b.Fingerprint = inbox.Fingerprint(b, nil)
	w.put(b)
	r := w.newRouter()
	r.cfg.Registry = &stuckRegistry{}
	stop := w.run(r)
	w.until(func() error {
		_, err := w.store.Delivery(t.Context(), ws, otherHook, 1)
		return err
	})
	if n := len(w.events()); n > 1 {
		t.Errorf("%d events: the other webhook was routed first, so this shows nothing", n)
	}
	stop()
	// Nothing of the backlog is lost, and nothing is routed twice.
	stop = w.run(w.newRouter())
	defer stop()
	w.until(func() error {
		if n := len(w.events()); n != packs*each+1 {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	if n := w.last(); n != packs*each {
		t.Errorf("last number %d", n)
	}
}

// stored is how many messages the streams behind the records and push events have ever held.
func (w *world) stored() (n uint64) {
	w.t.Helper()
	names := w.js.StreamNames(w.t.Context())
	for name := range names.Name() {
		if name == inbox.Stream {
			continue
		}
		s, err := w.js.Stream(w.t.Context(), name)
		if err != nil {
			w.t.Fatal(err)
		}
		n += s.CachedInfo().State.LastSeq
	}
	if err := names.Err(); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestRun_writesLittle counts what is written for deliveries beside the inbox: every message is a
// synced write.
func TestRun_writesLittle(t *testing.T) {
	w := newWorld(t)
	const packs, each = 32, 50 // one turn
	for range packs {
		var ds []*storev1.InboxDelivery
		for range each {
			ds = append(ds, w.delivery(fmt.Sprint("r", w.n), "main"))
		}
		w.put(ds...)
	}
	before := w.stored()
	stop := w.run(w.newRouter())
	w.until(func() error {
		if n := len(w.events()); n != packs*each {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	stop()
	// The numbers, a page for 50 deliveries, the events, the position: were each delivery written for
	// itself it would be thousands.
	if n := w.stored() - before; n > packs*each/natsstore.PageDeliveries+packs*2 {
		t.Errorf("%d writes for %d deliveries", n, packs*each)
	}
}

// TestRun_aServerThatForgetsTheConsumer: the consumer lives in the server's memory, and begins again
// where the position says.
func TestRun_aServerThatForgetsTheConsumer(t *testing.T) {
	w := newWorld(t)
	put := func(n int) {
		for range n {
			w.put(w.delivery(fmt.Sprint("r", w.n), "main"))
		}
	}
	routed := func(n int) {
		w.until(func() error {
			if got := len(w.events()); got != n {
				return fmt.Errorf("%d events, not %d", got, n)
			}
			return nil
		})
	}
	put(10)
	stop := w.run(w.newRouter())
	routed(10)
	stop() // saves the position
	put(5)
	stop = w.run(w.newRouter())
	defer stop()
	routed(15)
	if err := w.js.DeleteConsumer(t.Context(), inbox.Stream, Durable); err != nil { // since the last save 5 were routed
		t.Fatal(err)
	}
	put(5)
	routed(20)
	if n := w.last(); n != 20 {
		t.Errorf("last number %d", n)
	}
	c, err := w.js.Consumer(t.Context(), inbox.Stream, Durable)
	if err != nil || c.CachedInfo().Config.OptStartSeq != 11 {
		t.Errorf("the consumer begins at %d, %v; all before was routed", c.CachedInfo().Config.OptStartSeq, err)
	}
}

// TestTurn_whatAnEarlierVersionRouted comes again after the change of versions: it keeps its number,
// and its record in its place of before.
func TestTurn_whatAnEarlierVersionRouted(t *testing.T) {
	w := newWorld(t)
	d := w.delivery("a", "main")
	body, err := w.codec.Body(d)
	if err != nil {
		t.Fatal(err)
	}
	m := w.put(d, w.delivery("b", "main"))
	err = w.store.UpdateLedger(t.Context(), ws, hookID, func(l *storev1.LedgerRecord) error {
		l.LastNumber = 7
		l.Seen = append(l.Seen, &storev1.SeenDelivery{Fingerprint: inbox.Fingerprint(d, body), Number: 7, InboxSequence: m.Sequence, InboxIndex: 0})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	old, err := kv.Open[storev1.DeliveryRecord](t.Context(), w.js, kv.Config{Name: natsstore.DeliveriesBucket})
	if err == nil {
		_, err = old.Create(t.Context(), kv.EncodeKey(ws, hookID, "7"), &storev1.DeliveryRecord{
			Delivery:      &webhookv1.Delivery{Workspace: ws, Webhook: hookID, Number: 7, Outcomes: []*webhookv1.DeliveryOutcome{{App: "web", Deployment: 1}}, ReceiveTime: timestamppb.Now()},
			InboxSequence: m.Sequence,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.route(m); err != nil {
			t.Fatal(err)
		}
	}
	rec, err := w.store.Delivery(t.Context(), ws, hookID, 7)
	if err != nil || len(rec.GetDelivery().GetOutcomes()) != 1 {
		t.Errorf("delivery 7: %v, %v", rec, err)
	}
	if rec, err := w.store.Delivery(t.Context(), ws, hookID, 8); err != nil || rec.GetInboxIndex() != 1 || w.last() != 8 {
		t.Errorf("delivery 8: %v, %v; last number %d", rec, err, w.last())
	}
	// What comes of the old one is added where it is.
	_, err = w.store.UpdateDelivery(t.Context(), ws, hookID, 7, func(rec *storev1.DeliveryRecord) error {
		rec.Delivery.Attempt = 2
		return nil
	})
	if rec, _ := w.store.Delivery(t.Context(), ws, hookID, 7); err != nil || rec.GetDelivery().GetAttempt() != 2 {
		t.Errorf("delivery 7 changed: %v, %v", rec, err)
	}
}
