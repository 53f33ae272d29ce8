// Package outcome brings what came of pushes to the webhook service, which shows it beside the
// delivery. Outcomes wait in a stream of their own, so that a webhook service that is away delays
// them and nothing else.
//
// A deployment's delivery hears of it twice: when it is made, and how it ended.
//
// Depends on pkg/stream, internal/record/lane and webhook's contract.
package outcome

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Recorder takes outcomes: the webhook service.
type Recorder interface {
	Record(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error
}

// Deployments are the deployments' records; their errors are those of pkg/kv.
type Deployments interface {
	Get(ctx context.Context, key string) (*storev1.Deployment, uint64, error)
}

// Outbox stores and forwards outcomes.
type Outbox struct {
	JS       jetstream.JetStream
	Recorder Recorder
	// Deployments tells how a deployment stands that a repeat is answered with; nil: not at all.
	Deployments Deployments
	Logger      *slog.Logger
	Metrics     *stream.Metrics
	Now         func() time.Time
}

// batch is how many outcomes one call carries; webhook takes 1,000.
const batch = 500

// Put stores outcomes; each is brought to webhook at least once.
func (o *Outbox) Put(ctx context.Context, outcomes ...*webhookv1.RecordedOutcome) error {
	for _, x := range outcomes {
		data, err := proto.Marshal(x)
		if err != nil {
			return fmt.Errorf("outcome: encode: %w", err)
		}
		id := fmt.Sprintf("%s.%s.%d.%d.%s.%d.%s.%s", x.GetWorkspace(), x.GetWebhook(), x.GetDelivery(), x.GetOutcome().GetChange(), x.GetOutcome().GetApp(), x.GetOutcome().GetDeployment(), x.GetOutcome().GetReason(), x.GetOutcome().GetDeploymentState())
		if _, err := (stream.Publisher{JS: o.JS}).Publish(ctx, &nats.Msg{Subject: stream.OutcomeSubject(), Data: data}, jetstream.WithMsgID(id)); err != nil {
			return fmt.Errorf("outcome: %w: %w", stream.ErrTemporary, err)
		}
	}
	return nil
}

// Run forwards outcomes until ctx is done.
func (o *Outbox) Run(ctx context.Context) error {
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: o.JS, Stream: stream.OutcomesStream, Durable: "webhook", HandleBatch: o.forward, Batch: batch,
		MaxAttempts: -1, Logger: o.Logger, Metrics: o.Metrics,
	})
}

func (o *Outbox) forward(ctx context.Context, ms []stream.Msg) error {
	outcomes := make([]*webhookv1.RecordedOutcome, 0, len(ms))
	for _, m := range ms {
		x := &webhookv1.RecordedOutcome{}
		if err := proto.Unmarshal(m.Data, x); err != nil {
			if len(ms) == 1 {
				return stream.Parkf("cannot be decoded: %v", err)
			}
			return fmt.Errorf("outcome: decode: %w", err) // one by one, then this one is parked
		}
		outcomes = append(outcomes, x)
	}
	return o.Recorder.Record(ctx, outcomes)
}
