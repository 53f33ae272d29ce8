package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MinServer is the oldest nats-server that everything here was measured with (DESIGN.md#jetstream).
const MinServer = "2.15"

const (
	// PublishTimeout bounds one publish, from the call to JetStream's acknowledgement.
	PublishTimeout = 2 * time.Second
	// apiTimeout bounds JetStream API calls whose context has no deadline.
	apiTimeout = 5 * time.Second
)

// Connect opens a connection for a service called name. It reconnects for ever and never buffers:
// while the connection is down a publish fails at once, so that nothing is sent later that its
// caller has already been told was refused (DESIGN.md#jetstream). An embedded server is reached by
// passing its ConnectOption.
//
// The first connection must succeed; callers that start before NATS repeat the call.
func Connect(url, name string, extra ...nats.Option) (*nats.Conn, jetstream.JetStream, error) {
	opts := []nats.Option{
		nats.Name(name),
		nats.Timeout(5 * time.Second),
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 200*time.Millisecond),
		// A server that hangs without closing its sockets is noticed after 10 to 15 s.
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
	}
	nc, err := nats.Connect(url, append(opts, extra...)...)
	if err != nil {
		return nil, nil, fmt.Errorf("stream: connect to NATS: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("stream: open JetStream: %w", err)
	}
	return nc, js, nil
}

// Publisher publishes with the deadline that every publish to JetStream has.
type Publisher struct {
	JS jetstream.JetStream
	// Timeout replaces PublishTimeout when it is not zero.
	Timeout time.Duration
}

// Publish stores msg, whose subject is bare, and waits for the acknowledgement, PublishTimeout at most. The headers of
// msg gain the trace context and request id of ctx. An error means that the message was not
// acknowledged, not that it was not stored: repeat it with the same message id
// (jetstream.WithMsgID) or make its effect idempotent.
func (p Publisher) Publish(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	timeout := p.Timeout
	if timeout == 0 {
		timeout = PublishTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	InjectHeaders(ctx, msg.Header)
	ack, err := p.JS.PublishMsg(ctx, InstallationOf(p.JS).message(msg), opts...)
	if err != nil {
		return nil, fmt.Errorf("stream: publish to %s: %w", msg.Subject, err)
	}
	return ack, nil
}

// PublishAsync is jetstream's PublishMsgAsync of a message with a bare subject.
func PublishAsync(js jetstream.JetStream, msg *nats.Msg, opts ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	return js.PublishMsgAsync(InstallationOf(js).message(msg), opts...)
}

// ErrTemporary marks errors that say nothing about the message being handled, such as trouble with
// a store. Consume keeps such a message in its slot and handles it again, without counting an
// attempt against it. Wrap it, or give an error an Is method that answers true for it.
var ErrTemporary = errors.New("stream: temporary")
