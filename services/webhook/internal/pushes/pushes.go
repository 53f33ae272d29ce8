// Package pushes turns a stored delivery into push events: one per change, all of them (several
// branches, deletions, tags, forced updates), and one that says "poll the repository" where the
// payload does not tell what changed (BITBUCKET.md#push-payload, case 8).
//
// Depends on pkg/bitbucket/hook, pkg/stream and the protos.
package pushes

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// maxRead bounds what is stored of a push beside its body, in bytes.
const maxRead = 64 << 10

// Stored is what of a push is stored with the delivery, so that nobody reads the body again; nil for
// one whose messages are so long that this would take more room than reading costs time.
func Stored(p hook.Push) *storev1.ReadPush {
	read := Read(p)
	if proto.Size(read) > maxRead {
		return nil
	}
	return read
}

// Read is what of a push is used.
func Read(p hook.Push) *storev1.ReadPush {
	out := &storev1.ReadPush{
		Repository: p.Repository.UUID, FullName: clean(p.Repository.FullName), ActorLabel: clean(p.Actor.Label()), Unreadable: int32(p.Unreadable),
	}
	for _, c := range p.Changes {
		out.Changes = append(out.Changes, &storev1.ReadChange{
			Index: int32(c.Index), Old: readRef(c.Old), New: readRef(c.New), Forced: c.Forced, Truncated: c.Truncated,
		})
	}
	return out
}

func readRef(r *hook.Ref) *storev1.ReadRef {
	if r == nil {
		return nil
	}
	out := &storev1.ReadRef{
		Tag: r.Kind == hook.Tag, Name: clean(r.Name), Hash: r.Target.Hash, Message: clean(r.Target.Message),
		AuthorName: clean(r.Target.AuthorName), AuthorEmail: clean(r.Target.AuthorEmail),
	}
	if !r.Target.Time.IsZero() {
		out.Time = timestamppb.New(r.Target.Time)
	}
	return out
}

// clean makes a text fit for a record: a lone half of a surrogate pair in a body is no valid UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Source is the delivery that events are made from.
type Source struct {
	Webhook  *storev1.WebhookRecord
	Delivery *storev1.InboxDelivery
	Number   int32
	Push     *storev1.ReadPush
	// Replay is the number of the replay, from 1; 0 for the delivery itself.
	Replay int32
}

// Events are the push events of a delivery, in the order of its changes. Their ids are the same
// whenever they are made again.
func Events(s Source) []*eventsv1.PushEvent {
	var out []*eventsv1.PushEvent
	for _, c := range s.Push.GetChanges() {
		e := s.event(c.GetIndex())
		ref := refOf(c)
		e.RefType, e.Ref = eventsv1.PushEvent_BRANCH, ref.GetName()
		if ref.GetTag() {
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
		e.Old, e.New = commit(c.GetOld()), commit(c.GetNew())
		e.Forced, e.Truncated = c.GetForced(), c.GetTruncated()
		out = append(out, e)
	}
	if len(s.Push.GetChanges()) == 0 || s.Push.GetUnreadable() > 0 {
		e := s.event(unreadable(s.Push))
		e.Action, e.Unreadable = eventsv1.PushEvent_UNKNOWN, s.Push.GetUnreadable()
		out = append(out, e)
	}
	return out
}

// refOf is what a change is about: the ref now, or before its deletion.
func refOf(c *storev1.ReadChange) *storev1.ReadRef {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// unreadable is the place of the first change that could not be read.
func unreadable(p *storev1.ReadPush) int32 {
	n := int32(0)
	for _, c := range p.GetChanges() {
		if c.GetIndex() != n {
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
		ReceiveTime: d.GetReceiveTime(), Replay: s.Replay > 0, RequestId: d.GetRequestId(), Traceparent: d.GetTraceparent(),
	}
	if s.Replay > 0 {
		e.Id += fmt.Sprintf(".r%d", s.Replay)
	}
	if label := s.Push.GetActorLabel(); label != "" {
		e.Actor = &eventsv1.Actor{Kind: eventsv1.Actor_BITBUCKET_ACCOUNT, Label: label}
	}
	return e
}

// FullName is the repository's name as the payload has it, else as we knew it.
func FullName(rec *storev1.WebhookRecord, p *storev1.ReadPush) string {
	if p.GetFullName() != "" {
		return p.GetFullName()
	}
	return rec.GetRepositoryFullName()
}

func commit(r *storev1.ReadRef) *eventsv1.Commit {
	if r == nil {
		return nil
	}
	return &eventsv1.Commit{Hash: r.GetHash(), Message: r.GetMessage(), AuthorName: r.GetAuthorName(), AuthorEmail: r.GetAuthorEmail(), Time: r.GetTime()}
}

// maxChanges is how many changes a delivery shows.
const maxChanges = 1000

// Changes are a delivery's changes for people.
func Changes(p *storev1.ReadPush) []*webhookv1.DeliveryChange {
	var out []*webhookv1.DeliveryChange
	for _, c := range p.GetChanges()[:min(len(p.GetChanges()), maxChanges)] {
		ref := refOf(c)
		d := &webhookv1.DeliveryChange{RefType: webhookv1.DeliveryChange_BRANCH, Ref: ref.GetName(), Forced: c.GetForced()}
		if ref.GetTag() {
			d.RefType = webhookv1.DeliveryChange_TAG
		}
		d.Action = webhookv1.DeliveryChange_UPDATED
		if c.Old == nil {
			d.Action = webhookv1.DeliveryChange_CREATED
		} else {
			d.OldHash = c.GetOld().GetHash()
		}
		if c.New == nil {
			d.Action = webhookv1.DeliveryChange_DELETED
		} else {
			d.NewHash, d.Message, d.AuthorName = c.GetNew().GetHash(), FirstLine(c.GetNew().GetMessage()), FirstLine(c.GetNew().GetAuthorName())
		}
		out = append(out, d)
	}
	return out
}

// maxLine is how much of a text's first line is kept, in characters.
const maxLine = 200

// FirstLine is the first line of a text, cut to what a list shows.
func FirstLine(message string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(message, "\r\n"), "\n")
	line = strings.TrimRight(line, "\r ")
	if r := []rune(line); len(r) > maxLine {
		return string(r[:maxLine-1]) + "…"
	}
	return line
}

// One message holds at most so many events, and so many bytes of them (or one event of any size).
const (
	maxEvents     = 256
	maxEventBytes = 256 << 10
)

// Publish publishes events of one webhook in their order, packed, and waits until all are stored.
// Published again in the same packs within minutes they are stored once; consumers know an event that
// comes twice by its id.
func Publish(ctx context.Context, js jetstream.JetStream, events []*eventsv1.PushEvent) error {
	var acks []jetstream.PubAckFuture
	for len(events) > 0 {
		n, size := 1, proto.Size(events[0])
		for n < len(events) && n < maxEvents {
			if size += proto.Size(events[n]); size > maxEventBytes {
				break
			}
			n++
		}
		pack := events[:n]
		events = events[n:]
		id := pack[0].GetId()
		if n > 1 {
			id += "-" + pack[n-1].GetId()
		}
		msg, err := stream.PushMessage(pack...)
		if err != nil {
			return fmt.Errorf("pushes: %w", err)
		}
		ack, err := stream.PublishAsync(js, msg, jetstream.WithMsgID(id))
		if err != nil {
			return fmt.Errorf("%w: publish push event %s: %w", kv.ErrUnavailable, id, err)
		}
		acks = append(acks, ack)
	}
	return await(ctx, acks)
}

// Published returns the ids of a repository's push events that were stored since a moment. It reads
// them all: for what may have been published before a crash.
func Published(ctx context.Context, js jetstream.JetStream, workspace, repository string, since time.Time) (map[string]bool, error) {
	subject, err := stream.PushSubject(workspace, repository)
	if err != nil {
		return nil, fmt.Errorf("pushes: %w", err)
	}
	names := stream.InstallationOf(js)
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{names.Subject(subject)}}
	if since.After(time.Unix(0, 0)) {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	cons, err := js.OrderedConsumer(ctx, names.Stream(stream.PushesStream), cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: read push events: %w", kv.ErrUnavailable, err)
	}
	ids := map[string]bool{}
	for left := cons.CachedInfo().NumPending; left > 0; left-- {
		raw, err := cons.Next(jetstream.FetchMaxWait(stream.PublishTimeout))
		if err != nil {
			return nil, fmt.Errorf("%w: read push events: %w", kv.ErrUnavailable, err)
		}
		events, err := stream.PushEvents(stream.Msg{Header: raw.Headers(), Data: raw.Data()})
		if err != nil {
			continue // what cannot be read is nobody's event
		}
		for _, e := range events {
			ids[e.GetId()] = true
		}
	}
	return ids, nil
}

// ackTimeout bounds the wait for all acknowledgements.
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
