// Package examine asks a worker how its machine is, for the doctor, by a request on NATS that no stream keeps: each worker
// has a subject of its own, so that all of a server are asked.
//
// Depends on internal/record/streams, for the subject.
package examine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/stream"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// timeout is how long a worker may take: less than its service may.
const timeout = 9 * time.Second

// ErrNoAnswer says that the worker did not answer in time.
var ErrNoAnswer = errors.New("examine: the worker does not answer")

// Ask asks one worker of a server.
func Ask(ctx context.Context, js jetstream.JetStream, server, worker string) (*doctorv1.ExamineResponse, error) {
	subject, err := streams.ExamineSubject(server, worker)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := js.Conn().RequestWithContext(ctx, stream.InstallationOf(js).Subject(subject), nil)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
		return nil, ErrNoAnswer
	}
	if err != nil {
		return nil, fmt.Errorf("examine: %w", err)
	}
	out := &doctorv1.ExamineResponse{}
	if err := proto.Unmarshal(msg.Data, out); err != nil {
		return nil, fmt.Errorf("examine: decode: %w", err)
	}
	return out, nil
}

// Serve answers for one worker of a server until ctx is done, one question at a time.
func Serve(ctx context.Context, js jetstream.JetStream, server, worker string, answer func(ctx context.Context) *doctorv1.ExamineResponse) error {
	subject, err := streams.ExamineSubject(server, worker)
	if err != nil {
		return err
	}
	sub, err := js.Conn().Subscribe(stream.InstallationOf(js).Subject(subject), func(m *nats.Msg) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		data, err := proto.Marshal(answer(ctx))
		if err == nil {
			_ = m.Respond(data) // who asked has a timeout
		}
	})
	if err != nil {
		return fmt.Errorf("examine: subscribe: %w", err)
	}
	<-ctx.Done()
	_ = sub.Unsubscribe() // the connection closes soon
	return nil
}
