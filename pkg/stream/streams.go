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

func limits(name, description, subject string, maxAge time.Duration, maxBytes int64) Definition {
	return Definition{Version: 1, Config: jetstream.StreamConfig{
		Name:        name,
		Description: description,
		Subjects:    []string{subject},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxAge:      maxAge,
		MaxBytes:    maxBytes,
		Duplicates:  2 * time.Minute,
	}}
}

// The streams. Owners pass them to Ensure; nobody modifies them.
var (
	// Pushes holds push events for the deployer and whoever else wants them.
	Pushes = limits(PushesStream, "push events, one per changed ref", AllPushes, 7*day, 1<<30)

	// Work holds wake-ups of workers. It has no per-subject limit: with one, a newer wake-up
	// would delete the message that a worker is busy with, and the worker would not be told.
	Work = withSubject(queue(refusing(limits(WorkStream, "wake-ups of deployment workers", AllWork, 0, 256<<20))), AllDecisions)

	// Events holds change events. The record is the outbox; an event only means "look again".
	Events = limits(EventsStream, "what changed: look again", AllEvents, 7*day, 256<<20)

	// Logs holds deployment logs.
	Logs = limits(LogsStream, "deployment logs", AllLogs, 30*day, 4<<30)

	// Outcomes holds what came of pushes until webhook has recorded it, so that a webhook service
	// that is away delays outcomes and nothing else.
	Outcomes = queue(limits(OutcomesStream, "what came of pushes, on its way to webhook", outcomeSubject, 7*day, 256<<20))

	// DeadLetters holds messages that Consume gave up on, with the reason in their headers.
	DeadLetters = limits(DeadLettersStream, "messages that could not be handled", AllDeadLetters, 90*day, 256<<20)
)

// refusing makes a full stream refuse new messages instead of dropping the oldest.
func refusing(d Definition) Definition {
	d.Config.Discard = jetstream.DiscardNew
	return d
}

// withSubject adds a kind of messages to a stream that was without it in version 1.
func withSubject(d Definition, subject string) Definition {
	d.Config.Subjects = append(d.Config.Subjects, subject)
	d.Version++
	return d
}

func queue(d Definition) Definition {
	d.Config.Retention = jetstream.WorkQueuePolicy
	return d
}
