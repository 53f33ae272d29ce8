// Package changes connects webhook to the change events of the product: it publishes its own, from
// the buckets that it owns, and follows those of integrations.
package changes

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// The kinds of change events that webhook publishes.
const (
	KindWebhook  = "webhook"  // id: the webhook
	KindDelivery = "delivery" // id: <webhook>/<number>, of the webhook's deliveries the one that changed last in a while
)

// service is webhook's name in the events' subjects.
const service = "webhook"

const (
	// tellWebhooks is how often changes of webhooks are told: while one is registered it changes several
	// times in a moment, and each event costs a write here and a reading there.
	tellWebhooks = 250 * time.Millisecond
	// tellDeliveries is how often changes of deliveries are told.
	tellDeliveries = time.Second
)

// Config is what Publish and Follow need.
type Config struct {
	JS jetstream.JetStream
	// Position keeps how far a consumer has come.
	Position func(name string) stream.Position
	Logger   *slog.Logger
	Metrics  *stream.Metrics // may be nil
}

// Publish publishes the changes of webhooks, deliveries and refused requests until ctx is done.
func Publish(ctx context.Context, cfg Config) error {
	g, ctx := errgroup.WithContext(ctx)
	relay := func(bucket string, relay kv.RelayConfig) {
		relay.Bucket, relay.Service, relay.Position = bucket, service, cfg.Position("changes-"+bucket)
		relay.Logger, relay.Metrics = cfg.Logger, cfg.Metrics
		g.Go(func() error { return kv.RelayChanges(ctx, cfg.JS, relay) })
	}
	nobody := func(string, bool) (workspace, kind, id string, ok bool) { return "", "", "", false }
	relay(natsstore.WebhooksBucket, kv.RelayConfig{Describe: describeWebhook, Every: tellWebhooks})
	relay(natsstore.RefusedBucket, kv.RelayConfig{Describe: describeWebhook, Every: tellWebhooks})
	relay(natsstore.PagesBucket, kv.RelayConfig{Describe: nobody, DescribeValue: describePage, Group: webhookOf, Every: tellDeliveries})
	relay(natsstore.DeliveriesBucket, kv.RelayConfig{Describe: nobody, DescribeValue: describeDelivery, Group: webhookOf, Every: tellDeliveries})
	return g.Wait()
}

// webhookOf is the part of a key that names the webhook: <workspace>.<webhook>. A burst changes many
// pages, and whoever follows reads the list again after one event as after twenty.
func webhookOf(key string) string {
	if at := strings.LastIndexByte(key, '.'); at >= 0 {
		return key[:at]
	}
	return key
}

// describeWebhook reads the key <workspace>.<webhook>.
func describeWebhook(key string, _ bool) (workspace, kind, id string, ok bool) {
	parts, err := kv.DecodeKey(key)
	if err != nil || len(parts) != 2 {
		return "", "", "", false
	}
	return parts[0], KindWebhook, parts[1], true
}

// describeDelivery reads the value: the key holds the slot, not the number.
func describeDelivery(_ string, value []byte) (workspace, kind, id string, ok bool) {
	var rec storev1.DeliveryRecord
	if err := proto.Unmarshal(value, &rec); err != nil {
		return "", "", "", false
	}
	d := rec.GetDelivery()
	return d.GetWorkspace(), KindDelivery, d.GetWebhook() + "/" + strconv.Itoa(int(d.GetNumber())), true
}

// describePage names the newest of the deliveries that may have changed.
func describePage(_ string, value []byte) (workspace, kind, id string, ok bool) {
	var page storev1.DeliveryPage
	if err := proto.Unmarshal(value, &page); err != nil || len(page.GetDeliveries()) == 0 {
		return "", "", "", false
	}
	d := page.GetDeliveries()[len(page.GetDeliveries())-1].GetDelivery()
	return d.GetWorkspace(), KindDelivery, d.GetWebhook() + "/" + strconv.Itoa(int(d.GetNumber())), true
}

// Durable is the consumer that all replicas share.
const Durable = "webhook-integrations"

// Follow calls changed with each workspace whose integration changed, until ctx is done. The event
// only means "look again". A workspace for which changed fails comes again, for as long as it takes.
func Follow(ctx context.Context, cfg Config, changed func(ctx context.Context, workspace string) error) error {
	filter, err := stream.EventsOfService("auth", "integration")
	if err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: cfg.JS, Stream: stream.EventsStream, Durable: Durable, Filters: []string{filter},
		Slots: 2, MaxAttempts: -1, Logger: cfg.Logger, Metrics: cfg.Metrics,
		Handle: func(ctx context.Context, m stream.Msg) error {
			_, workspace, _, err := stream.ParseEventSubject(m.Subject)
			if err != nil {
				return stream.Parkf("not a change event: %v", err)
			}
			return changed(ctx, workspace)
		},
	})
}
