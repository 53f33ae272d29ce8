package servicemain

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/ops"
)

// redisPause is how often Redis is asked whether it is there.
const redisPause = 5 * time.Second

// Health is what metrics tell of a process and its stores: whether each can be used. It is safe for concurrent
// use. A scrape asks nobody.
type Health struct {
	ready, redis atomic.Bool
	nats         atomic.Pointer[func(context.Context) error]
}

// NewHealth registers the metrics, that of NATS where the process keeps something there.
func NewHealth(reg prometheus.Registerer, nats bool) (*Health, error) {
	h := &Health{}
	all := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_ready", Help: "1 while this process can serve, as /readyz says.",
		}, func() float64 { return number(h.ready.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_redis_up", Help: "1 while Redis answers this process; asked every 5 seconds.",
		}, func() float64 { return number(h.redis.Load()) }),
	}
	if nats {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_nats_up", Help: "1 while this process is connected to NATS and its streams take writes.",
		}, func() float64 { return number(h.natsUp()) }))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("servicemain: register metrics: %w", err)
		}
	}
	return h, nil
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Ready notes whether the process is ready; nil is ready.
func (h *Health) Ready(err error) { h.ready.Store(err == nil) }

// NATS has the metric of NATS say what check does, which tells from memory whether the streams take writes. Before
// the call it is 0.
func (h *Health) NATS(check func(context.Context) error) { h.nats.Store(&check) }

func (h *Health) natsUp() bool {
	check := h.nats.Load()
	return check != nil && (*check)(context.Background()) == nil
}

// Watch has the metric of readiness follow it until ctx is done.
func (h *Health) Watch(ctx context.Context, readiness *ops.Readiness) {
	readiness.Watch(ctx, healthInterval, h.Ready)
}

// WatchRedis asks Redis until ctx is done.
func (h *Health) WatchRedis(ctx context.Context, client redis.UniversalClient) error {
	tick := time.NewTicker(redisPause)
	defer tick.Stop()
	for {
		err := client.Ping(ctx).Err()
		if !errors.Is(err, context.Canceled) {
			h.redis.Store(err == nil)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
