// Package record is what both roles read and write: the store, the apps' records, lanes, logs, the
// list of servers, and what waits to be told to others.
//
// Depends on its own packages and on the clients' interfaces that these declare.
package record

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/record/wakeup"
)

// Config is what Records need.
type Config struct {
	Store        *store.Store
	JS           jetstream.JetStream
	Keyset       *seal.Keyset
	Repositories apps.Repositories
	Recorder     outcome.Recorder
	Secrets      *deploylog.Secrets
	LogLimits    deploylog.Limits
	Logger       *slog.Logger
	Metrics      *stream.Metrics
	CopyMetrics  *kv.Metrics // may be nil
	Learn        func(workspace, fullName, bitbucketWorkspace string)
	Ended        func(state string) // lane.Dispatcher's; may be nil
	Now          func() time.Time
}

// Records are safe for concurrent use.
type Records struct {
	Store      *store.Store
	Copies     *store.Copies // filled in the role api only
	Reminders  *reminder.Book
	Alarm      reminder.Lanes
	Apps       *apps.Records
	Dispatcher *lane.Dispatcher
	Fleet      *fleet.Registry
	Logs       *deploylog.Sink
	Outcomes   *outcome.Outbox
}

// New makes them.
func New(cfg Config) *Records {
	st := cfg.Store
	r := &Records{
		Store: st, Copies: store.NewCopies(st, cfg.CopyMetrics), Reminders: &reminder.Book{Bucket: st.Due}, Fleet: fleet.New(st.Servers, st.Workers, cfg.Logger, cfg.Now),
		Logs:     &deploylog.Sink{JS: cfg.JS, Logs: st.Logs, Secrets: cfg.Secrets, Limits: cfg.LogLimits, Logger: cfg.Logger, Now: cfg.Now},
		Outcomes: &outcome.Outbox{JS: cfg.JS, Recorder: cfg.Recorder, Deployments: st.Deployments, Position: st.Position("outcomes"), Logger: cfg.Logger, Metrics: cfg.Metrics, Now: cfg.Now},
	}
	r.Alarm = reminder.Lanes{Book: r.Reminders, Now: cfg.Now}
	r.Apps = &apps.Records{Store: st, Repositories: cfg.Repositories, Reminders: r.Reminders, Keyset: cfg.Keyset, Now: cfg.Now, Learn: cfg.Learn}
	r.Dispatcher = &lane.Dispatcher{
		Lanes: st.Lanes, Records: st.Deployments, Alarm: r.Alarm, Waker: wakeup.Publisher{Stream: stream.Publisher{JS: cfg.JS}}, Seen: st.Seen, Teller: r.Outcomes, Ended: cfg.Ended,
	}
	return r
}

// Ready is nil once the stores are whole and the list of servers is known.
func (r *Records) Ready(ctx context.Context) error {
	return errors.Join(r.Store.Intact(), r.Fleet.Ready(ctx))
}
