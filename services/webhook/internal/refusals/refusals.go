// Package refusals keeps the last refused requests of each webhook, for the person who wonders why
// nothing arrives. They live in a ring of their own and can push no real delivery out; whoever
// floods a webhook with wrong signatures causes a write every few seconds and no more.
//
// Depends on the store only through an interface.
package refusals

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/logs"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/limit"
)

// Kept is how many refused requests of a webhook are kept.
const Kept = 20

// queue is how many may wait to be written; more are only counted.
const queue = 64

// writeTimeout bounds one write.
const writeTimeout = 5 * time.Second

// Store changes the ring of a webhook.
type Store interface {
	UpdateRefused(ctx context.Context, workspace, webhook string, change func(*storev1.RefusedRecord) error) error
}

// Ring writes refused requests in the background. Add is safe for concurrent use; Run is called
// once.
type Ring struct {
	cfg     Config
	limits  *limit.Keyed
	in      chan *webhookv1.Delivery
	counted *prometheus.CounterVec
}

// Config is what a Ring needs. Registerer may be nil.
type Config struct {
	Store Store
	// Refused is told of the requests that are kept: somebody may have changed the webhook at Bitbucket.
	Refused    func(ctx context.Context, d *webhookv1.Delivery) error
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// New makes a ring.
func New(cfg Config) *Ring {
	r := &Ring{
		cfg: cfg,
		// Per webhook five at once, then one in ten seconds; in all 20 a second.
		limits: limit.NewKeyed(0.1, 5, 20, 40),
		in:     make(chan *webhookv1.Delivery, queue),
		counted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_webhook_refused_requests_total", Help: "Requests with a missing or wrong signature: kept for people, or only counted.",
		}, []string{"kept"}),
	}
	for _, kept := range []string{"yes", "no"} {
		r.counted.WithLabelValues(kept) // there from the start, at 0
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(r.counted)
	}
	return r
}

// Add keeps a refused request, when the limits allow. It does not block.
func (r *Ring) Add(d *webhookv1.Delivery) {
	if !r.limits.Allow(d.GetWebhook(), r.cfg.Now()) {
		r.counted.WithLabelValues("no").Inc()
		return
	}
	select {
	case r.in <- d:
		r.counted.WithLabelValues("yes").Inc()
	default:
		r.counted.WithLabelValues("no").Inc()
	}
}

// Run writes until ctx is done.
func (r *Ring) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-r.in:
			if err := r.write(ctx, d); err != nil && ctx.Err() == nil {
				r.cfg.Logger.WarnContext(ctx, "refused request not kept", slog.String(logs.KeyWebhook, d.GetWebhook()), logs.Err(err))
			}
		}
	}
}

func (r *Ring) write(ctx context.Context, d *webhookv1.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := r.cfg.Store.UpdateRefused(ctx, d.GetWorkspace(), d.GetWebhook(), func(rec *storev1.RefusedRecord) error {
		rec.LastNumber++
		d.Number = rec.GetLastNumber()
		rec.Requests = append(rec.Requests, d)
		if n := len(rec.GetRequests()); n > Kept {
			rec.Requests = rec.GetRequests()[n-Kept:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.cfg.Refused(ctx, d)
}
