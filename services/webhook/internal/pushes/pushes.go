// Package pushes turns a stored delivery into push events: one per change, all of them (several
// branches, deletions, tags, forced updates), and one that says "look at the repository" where the
// payload does not tell what changed (BITBUCKET.md#push-payload, case 8).
//
// Depends on pkg/bitbucket/hook, pkg/stream and the protos.
package pushes

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Source is the delivery that events are made from.
type Source struct {
	Webhook  *storev1.WebhookRecord
	Delivery *storev1.InboxDelivery
	Number   int32
	Push     hook.Push
	// Replay is the number of the replay, from 1; 0 for the delivery itself.
	Replay int32
}

// Events are the push events of a delivery, in the order of its changes. Their ids are the same
// whenever they are made again.
func Events(s Source) []*eventsv1.PushEvent {
	var out []*eventsv1.PushEvent
	for _, c := range s.Push.Changes {
		e := s.event(int32(c.Index))
		ref := c.Ref()
		e.RefType, e.Ref = eventsv1.PushEvent_BRANCH, ref.Name
		if ref.Kind == hook.Tag {
			e.RefType = eventsv1.PushEvent_TAG
		}
		switch {
		case c.New == nil:
			e.Action = eventsv1.PushEvent_DELETED
		case c.Old == nil:
			e.Action = eventsv1.PushEvent_CREATED
		default:
			e.Action = eventsv1.PushEvent_UPDATED
		}
		e.Old, e.New = commit(c.Old), commit(c.New)
		e.Forced, e.Truncated = c.Forced, c.Truncated
		out = append(out, e)
	}
	if len(s.Push.Changes) == 0 || s.Push.Unreadable > 0 {
		e := s.event(unreadable(s.Push))
		e.Action, e.Unreadable = eventsv1.PushEvent_UNKNOWN, int32(s.Push.Unreadable)
		out = append(out, e)
	}
	return out
}

// unreadable is the place of the first change that could not be read.
func unreadable(p hook.Push) int32 {
	n := int32(0)
	for _, c := range p.Changes {
		if int32(c.Index) != n {
			break
		}
		n++
	}
	return n
}

func (s Source) event(change int32) *eventsv1.PushEvent {
	d := s.Delivery
	e := &eventsv1.PushEvent{
		Id:        fmt.Sprintf("%s.%d.%d", s.Webhook.GetId(), s.Number, change),
		Workspace: s.Webhook.GetWorkspace(), Repository: s.Webhook.GetRepository(), RepositoryFullName: FullName(s.Webhook, s.Push),
		Webhook: s.Webhook.GetId(), Delivery: s.Number, Change: change, RequestUuid: d.GetRequestUuid(),
		ReceiveTime: d.GetReceiveTime(), Replay: s.Replay > 0,
	}
	if s.Replay > 0 {
		e.Id += fmt.Sprintf(".r%d", s.Replay)
	}
	if label := s.Push.Actor.Label(); label != "" {
		e.Actor = &eventsv1.Actor{Kind: eventsv1.Actor_BITBUCKET_ACCOUNT, Label: label}
	}
	return e
}

// FullName is the repository's name as the payload has it, else as we knew it.
func FullName(rec *storev1.WebhookRecord, p hook.Push) string {
	if p.Repository.FullName != "" {
		return p.Repository.FullName
	}
	return rec.GetRepositoryFullName()
}

func commit(r *hook.Ref) *eventsv1.Commit {
	if r == nil {
		return nil
	}
	c := &eventsv1.Commit{Hash: r.Target.Hash, Message: r.Target.Message, AuthorName: r.Target.AuthorName, AuthorEmail: r.Target.AuthorEmail}
	if !r.Target.Time.IsZero() {
		c.Time = timestamppb.New(r.Target.Time)
	}
	return c
}

// maxChanges is how many changes a delivery shows.
const maxChanges = 1000

// Changes are a delivery's changes for people.
func Changes(p hook.Push) []*webhookv1.DeliveryChange {
	var out []*webhookv1.DeliveryChange
	for _, c := range p.Changes[:min(len(p.Changes), maxChanges)] {
		ref := c.Ref()
		d := &webhookv1.DeliveryChange{RefType: webhookv1.DeliveryChange_BRANCH, Ref: ref.Name, Forced: c.Forced}
		if ref.Kind == hook.Tag {
			d.RefType = webhookv1.DeliveryChange_TAG
		}
		d.Action = webhookv1.DeliveryChange_UPDATED
		if c.Old == nil {
			d.Action = webhookv1.DeliveryChange_CREATED
		} else {
			d.OldHash = c.Old.Target.Hash
		}
		if c.New == nil {
			d.Action = webhookv1.DeliveryChange_DELETED
		} else {
			d.NewHash, d.Message = c.New.Target.Hash, firstLine(c.New.Target.Message)
		}
		out = append(out, d)
	}
	return out
}

// maxLine is how much of a commit message's first line is kept, in characters.
const maxLine = 200

func firstLine(message string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(message, "\r\n"), "\n")
	line = strings.TrimRight(line, "\r ")
	if r := []rune(line); len(r) > maxLine {
		return string(r[:maxLine-1]) + "…"
	}
	return line
}

// traceContext is how the inbox keeps the trace.
var traceContext = propagation.TraceContext{}

// Publish publishes events in their order and waits until all are stored. They may be published
// again: the stream drops repeats within minutes by their ids, consumers after that. headers come
// from the delivery: its trace and our id of its request.
func Publish(ctx context.Context, js jetstream.JetStream, d *storev1.InboxDelivery, events []*eventsv1.PushEvent) error {
	acks := make([]jetstream.PubAckFuture, 0, len(events))
	ctx = stream.WithRequestID(traceContext.Extract(ctx, propagation.MapCarrier{"traceparent": d.GetTraceparent()}), d.GetRequestId())
	for _, e := range events {
		subject, err := stream.PushSubject(e.GetWorkspace(), e.GetRepository())
		if err != nil {
			return fmt.Errorf("pushes: subject of event %s: %w", e.GetId(), err)
		}
		data, err := proto.Marshal(e)
		if err != nil {
			return fmt.Errorf("pushes: encode event %s: %w", e.GetId(), err)
		}
		msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
		stream.InjectHeaders(ctx, msg.Header)
		ack, err := js.PublishMsgAsync(msg, jetstream.WithMsgID(e.GetId()))
		if err != nil {
			return fmt.Errorf("%w: publish push event %s: %w", kv.ErrUnavailable, e.GetId(), err)
		}
		acks = append(acks, ack)
	}
	return await(ctx, acks)
}

// ackTimeout bounds the wait for all acknowledgements of one delivery.
const ackTimeout = 2*stream.PublishTimeout + time.Second

func await(ctx context.Context, acks []jetstream.PubAckFuture) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return fmt.Errorf("%w: publish push events: %w", kv.ErrUnavailable, err)
		case <-ctx.Done():
			return fmt.Errorf("%w: publish push events: %w", kv.ErrUnavailable, ctx.Err())
		}
	}
	return nil
}
