package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// Durable is the name of the router's consumer on the inbox, shared by all replicas.
const Durable = "webhook-router"

const (
	// batch is how many inbox messages, of up to 64 deliveries each, are handled at once.
	batch = 32
	// unacknowledged is how many inbox messages all replicas together may have in their hands. It
	// bounds what ledgers must remember.
	unacknowledged = 4 * batch
	// parallel is how many webhooks' deliveries are stored at the same time.
	parallel = 8
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
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return stream.Consume(ctx, stream.ConsumeConfig{
			JS: r.cfg.JS, Stream: stream.InboxStream, Durable: Durable,
			HandleBatch: r.route, Batch: batch, MaxAckPending: unacknowledged, AckWait: r.cfg.AckWait,
			// Trouble of the store does not count. What fails so often for other reasons, an hour on
			// end, is for an operator.
			MaxAttempts: 60,
			Logger:      r.cfg.Logger, Metrics: r.cfg.Metrics,
		})
	})
	g.Go(func() error { return r.tidyLoop(ctx) })
	return g.Wait()
}

// item is one delivery on its way.
type item struct {
	delivery *storev1.InboxDelivery
	sequence uint64 // of the inbox message
	place    int32  // in it

	push      hook.Push
	unread    error  // why the body could not be read
	print     []byte // tells it from other deliveries
	number    int32
	duplicate bool // Bitbucket's repeat of a delivery that has this number already
}

// group is what a batch holds for one webhook, in the order in which it came.
type group struct {
	workspace, webhook string
	items              []*item
}

// route handles a batch. Its error holds for the whole batch, which then comes again: everything
// here may be repeated.
func (r *Router) route(ctx context.Context, ms []stream.Msg) error {
	groups, err := r.unpack(ms)
	if err != nil {
		return err
	}
	floor, err := r.cfg.Store.RoutedUpTo(ctx, Durable)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, one := range groups {
		g.Go(func() error { return r.routeGroup(ctx, one, floor) })
	}
	return g.Wait()
}

// unpack reads the messages and sorts their deliveries by webhook.
func (r *Router) unpack(ms []stream.Msg) ([]*group, error) {
	var groups []*group
	by := map[string]*group{}
	for _, m := range ms {
		var pack storev1.InboxPack
		if err := proto.Unmarshal(m.Data, &pack); err != nil {
			if len(ms) > 1 {
				return nil, fmt.Errorf("router: inbox message %d: %w", m.Sequence, err) // then each comes alone
			}
			return nil, stream.Parkf("not an inbox message: %v", err)
		}
		for i, d := range pack.GetDeliveries() {
			key := natsstore.WebhookKey(d.GetWorkspace(), d.GetWebhook())
			g := by[key]
			if g == nil {
				g = &group{workspace: d.GetWorkspace(), webhook: d.GetWebhook()}
				by[key] = g
				groups = append(groups, g)
			}
			it := &item{delivery: d, sequence: m.Sequence, place: int32(i)}
			r.read(it)
			g.items = append(g.items, it)
		}
	}
	return groups, nil
}

// read unpacks the body and parses a push. The ingress has read it before, so that an error here
// means a damaged inbox.
func (r *Router) read(it *item) {
	body, err := r.cfg.Codec.Body(it.delivery)
	it.print, it.unread = fingerprint(it.delivery, body), err
	if err == nil && it.delivery.GetEventKey() == hook.EventPush {
		it.push, it.unread = hook.Parse(body)
	}
}

// routeGroup routes the deliveries of one webhook: numbers first, then the records, then the events
// in order, then what they tell of the webhook.
func (r *Router) routeGroup(ctx context.Context, g *group, floor uint64) error {
	rec, err := r.cfg.Store.Get(ctx, g.workspace, g.webhook)
	if errors.Is(err, kv.ErrNotFound) {
		r.routed.WithLabelValues("gone").Add(float64(len(g.items)))
		r.cfg.Logger.WarnContext(ctx, "deliveries of an unknown webhook dropped", slog.String(logs.KeyWebhook, g.webhook), slog.Int(logs.KeyCount, len(g.items)))
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.number(ctx, g, floor); err != nil {
		return err
	}
	if rec, err = r.learn(ctx, rec, g); err != nil {
		return err
	}
	if err := r.record(ctx, rec, g); err != nil {
		return err
	}
	for _, it := range g.items {
		if it.duplicate {
			r.routed.WithLabelValues("repeat").Inc()
			continue
		}
		if err := r.publish(ctx, rec, it); err != nil {
			return err
		}
		r.routed.WithLabelValues("new").Inc()
		r.lag.Observe(r.cfg.Now().Sub(it.delivery.GetReceiveTime().AsTime()).Seconds())
	}
	return nil
}

// learn hands on what the newest delivery says of the webhook.
func (r *Router) learn(ctx context.Context, rec *storev1.WebhookRecord, g *group) (*storev1.WebhookRecord, error) {
	last := g.items[len(g.items)-1]
	name := ""
	if last.push.Repository.UUID == rec.GetRepository() {
		name = last.push.Repository.FullName
	}
	return r.cfg.Registry.Verified(ctx, rec, name, last.delivery.GetSecretVersion())
}
