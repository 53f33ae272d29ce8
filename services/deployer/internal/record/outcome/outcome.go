// Package outcome brings what came of pushes to the webhook service, which shows it beside the
// delivery. Outcomes that it does not take at once wait in a stream of their own, so that a webhook
// service that is away delays them and nothing else.
//
// A deployment's delivery hears of it twice: when it is made, and how it ended.
//
// Depends on pkg/stream, internal/record/lane and webhook's contract.
package outcome

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// Recorder takes outcomes: the webhook service.
type Recorder interface {
	Record(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error
}

// Deployments are the deployments' records; their errors are those of pkg/kv.
type Deployments interface {
	Get(ctx context.Context, key string) (*storev1.Deployment, uint64, error)
}

// Outbox brings outcomes to webhook, and stores what it does not take. It is safe for concurrent use.
type Outbox struct {
	JS       jetstream.JetStream
	Recorder Recorder
	// Deployments tells how a deployment stands that a repeat is answered with, and what it read of its
	// commit; nil: not at all.
	Deployments Deployments
	// Position keeps how far webhook has taken what was stored, so that taking it costs no write; nil: the
	// consumer keeps it. What comes again after a restart, webhook keeps once.
	Position stream.Position
	Logger   *slog.Logger
	Metrics  *stream.Metrics
	Now      func() time.Time

	// again is when webhook is called again after it did not answer, in Unix nanoseconds.
	again atomic.Int64
}

const (
	// callTimeout bounds a call of webhook before its outcomes are stored.
	callTimeout = 2 * time.Second
	// callPause is how long all are stored after webhook did not answer.
	callPause = 5 * time.Second
	// batch is how many messages are forwarded together.
	batch = 500
	// perCall is how many outcomes one call carries; webhook takes 1,000.
	perCall = 500
	// packed is how many outcomes one message holds.
	packed = 200
	// headerOutcomes says that a message holds several outcomes, and how many.
	headerOutcomes = "Devpilot-Outcomes"
)

// Put brings outcomes to webhook, or stores those that it does not take; each is brought at least once.
func (o *Outbox) Put(ctx context.Context, outcomes ...*webhookv1.RecordedOutcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	if time.Now().UnixNano() < o.again.Load() {
		return o.store(ctx, outcomes)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := o.record(call, outcomes)
	if err == nil {
		return nil
	}
	o.again.Store(time.Now().Add(callPause).UnixNano())
	o.Logger.InfoContext(ctx, "webhook takes no outcomes now; they are kept for it", logs.Err(err))
	return o.store(ctx, outcomes)
}

// Stored is an outbox that stores all and forwards it later: for whoever may say something else of the
// same push, should it die, or be overtaken, after webhook has heard and before it has noted that.
type Stored struct{ Outbox *Outbox }

// Put stores outcomes.
func (s Stored) Put(ctx context.Context, outcomes ...*webhookv1.RecordedOutcome) error {
	return s.Outbox.store(ctx, outcomes)
}

// store keeps outcomes until Run forwards them.
func (o *Outbox) store(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error {
	for len(outcomes) > 0 {
		n := min(len(outcomes), packed)
		if err := o.put(ctx, outcomes[:n]); err != nil {
			return err
		}
		outcomes = outcomes[n:]
	}
	return nil
}

func (o *Outbox) put(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error {
	msg := &nats.Msg{Subject: streams.OutcomeSubject, Header: nats.Header{}}
	var m proto.Message = outcomes[0]
	id := idOf(outcomes[0])
	if len(outcomes) > 1 {
		m = &webhookv1.RecordOutcomesRequest{Outcomes: outcomes}
		msg.Header.Set(headerOutcomes, strconv.Itoa(len(outcomes)))
		h := sha256.New()
		for _, x := range outcomes {
			h.Write([]byte(idOf(x) + "\n"))
		}
		id = hex.EncodeToString(h.Sum(nil))
	}
	var err error
	if msg.Data, err = proto.Marshal(m); err != nil {
		return fmt.Errorf("outcome: encode: %w", err)
	}
	if _, err := (stream.Publisher{JS: o.JS}).Publish(ctx, msg, jetstream.WithMsgID(id)); err != nil {
		return fmt.Errorf("outcome: %w: %w", stream.ErrTemporary, err)
	}
	return nil
}

func idOf(x *webhookv1.RecordedOutcome) string {
	return fmt.Sprintf("%s.%s.%d.%s.%d.%s.%d.%s.%s", x.GetWorkspace(), x.GetWebhook(), x.GetDelivery(), foundID(x.GetFound()), x.GetOutcome().GetChange(), x.GetOutcome().GetApp(), x.GetOutcome().GetDeployment(), x.GetOutcome().GetReason(), x.GetOutcome().GetDeploymentState())
}

func foundID(f *webhookv1.FoundPush) string {
	if f == nil {
		return ""
	}
	return f.GetRepository() + "/" + f.GetKey()
}

// Durable is the consumer that all replicas share.
const Durable = "webhook"

// Run forwards outcomes until ctx is done.
func (o *Outbox) Run(ctx context.Context) error {
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: o.JS, Stream: streams.OutcomesStream, Durable: Durable, HandleBatch: o.forward, Batch: batch,
		MaxAttempts: -1, Position: o.Position, Logger: o.Logger, Metrics: o.Metrics,
	})
}

func (o *Outbox) forward(ctx context.Context, ms []stream.Msg) error {
	outcomes := make([]*webhookv1.RecordedOutcome, 0, len(ms))
	for _, m := range ms {
		some, err := decode(m)
		if err != nil {
			if len(ms) == 1 {
				return stream.Parkf("cannot be decoded: %v", err)
			}
			return fmt.Errorf("outcome: decode: %w", err) // one by one, then this one is parked
		}
		outcomes = append(outcomes, some...)
	}
	return o.record(ctx, outcomes)
}

func decode(m stream.Msg) ([]*webhookv1.RecordedOutcome, error) {
	if m.Header.Get(headerOutcomes) != "" {
		several := &webhookv1.RecordOutcomesRequest{}
		err := proto.Unmarshal(m.Data, several)
		return several.GetOutcomes(), err
	}
	one := &webhookv1.RecordedOutcome{}
	return []*webhookv1.RecordedOutcome{one}, proto.Unmarshal(m.Data, one)
}

func (o *Outbox) record(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error {
	for len(outcomes) > 0 {
		n := min(len(outcomes), perCall)
		if err := o.Recorder.Record(ctx, outcomes[:n]); err != nil {
			return err
		}
		outcomes = outcomes[n:]
	}
	return nil
}
