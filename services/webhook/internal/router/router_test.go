package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/fair"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/pushes"
)

const (
	ws     = "acme-inc"
	hookID = "abcdefghijklmnopqrstuvwx26"
	repo   = "85d08b4e-571d-44e9-a507-fa476535aa98"
)

// fakeRegistry learns, and fails as often as it is told to: a stop between the numbers and the
// acknowledgement.
type fakeRegistry struct {
	failures atomic.Int64
	calls    atomic.Int64
	names    atomic.Value
}

func (f *fakeRegistry) Verified(_ context.Context, rec *storev1.WebhookRecord, name string, _ int32) (*storev1.WebhookRecord, error) {
	f.calls.Add(1)
	if name != "" {
		f.names.Store(name)
	}
	if f.failures.Add(-1) >= 0 {
		return nil, fmt.Errorf("%w: the process was killed here", kv.ErrUnavailable)
	}
	return rec, nil
}

type world struct {
	t        *testing.T
	js       jetstream.JetStream
	store    *natsstore.Store
	registry *fakeRegistry
	router   *Router
	codec    *inbox.Codec
	n        int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	log := testkit.Logger(t).Logger
	w := &world{t: t, js: testkit.JS(t), registry: &fakeRegistry{}}
	w.store = natsstore.New(w.js, log, nil)
	if err := w.store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := w.store.Ensure(t.Context(), ws, repo, func() string { return hookID }, func(rec *storev1.WebhookRecord) error {
		rec.RepositoryFullName, rec.State = "acme/web", webhookv1.Webhook_ACTIVE
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.codec, err = inbox.NewCodec(); err != nil {
		t.Fatal(err)
	}
	w.router = w.newRouter()
	return w
}

func (w *world) newRouter() *Router {
	return New(Config{
		JS: w.js, Store: w.store, Registry: w.registry, Codec: w.codec, Logger: testkit.Logger(w.t).Logger, Now: time.Now, AckWait: time.Second,
	})
}

// delivery makes a push of a branch; request is Bitbucket's id of the request.
func (w *world) delivery(request, branch string) *storev1.InboxDelivery {
	w.n++
	body := fmt.Sprintf(`{"push":{"changes":[{"old":null,"new":{"type":"branch","name":%q,"target":{"hash":"%040x"}}}]},"repository":{"uuid":"{%s}","full_name":"acme/web"}}`, branch, w.n, repo)
	d := &storev1.InboxDelivery{
		Id: fmt.Sprint("ours-", w.n), Webhook: hookID, Workspace: ws, ReceiveTime: timestamppb.Now(), EventKey: "repo:push",
		RequestUuid: request, Attempt: 1, AnswerStatus: 202, RequestId: "request-" + request,
	}
	w.codec.Pack(d, []byte(body))
	return d
}

// put writes a pack into the inbox and returns it as the consumer hands it over.
func (w *world) put(ds ...*storev1.InboxDelivery) stream.Msg {
	w.t.Helper()
	data, err := proto.Marshal(&storev1.InboxPack{Deliveries: ds})
	if err != nil {
		w.t.Fatal(err)
	}
	ack, err := w.js.PublishMsg(w.t.Context(), &nats.Msg{Subject: inbox.Subject, Data: data})
	if err != nil {
		w.t.Fatal(err)
	}
	return stream.Msg{Subject: inbox.Subject, Data: data, Stream: inbox.Stream, Sequence: ack.Sequence}
}

func (w *world) events() []*eventsv1.PushEvent {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), stream.PushesStream)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []*eventsv1.PushEvent
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(w.t.Context(), seq)
		if err != nil {
			w.t.Fatal(err)
		}
		events, err := stream.PushEvents(stream.Msg{Header: m.Header, Data: m.Data})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range events {
			if e.GetRequestId() != "request-"+e.GetRequestUuid() {
				w.t.Errorf("event %s has no request id: %v", e.GetId(), e)
			}
		}
		out = append(out, events...)
	}
	return out
}

// route routes messages, all of a webhook's deliveries in one turn.
func (w *world) route(ms ...stream.Msg) error {
	var turns [][]*portion
	at := map[string]int{}
	for _, m := range ms {
		portions, err := unpack(m)
		if err != nil {
			return err
		}
		for _, p := range portions {
			i, ok := at[p.webhook]
			if !ok {
				i = len(turns)
				at[p.webhook] = i
				turns = append(turns, nil)
			}
			turns[i] = append(turns[i], p)
		}
	}
	for _, portions := range turns {
		if err := w.router.turn(w.t.Context(), "", portions); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) last() int32 {
	w.t.Helper()
	l, err := w.store.Ledger(w.t.Context(), ws, hookID)
	if err != nil {
		w.t.Fatal(err)
	}
	return l.GetLastNumber()
}

func TestRoute_redeliveryGivesTheSameNumbersAndEvents(t *testing.T) {
	w := newWorld(t)
	first := w.put(w.delivery("a", "main"), w.delivery("b", "main"))
	second := w.put(w.delivery("c", "main"), w.delivery("", "main"), w.delivery("", "main"))
	// Killed after the numbers were given and before anything else, three times.
	w.registry.failures.Store(3)
	for range 3 {
		if err := w.route(first, second); !errors.Is(err, kv.ErrUnavailable) {
			t.Fatalf("route: %v", err)
		}
	}
	if n := w.last(); n != 5 || len(w.events()) != 0 {
		t.Fatalf("last number %d, %d events", n, len(w.events()))
	}
	for _, ms := range [][]stream.Msg{{first, second}, {second}, {first}, {second, first}} {
		if err := w.route(ms...); err != nil {
			t.Fatalf("route: %v", err)
		}
	}
	if n := w.last(); n != 5 {
		t.Errorf("last number %d, want 5", n)
	}
	// The stream drops the repeats of an event by its id within minutes; the ids are what counts.
	ids := map[string]string{}
	for _, e := range w.events() {
		if hash, ok := ids[e.GetId()]; ok && hash != e.GetNew().GetHash() {
			t.Errorf("event %s is about two commits", e.GetId())
		}
		ids[e.GetId()] = e.GetNew().GetHash()
	}
	if len(ids) != 5 || len(w.events()) != 5 {
		t.Errorf("%d events of %d ids, want 5", len(w.events()), len(ids))
	}
	for n := int32(1); n <= 5; n++ {
		rec, err := w.store.Delivery(t.Context(), ws, hookID, n)
		if err != nil || rec.GetDelivery().GetChanges()[0].GetNewHash() != ids[fmt.Sprintf("%s.%d.0", hookID, n)] {
			t.Errorf("delivery %d: %v, %v", n, rec, err)
		}
	}
}

func TestRoute_whatWasPackedTwiceIsOneDelivery(t *testing.T) {
	w := newWorld(t)
	// The first message was stored although its acknowledgement was lost; then one delivery of it
	// ran out of timeout and the rest was packed anew.
	a, b, c := w.delivery("a", "main"), w.delivery("", "main"), w.delivery("c", "main")
	for _, m := range []stream.Msg{w.put(a, b, c), w.put(a, b)} {
		if err := w.route(m); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.last(); n != 3 || len(w.events()) != 3 {
		t.Errorf("last number %d, %d events, want 3", n, len(w.events()))
	}
}

func TestRoute_outcomesSurviveRedelivery(t *testing.T) {
	w := newWorld(t)
	m := w.put(w.delivery("a", "main"))
	if err := w.route(m); err != nil {
		t.Fatal(err)
	}
	_, err := w.store.UpdateDelivery(t.Context(), ws, hookID, 1, func(rec *storev1.DeliveryRecord) error {
		rec.Delivery.Outcomes = append(rec.Delivery.Outcomes, &webhookv1.DeliveryOutcome{App: "web", Deployment: 1})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.route(m); err != nil {
		t.Fatal(err)
	}
	rec, err := w.store.Delivery(t.Context(), ws, hookID, 1)
	if err != nil || len(rec.GetDelivery().GetOutcomes()) != 1 {
		t.Errorf("delivery %v, %v", rec, err)
	}
}

func TestRun_routesEverythingOnceOverARestart(t *testing.T) {
	w := newWorld(t)
	const packs, each = 40, 5
	for range packs {
		var ds []*storev1.InboxDelivery
		for range each {
			ds = append(ds, w.delivery(fmt.Sprint("r", w.n), "main"))
		}
		w.put(ds...)
	}
	// Two routers; one is stopped on the way, as often as work fails at the worst place.
	w.registry.failures.Store(2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- w.router.Run(ctx) }()
	testkit.Eventually(t, 20*time.Second, func() error {
		if w.last() == 0 {
			return errors.New("nothing routed")
		}
		return nil
	})
	cancel()
	other, stop := context.WithCancel(t.Context())
	go func() { done <- w.newRouter().Run(other) }()
	testkit.Eventually(t, 20*time.Second, func() error {
		if n := len(w.events()); n != packs*each {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	testkit.Eventually(t, 20*time.Second, func() error {
		u, err := w.store.InboxUsage(t.Context(), Durable)
		if err != nil || u.Routed != packs || u.Pending != 0 {
			return fmt.Errorf("usage %+v: %w", u, err)
		}
		return nil
	})
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	if n := w.last(); n != packs*each {
		t.Errorf("last number %d, want %d", n, packs*each)
	}
	seen := map[string]bool{}
	for _, e := range w.events() {
		if seen[e.GetId()] {
			t.Errorf("event %s twice", e.GetId())
		}
		seen[e.GetId()] = true
	}
}

func TestTake_badMessageIsParkedAlone(t *testing.T) {
	w := newWorld(t)
	good := w.put(w.delivery("a", "main"))
	bad := stream.Msg{Subject: inbox.Subject, Data: []byte("\xff\xff\xff"), Stream: inbox.Stream, Sequence: 99}
	queue := fair.New(fair.Config[*portion]{Workers: 1, Turn: turnMessages, Handle: w.router.turn})
	take := w.router.taker(queue)
	answers := make(chan error, 2)
	take(t.Context(), bad, func(err error) { answers <- err })
	if err := <-answers; err == nil || !strings.Contains(err.Error(), "park") {
		t.Errorf("the bad one: %v", err)
	}
	take(t.Context(), good, func(err error) { answers <- err })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); queue.Run(ctx, t.Context()) }()
	if err := <-answers; err != nil || w.last() != 1 {
		t.Errorf("the good one: %v, last number %d", err, w.last())
	}
	cancel()
	<-ended
}

// TestRoute_readsNoBodyAgain: what the ingress read of a body is stored with it. Here its body
// cannot be read, which nobody may notice; without what was read, as earlier versions stored it, the
// body counts.
func TestRoute_readsNoBodyAgain(t *testing.T) {
	w := newWorld(t)
	read, unread := w.delivery("r1", "in-the-body"), w.delivery("r2", "only-in-the-body")
	push, err := hook.Parse([]byte(`{"push":{"changes":[{"old":null,"new":{"type":"branch","name":"as-read"}}]},"actor":{"nickname":"jane"}}`))
	if err != nil {
		t.Fatal(err)
	}
	read.Push, read.Fingerprint = pushes.Stored(push), inbox.Fingerprint(read, nil)
	read.Encoding, read.Body = storev1.InboxDelivery_ZSTD, []byte("damaged")
	if err := w.route(w.put(read, unread)); err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, e := range w.events() {
		refs = append(refs, e.GetRef()+" "+e.GetActor().GetLabel())
	}
	if strings.Join(refs, ", ") != "as-read jane, only-in-the-body " {
		t.Errorf("events of %q", refs)
	}
	for number, want := range map[int32]string{1: "as-read", 2: "only-in-the-body"} {
		rec, err := w.store.Delivery(t.Context(), ws, hookID, number)
		if err != nil {
			t.Fatal(err)
		}
		if got := rec.GetDelivery().GetChanges(); len(got) != 1 || got[0].GetRef() != want {
			t.Errorf("delivery %d shows %v", number, got)
		}
	}
}

func TestRoute_damagedBodyIsShownAndLooksAtTheRepository(t *testing.T) {
	w := newWorld(t)
	d := w.delivery("a", "main")
	d.Encoding, d.Body = storev1.InboxDelivery_ZSTD, []byte("damaged")
	gone := w.delivery("b", "main")
	gone.Webhook = "another"
	if err := w.route(w.put(d, gone)); err != nil {
		t.Fatal(err)
	}
	rec, err := w.store.Delivery(t.Context(), ws, hookID, 1)
	if err != nil || rec.GetDelivery().GetOutcomes()[0].GetReason() != ReasonBodyUnreadable {
		t.Errorf("delivery %v, %v", rec, err)
	}
	if e := w.events(); len(e) != 1 || e[0].GetAction() != eventsv1.PushEvent_UNKNOWN {
		t.Errorf("events %v", e)
	}
}

func TestTidy_keepsRoomInACrowdedInbox(t *testing.T) {
	w := newWorld(t)
	def := inbox.Definition
	def.Config.MaxBytes, def.Version = 64<<10, 99
	if _, err := w.js.UpdateStream(t.Context(), def.Config); err != nil {
		t.Fatal(err)
	}
	if err := w.router.tidy(t.Context()); err != nil {
		t.Fatalf("an empty inbox: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.router.Run(ctx) }()
	var last uint64
	for range 56 {
		d := w.delivery(fmt.Sprint("r", w.n), "main")
		d.Encoding, d.Body = storev1.InboxDelivery_ENCODING_UNSPECIFIED, append(d.GetBody(), make([]byte, 700)...)
		last = w.put(d).Sequence
	}
	testkit.Eventually(t, 20*time.Second, func() error {
		u, err := w.store.InboxUsage(t.Context(), Durable)
		if err != nil || u.Routed != last {
			return fmt.Errorf("usage %+v: %w", u, err)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	before, err := w.store.InboxUsage(t.Context(), Durable)
	if err == nil {
		err = w.router.tidy(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := w.store.InboxUsage(t.Context(), Durable)
	if err != nil || after.First <= before.First || after.Last != before.Last || after.Bytes >= before.Bytes*2/3 {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
}

func TestForget_keepsWhatMayComeAgain(t *testing.T) {
	l := &storev1.LedgerRecord{}
	for i := range uint64(3000) {
		print := fmt.Appendf(nil, "%0*d", inbox.FingerprintSize, i)
		if !assign(l, []*item{{delivery: &storev1.InboxDelivery{}, sequence: i + 1, print: print}}) {
			t.Fatal("nothing changed")
		}
		forget(l, 2000)
	}
	if n := len(l.GetRouted()); n != 1000 || l.GetRouted()[0].GetSequence() != 2001 {
		t.Errorf("%d inbox messages are remembered; those above 2000 may come again", n)
	}
	for i, known := range map[int]bool{2999: true, 3000 - remembered: true, 3000 - remembered - 1: false} {
		number, ok := natsstore.NumberOf(l, fmt.Appendf(nil, "%0*d", inbox.FingerprintSize, i))
		if ok != known || ok && number != int32(i+1) {
			t.Errorf("delivery %d: number %d, known %v", i+1, number, ok)
		}
	}
}
