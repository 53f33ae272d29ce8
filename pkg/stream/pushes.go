package stream

import (
	"context"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/proto"

	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// HeaderEvents says that a message of DEVPILOT_PUSHES holds several events, and how many.
const HeaderEvents = "Devpilot-Events"

// PushMessage makes one message of the events of one webhook. A single event is stored as it is, as
// every version reads it.
func PushMessage(events ...*eventsv1.PushEvent) (*nats.Msg, error) {
	first := events[0]
	subject, err := PushSubject(first.GetWorkspace(), first.GetRepository())
	if err != nil {
		return nil, fmt.Errorf("stream: subject of event %s: %w", first.GetId(), err)
	}
	msg := &nats.Msg{Subject: subject, Header: nats.Header{}}
	InjectHeaders(PushContext(context.Background(), first), msg.Header)
	var m proto.Message = first
	if len(events) > 1 {
		m = &eventsv1.PushEvents{Events: events}
		msg.Header.Set(HeaderEvents, strconv.Itoa(len(events)))
	}
	if msg.Data, err = proto.Marshal(m); err != nil {
		return nil, fmt.Errorf("stream: encode event %s: %w", first.GetId(), err)
	}
	return msg, nil
}

// PushEvents are the events of a message of DEVPILOT_PUSHES.
func PushEvents(m Msg) ([]*eventsv1.PushEvent, error) {
	if m.Header.Get(HeaderEvents) != "" {
		several := &eventsv1.PushEvents{}
		if err := proto.Unmarshal(m.Data, several); err != nil {
			return nil, fmt.Errorf("stream: decode push events: %w", err)
		}
		return several.GetEvents(), nil
	}
	e := &eventsv1.PushEvent{}
	if err := proto.Unmarshal(m.Data, e); err != nil {
		return nil, fmt.Errorf("stream: decode a push event: %w", err)
	}
	if e.GetRequestId() == "" { // stored by an earlier version, which has them in the headers only
		e.RequestId = m.Header.Get(HeaderRequestID)
		e.Traceparent = m.Header.Get("traceparent")
	}
	return []*eventsv1.PushEvent{e}, nil
}

// PushContext returns ctx with the trace and the request id of an event.
func PushContext(ctx context.Context, e *eventsv1.PushEvent) context.Context {
	return WithRequestID(traceContext.Extract(ctx, propagation.MapCarrier{"traceparent": e.GetTraceparent()}), e.GetRequestId())
}
