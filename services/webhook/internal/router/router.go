package router

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/fair"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/tracing"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/pushes"
)

// Durable is the name of the router's consumer on the inbox, shared by all replicas.
const Durable = "webhook-router"

const (
	// inHand is how many inbox messages, of up to 64 deliveries each, a router holds at once. Those of
	// all webhooks among them are routed side by side.
	inHand = 1024
	// unacknowledged is how many inbox messages all replicas together may have in their hands.
	unacknowledged = 4 * inHand
	// parallel is how many webhooks' deliveries are routed at the same time.
	parallel = 8
	// turnMessages is how many inbox messages' deliveries of a webhook are routed before it is the
	// next webhook's turn.
	turnMessages = 32
	// turnInterval is the time from one turn of a webhook to its next: deliveries that trickle in are
	// stored together. The first after a while does not wait.
	turnInterval = 400 * time.Millisecond
)

// Registry learns what verified deliveries tell of their webhook.
type Registry interface {
	Verified(ctx context.Context, rec *storev1.WebhookRecord, fullName string, secretVersion int32) (*storev1.WebhookRecord, error)
}

// Config is what a Router needs.
type Config struct {
	JS         jetstream.JetStream
	Store      *natsstore.Store
	Registry   Registry
	Codec      *inbox.Codec
	Logger     *slog.Logger
	Metrics    *stream.Metrics       // may be nil
	Registerer prometheus.Registerer // nil: no metrics
	Tracer     trace.Tracer          // records what is routed; may be nil
	Now        func() time.Time
	AckWait    time.Duration // 30 s when zero
}

// Router routes. Run is called once.
type Router struct {
	cfg     Config
	lag     prometheus.Histogram
	routed  *prometheus.CounterVec
	pending prometheus.Gauge
	filled  prometheus.Gauge
}

// New makes a router.
func New(cfg Config) *Router {
	r := &Router{
		cfg: cfg,
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "devpilot_webhook_router_lag_seconds", Help: "Time from a delivery's arrival to its push events being stored.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 5, 30, 300},
		}),
		routed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_webhook_routed_total", Help: "Deliveries routed: new, repeated by Bitbucket, or of a webhook that is gone.",
		}, []string{"kind"}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "devpilot_webhook_inbox_pending_messages", Help: "Inbox messages that no router has taken yet.",
		}),
		filled: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "devpilot_webhook_inbox_filled_ratio", Help: "How full the inbox is, of its limit.",
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(r.lag, r.routed, r.pending, r.filled)
	}
	return r
}

// Run routes until ctx is done and what is in hand is finished.
func (r *Router) Run(ctx context.Context) error {
	queue := fair.New(fair.Config[*portion]{
		Workers: parallel, Turn: turnMessages, Interval: turnInterval, Handle: r.turn, Temporary: stream.Temporary, OnRetry: r.retrying,
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		queue.Run(ctx, context.WithoutCancel(ctx))
		return nil
	})
	g.Go(func() error {
		return stream.Consume(ctx, stream.ConsumeConfig{
			JS: r.cfg.JS, Stream: inbox.Stream, Durable: Durable, Position: r.cfg.Store.Position(Durable),
			Take: r.taker(queue), Held: inHand, MaxAckPending: unacknowledged, AckWait: r.cfg.AckWait,
			// Trouble of the store does not count. What fails so often for other reasons, an hour on
			// end, is for an operator.
			MaxAttempts: 60,
			Logger:      r.cfg.Logger, Metrics: r.cfg.Metrics,
		})
	})
	g.Go(func() error { return r.tidyLoop(ctx) })
	return g.Wait()
}

func (r *Router) retrying(ctx context.Context, key string, err error) {
	r.cfg.Logger.WarnContext(ctx, "routing a webhook's deliveries failed for now, trying again", slog.String(logs.KeyKey, key), logs.Err(err))
}

// item is one delivery on its way.
type item struct {
	delivery *storev1.InboxDelivery
	sequence uint64 // of the inbox message
	place    int32  // in it

	push      *storev1.ReadPush
	unread    error  // why the body could not be read
	print     []byte // tells it from other deliveries
	number    int32
	again     bool // it got its number before: what follows may have been done, too
	duplicate bool // Bitbucket's repeat of a delivery that has this number already
}

// portion is what one inbox message holds for one webhook, in the order in which it came.
type portion struct {
	workspace, webhook string
	stored             time.Time // when the inbox took the message
	items              []*item
}

// turn is what is routed together: portions of one webhook.
type turn struct {
	workspace, webhook string
	portions           []*portion
	items              []*item // of all portions
}

// taker hands the portions of a message to the queue; the message is done when all of them are.
func (r *Router) taker(queue *fair.Queue[*portion]) func(context.Context, stream.Msg, func(error)) {
	return func(_ context.Context, m stream.Msg, done func(error)) {
		portions, err := unpack(m)
		if err != nil || len(portions) == 0 {
			done(err)
			return
		}
		var mu sync.Mutex
		var failed error
		left := len(portions)
		for _, p := range portions {
			queue.Add(natsstore.WebhookKey(p.workspace, p.webhook), []*portion{p}, func(err error) {
				mu.Lock()
				if failed == nil {
					failed = err
				}
				left--
				last := left == 0
				mu.Unlock()
				if last {
					done(failed)
				}
			})
		}
	}
}

// unpack sorts a message's deliveries by webhook.
func unpack(m stream.Msg) ([]*portion, error) {
	var pack storev1.InboxPack
	if err := proto.Unmarshal(m.Data, &pack); err != nil {
		return nil, stream.Parkf("not an inbox message: %v", err)
	}
	var portions []*portion
	by := map[string]*portion{}
	for i, d := range pack.GetDeliveries() {
		key := natsstore.WebhookKey(d.GetWorkspace(), d.GetWebhook())
		p := by[key]
		if p == nil {
			p = &portion{workspace: d.GetWorkspace(), webhook: d.GetWebhook(), stored: m.Time}
			by[key] = p
			portions = append(portions, p)
		}
		p.items = append(p.items, &item{delivery: d, sequence: m.Sequence, place: int32(i)})
	}
	return portions, nil
}

// read takes what the ingress read of the body. What an earlier version stored is read now; an error
// means a damaged inbox.
func (r *Router) read(it *item) {
	d := it.delivery
	it.print = d.GetFingerprint()
	if it.push = d.GetPush(); len(it.print) == inbox.FingerprintSize && (it.push != nil || d.GetEventKey() != hook.EventPush) {
		return
	}
	body, err := r.cfg.Codec.Body(d)
	if it.unread = err; len(it.print) != inbox.FingerprintSize {
		it.print = inbox.Fingerprint(d, body)
	}
	if err == nil && d.GetEventKey() == hook.EventPush && it.push == nil {
		var push hook.Push
		push, it.unread = hook.Parse(body)
		it.push = pushes.Read(push)
	}
}

// turn routes deliveries of one webhook: numbers first, then the records, then the events in order,
// then what they tell of the webhook. After an error all of it is repeated.
func (r *Router) turn(ctx context.Context, _ string, portions []*portion) (err error) {
	t := &turn{workspace: portions[0].workspace, webhook: portions[0].webhook, portions: portions}
	for _, p := range portions {
		for _, it := range p.items {
			if it.print == nil {
				r.read(it)
			}
		}
		t.items = append(t.items, p.items...)
	}
	end := r.trace(ctx, t)
	defer func() { end(err) }()
	rec, err := r.cfg.Store.Lately(ctx, t.workspace, t.webhook)
	if errors.Is(err, kv.ErrNotFound) {
		r.routed.WithLabelValues("gone").Add(float64(len(t.items)))
		r.cfg.Logger.WarnContext(ctx, "deliveries of an unknown webhook dropped", slog.String(logs.KeyWebhook, t.webhook), slog.Int(logs.KeyCount, len(t.items)))
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.number(ctx, t); err != nil {
		return err
	}
	if rec, err = r.learn(ctx, rec, t); err != nil {
		return err
	}
	if err := r.record(ctx, rec, t); err != nil {
		return err
	}
	if err := r.publish(ctx, rec, t); err != nil {
		return err
	}
	now := r.cfg.Now()
	for _, it := range t.items {
		if it.duplicate {
			r.routed.WithLabelValues("repeat").Inc()
			continue
		}
		r.routed.WithLabelValues("new").Inc()
		tracing.Observe(tracing.Continue(ctx, it.delivery.GetTraceparent()), r.lag, now.Sub(it.delivery.GetReceiveTime().AsTime()))
	}
	return nil
}

// trace begins a span for each delivery of a turn that belongs to a trace; they are routed together.
func (r *Router) trace(ctx context.Context, t *turn) (end func(error)) {
	var spans []tracing.Span
	for _, it := range t.items {
		if it.delivery.GetTraceparent() != "" {
			_, span := tracing.Start(tracing.Continue(ctx, it.delivery.GetTraceparent()), r.cfg.Tracer, "route delivery", tracing.About{Workspace: t.workspace, Repository: it.push.GetRepository()})
			spans = append(spans, span)
		}
	}
	return func(err error) {
		for _, s := range spans {
			s.End(err)
		}
	}
}

// learn hands on what the newest delivery says of the webhook.
func (r *Router) learn(ctx context.Context, rec *storev1.WebhookRecord, t *turn) (*storev1.WebhookRecord, error) {
	last := t.items[len(t.items)-1]
	name := ""
	if last.push.GetRepository() == rec.GetRepository() {
		name = last.push.GetFullName()
	}
	return r.cfg.Registry.Verified(ctx, rec, name, last.delivery.GetSecretVersion())
}
