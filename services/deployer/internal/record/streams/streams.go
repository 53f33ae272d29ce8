package streams

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
)

// Names of the streams (DESIGN.md#state).
const (
	WorkStream     = stream.WorkStream
	LogsStream     = stream.LogsStream
	OutcomesStream = stream.OutcomesStream
)

const (
	logsAge     = 30 * 24 * time.Hour // how long logs of deployments are kept
	outcomesAge = 7 * 24 * time.Hour  // how long outcomes wait for webhook
)

// The streams. The store passes them to stream.Ensure; nobody modifies them.
var (
	// Work holds wake-ups of workers. It has no per-subject limit: with one, a newer wake-up
	// would delete the message that a worker is busy with, and the worker would not be told.
	Work = work()

	// Logs holds deployment logs.
	Logs = stream.Limits(LogsStream, "deployment logs", logPrefix+".>", logsAge)

	// Outcomes holds what came of pushes until webhook has recorded it, so that a webhook service
	// that is away delays outcomes and nothing else.
	Outcomes = stream.Queue(stream.Limits(OutcomesStream, "what came of pushes, on its way to webhook", OutcomeSubject, outcomesAge))
)

func work() stream.Definition {
	d := stream.Queue(stream.Limits(WorkStream, "wake-ups of deployment workers", workPrefix+".>", 0))
	d.Config.Discard = jetstream.DiscardNew // a full one refuses new wake-ups instead of dropping the oldest
	d.Config.Subjects = append(d.Config.Subjects, decidePrefix+".>")
	d.Version = 2 // version 1 had no wake-ups for decisions
	return d
}
