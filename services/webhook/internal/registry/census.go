package registry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// census counts webhooks by how they stand and by their health, at each scrape, from memory.
type census struct{ *Registry }

// censusTimeout bounds what a scrape reads from the store where it is not in memory yet.
const censusTimeout = time.Second

var (
	webhooksByState  = prometheus.NewDesc("devpilot_webhook_webhooks", "Webhooks by how they stand and the reason why not better; all replicas tell the same.", []string{"state", "reason"}, nil)
	webhooksByHealth = prometheus.NewDesc("devpilot_webhook_health", "Webhooks that apps need by what is wrong with them, REGISTERED where nothing is; all replicas tell the same.", []string{"health"}, nil)
)

// Describe implements prometheus.Collector.
func (census) Describe(ch chan<- *prometheus.Desc) {
	ch <- webhooksByState
	ch <- webhooksByHealth
}

// Collect implements prometheus.Collector. Where the health of one webhook cannot be read, that of none is told.
func (c census) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), censusTimeout)
	defer cancel()
	type standing struct{ state, reason string }
	states, healths := map[standing]int{}, map[webhookv1.Webhook_Health]int{}
	for _, rec := range c.cfg.Cache.All() {
		if len(rec.GetWatches()) == 0 && (rec.GetState() != webhookv1.Webhook_LEFT_ON_BITBUCKET || rec.GetDismissed()) {
			continue
		}
		states[standing{rec.GetState().String(), rec.GetReason()}]++
		if healths == nil {
			continue
		}
		h, err := c.health(ctx, rec)
		if err != nil {
			healths = nil
			continue
		}
		healths[h]++
	}
	for s, n := range states {
		ch <- prometheus.MustNewConstMetric(webhooksByState, prometheus.GaugeValue, float64(n), s.state, s.reason)
	}
	for number, word := range webhookv1.Webhook_Health_name {
		if h := webhookv1.Webhook_Health(number); healths != nil && h != webhookv1.Webhook_HEALTH_UNSPECIFIED {
			ch <- prometheus.MustNewConstMetric(webhooksByHealth, prometheus.GaugeValue, float64(healths[h]), word)
		}
	}
}

// health is a webhook's health. What came to it is read only where it matters.
func (c census) health(ctx context.Context, rec *storev1.WebhookRecord) (webhookv1.Webhook_Health, error) {
	w := &webhookv1.Webhook{}
	ring, err := c.cfg.Store.LatelyRefused(ctx, rec.GetWorkspace(), rec.GetId())
	if err != nil {
		return 0, err
	}
	if w.LastRefusedTime = LastRefused(rec, ring.GetRequests()); w.LastRefusedTime != nil || rec.GetLastFoundTime() != nil {
		ledger, _, err := c.cfg.Store.Stand(ctx, rec.GetWorkspace(), rec.GetId())
		if err != nil {
			return 0, err
		}
		w.LastVerifiedTime = ledger.GetLastVerifiedTime()
	}
	h, _ := health(w, rec)
	return h, nil
}
