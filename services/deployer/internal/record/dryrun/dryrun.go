// Package dryrun asks a server's workers what would come of a push, by a request on NATS that no stream
// keeps: the role api has no repository to read.
//
// Depends on internal/record/streams, for the subject, and the stored records.
package dryrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// timeout bounds the wait for an answer: a worker's own timeout, and its turn before it.
const timeout = 20 * time.Second

// Client asks.
type Client struct{ JS jetstream.JetStream }

// Check asks a worker of a server; an error says that none answered.
func (c Client) Check(ctx context.Context, server string, q *storev1.PushQuestion) (*deployerv1.CheckPushResponse, error) {
	subject, err := streams.CheckSubject(server)
	if err != nil {
		return nil, err
	}
	data, err := proto.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("dryrun: encode: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := c.JS.Conn().RequestWithContext(ctx, stream.InstallationOf(c.JS).Subject(subject), data)
	if err != nil {
		return nil, fmt.Errorf("dryrun: %w", err)
	}
	if len(msg.Data) == 0 {
		return nil, errors.New("dryrun: the worker could not answer")
	}
	out := &deployerv1.CheckPushResponse{}
	if err := proto.Unmarshal(msg.Data, out); err != nil {
		return nil, fmt.Errorf("dryrun: decode: %w", err)
	}
	return out, nil
}

// Serve answers the questions to a server until ctx is done. answer must not block: it calls reply, with
// nil where it has no answer, when it knows.
func Serve(ctx context.Context, js jetstream.JetStream, server string, answer func(q *storev1.PushQuestion, reply func(*deployerv1.CheckPushResponse))) error {
	subject, err := streams.CheckSubject(server)
	if err != nil {
		return err
	}
	sub, err := js.Conn().QueueSubscribe(stream.InstallationOf(js).Subject(subject), "workers", func(m *nats.Msg) {
		reply := func(r *deployerv1.CheckPushResponse) {
			var data []byte
			if r != nil {
				data, _ = proto.Marshal(r) // its strings are ours
			}
			_ = m.Respond(data) // who asked has a timeout
		}
		q := &storev1.PushQuestion{}
		if err := proto.Unmarshal(m.Data, q); err != nil {
			reply(nil)
			return
		}
		answer(q, reply)
	})
	if err != nil {
		return fmt.Errorf("dryrun: subscribe: %w", err)
	}
	<-ctx.Done()
	_ = sub.Unsubscribe() // the connection closes soon
	return nil
}
