// Package wakeup publishes the wake-ups that workers consume.
//
// Depends on pkg/stream, internal/record/streams and internal/record/lane.
package wakeup

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// Publisher is a lane.Waker.
type Publisher struct{ Stream stream.Publisher }

// Wake tells the workers of a server that a lane has something for them.
func (p Publisher) Wake(ctx context.Context, server string, k lane.Key) error {
	return p.publish(ctx, server, k, streams.WorkSubject)
}

// WakeDecider tells them that pushes wait for their decision.
func (p Publisher) WakeDecider(ctx context.Context, server string, k lane.Key) error {
	return p.publish(ctx, server, k, streams.DecideSubject)
}

func (p Publisher) publish(ctx context.Context, server string, k lane.Key, name func(server, workspace, app string) (string, error)) error {
	subject, err := name(server, k.Workspace, k.App)
	if err != nil {
		return err
	}
	if _, err = p.Stream.Publish(ctx, &nats.Msg{Subject: subject}); err != nil {
		return fmt.Errorf("%w: %w", kv.ErrUnavailable, err)
	}
	return nil
}
