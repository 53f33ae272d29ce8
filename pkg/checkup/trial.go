package checkup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
)

// tryPermissions does, on a stream that is deleted again, what the services do with theirs.
func tryPermissions(ctx context.Context, c *connection) Check {
	err := trial(ctx, c.js, 1, func(ctx context.Context, s jetstream.Stream, subject string) error {
		if _, err := c.js.Publish(ctx, subject, []byte("doctor")); err != nil {
			return fmt.Errorf("publish to %s: %w", subject, err)
		}
		if _, err := s.GetLastMsgForSubject(ctx, subject); err != nil {
			return fmt.Errorf("read a message: %w", err)
		}
		consumer, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MemoryStorage: true})
		if err != nil {
			return fmt.Errorf("make a consumer: %w", err)
		}
		m, err := consumer.Next(jetstream.FetchMaxWait(monitorTimeout))
		if err != nil {
			return fmt.Errorf("take a message from a consumer: %w", err)
		}
		if err := m.DoubleAck(ctx); err != nil {
			return fmt.Errorf("acknowledge a message: %w", err)
		}
		return nil
	})
	if err != nil {
		if said := c.nc.LastError(); said != nil { // NATS answers nothing to what it does not allow, and says so beside
			err = fmt.Errorf("%w (NATS says: %w)", err, said)
		}
		return Fail(fmt.Sprintf("JetStream does not let us work: %v.", err), permissionsRemedy)
	}
	return Well("A stream was made, written, read and deleted again.")
}

// trial makes a stream in NATS's memory, works with it, and deletes it.
func trial(ctx context.Context, js *kv.Session, replicas int, work func(ctx context.Context, s jetstream.Stream, subject string) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	names, id := stream.InstallationOf(js), rand.Text()
	cfg := jetstream.StreamConfig{
		Name: names.Stream("DOCTOR_" + id), Subjects: []string{names.Subject("devpilot.doctor.v1." + id)}, Description: "made by devpilot doctor, and deleted at once",
		Storage: jetstream.MemoryStorage, Replicas: replicas,
	}
	s, err := js.CreateStream(ctx, cfg)
	if err != nil {
		return fmt.Errorf("make a stream: %w", err)
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), monitorTimeout)
		defer cancel()
		if gone := js.DeleteStream(after, cfg.Name); gone != nil {
			err = errors.Join(err, fmt.Errorf("delete the stream %s: %w", cfg.Name, gone))
		}
	}()
	return work(ctx, s, cfg.Subjects[0])
}
