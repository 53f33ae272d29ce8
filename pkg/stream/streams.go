package stream

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const day = 24 * time.Hour // one day

// Definition is a stream's settings and their version. Raise the version with every change of the
// settings: an older replica then leaves them alone (see Ensure).
type Definition struct {
	Config  jetstream.StreamConfig
	Version int
}

// Limits is a definition, of version 1, of a stream that keeps messages until they are too old or too many.
// A full one drops its oldest; an age of zero is no limit. How large it may be follows from its share (see
// Shares).
func Limits(name, description, subject string, maxAge time.Duration) Definition {
	return Definition{Version: 1, Config: jetstream.StreamConfig{
		Name:        name,
		Description: description,
		Subjects:    []string{subject},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxAge:      maxAge,
		Duplicates:  2 * time.Minute,
	}}
}

// The streams that several services use. Owners pass them to Ensure; nobody modifies them.
var (
	// Pushes holds push events for the deployer and whoever else wants them.
	Pushes = Limits(PushesStream, "push events, one per changed ref", AllPushes, 7*day)

	// Events holds change events. The record is the outbox; an event only means "look again".
	Events = Limits(EventsStream, "what changed: look again", AllEvents, 7*day)

	// DeadLetters holds messages that Consume gave up on, with the reason in their headers.
	DeadLetters = Limits(DeadLettersStream, "messages that could not be handled", AllDeadLetters, 90*day)
)

// Queue makes a message leave the stream when it was handled.
func Queue(d Definition) Definition {
	d.Config.Retention = jetstream.WorkQueuePolicy
	return d
}
