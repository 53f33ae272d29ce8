// Package connection knows how the workspaces' integrations stand, for auto-deploy: it stops when
// an account is disconnected and resumes when one is connected (DESIGN.md#disconnect).
//
// What it knows it asked auth; a change event only makes it ask again.
//
// Depends on pkg/stream, internal/record/lane and internal/control/schedule.
package connection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/control/schedule"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// Integrations is the auth service.
type Integrations interface {
	Integration(ctx context.Context, workspace string) (*authv1.Integration, error)
}

// Apps is what the check of a new connection's reach needs of apps.
type Apps interface {
	Apps(ctx context.Context, workspace string) ([]string, error)
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
	Reached(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error
	Named(ctx context.Context, workspace string, found *repov1.Repository) error
}

// Repositories is the repo service.
type Repositories interface {
	Repository(ctx context.Context, workspace, repository string) (*repov1.Repository, error)
}

// Poller has a repository polled at once.
type Poller interface {
	PollNow(ctx context.Context, workspace, repository string, resumed bool) error
}

// Due is where reminders are written.
type Due interface {
	Touch(ctx context.Context, kind reminder.Kind, workspace, name string, at time.Time) (uint64, error)
}

// Config is what Connections need.
type Config struct {
	Bucket       *kv.Bucket[storev1.Connection, *storev1.Connection]
	Copy         *kv.Copy[storev1.Connection, *storev1.Connection] // for Shown
	Integrations Integrations
	Repositories Repositories
	Due          Due
	Dispatcher   *lane.Dispatcher
	Logger       *slog.Logger
	Now          func() time.Time
}

// Connections is safe for concurrent use.
type Connections struct{ cfg Config }

// New makes Connections.
func New(cfg Config) *Connections { return &Connections{cfg: cfg} }

// Get returns what was last learned; where nothing was, it asks.
func (c *Connections) Get(ctx context.Context, workspace string) (*storev1.Connection, error) {
	rec, _, err := c.cfg.Bucket.Get(ctx, workspace)
	return c.known(ctx, workspace, rec, err)
}

// Shown is Get from memory. What another process learned of auth's events may come a moment later: the
// events are no sooner.
func (c *Connections) Shown(ctx context.Context, workspace string) (*storev1.Connection, error) {
	view, err := c.cfg.Copy.AtLeast(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("connection: read: %w", err)
	}
	rec, _, err := view.Get(ctx, workspace)
	return c.known(ctx, workspace, rec, err)
}

// known is what was read, or else what auth answers.
func (c *Connections) known(ctx context.Context, workspace string, rec *storev1.Connection, err error) (*storev1.Connection, error) {
	switch {
	case err == nil:
		return rec, nil
	case !errors.Is(err, kv.ErrNotFound) && !errors.Is(err, kv.ErrBadKey):
		return nil, fmt.Errorf("connection: read: %w", err)
	}
	if rec, err = c.Refresh(ctx, workspace); err != nil {
		// Not known is not disconnected: nothing is turned away for it.
		c.cfg.Logger.InfoContext(ctx, "integration not known yet", slog.String(logs.KeyWorkspace, workspace), logs.Err(err))
		return &storev1.Connection{}, nil
	}
	return rec, nil
}

// Refresh asks auth and remembers the answer.
func (c *Connections) Refresh(ctx context.Context, workspace string) (*storev1.Connection, error) {
	in, err := c.cfg.Integrations.Integration(ctx, workspace)
	if err != nil {
		return nil, err
	}
	fresh := c.read(in)
	what := "" // it makes possible
	rec, _, err := c.cfg.Bucket.UpdateAfter(ctx, workspace, func(cur *storev1.Connection) (*storev1.Connection, error) {
		next := proto.CloneOf(fresh)
		next.CheckedConnectionId = cur.GetCheckedConnectionId()
		if cur.GetPaused().GetReason() == next.GetPaused().GetReason() && cur.GetPaused() != nil {
			next.Paused.Time = cur.GetPaused().GetTime() // since then
		}
		narrowed := !slices.Equal(cur.GetNarrowedTo(), next.GetNarrowedTo())
		if next.NarrowedTime = cur.GetNarrowedTime(); narrowed {
			next.NarrowedTime = timestamppb.New(c.cfg.Now())
		}
		// What the workspace was widened to goes on, too, and what it was narrowed away from is marked.
		resumed := next.GetPaused() == nil && (cur.GetPaused() != nil || cur.GetConnectionId() != next.GetConnectionId() || narrowed)
		if resumed {
			next.CheckedConnectionId = ""
		}
		switch {
		case resumed && cur.GetConnectionId() == "" && cur.GetPaused() == nil:
			what = unknown
		case resumed:
			what = reachAll
		case next.GetPaused() == nil && cur.GetFailing() && !next.GetFailing():
			what = waiting
		default:
			what = ""
		}
		if proto.Equal(cur, next) {
			return nil, kv.ErrSkip
		}
		return next, nil
	}, func(ctx context.Context) error {
		if what == "" {
			return nil
		}
		// Later, for whoever follows it before the record is stored finds nothing to carry on, and drops it.
		_, err := c.cfg.Due.Touch(ctx, reminder.Reach, workspace, what, c.cfg.Now().Add(reachGrace))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connection: remember: %w", err)
	}
	if what != "" {
		if _, err := c.cfg.Due.Touch(ctx, reminder.Reach, workspace, what, c.cfg.Now()); err != nil {
			c.cfg.Logger.InfoContext(ctx, "what a connection makes possible waits", slog.String(logs.KeyWorkspace, workspace), logs.Err(err))
		}
	}
	return rec, nil
}

// reachGrace is how long a connection has for being remembered, before what it makes possible is carried on
// for a process that died after that.
const reachGrace = 10 * time.Second

// read says what an integration's state means for auto-deploy. Temporary trouble with refreshing
// stops nothing: the token at hand may last.
func (c *Connections) read(in *authv1.Integration) *storev1.Connection {
	rec := &storev1.Connection{
		ConnectionId: in.GetConnectionId(), AccountLabel: in.GetAccount().GetLabel(), Failing: in.GetState() == authv1.Integration_REFRESH_FAILING,
	}
	for _, w := range in.GetNarrowedTo() {
		rec.NarrowedTo = append(rec.NarrowedTo, w.GetId())
	}
	pause := func(reason apierr.Reason, message string) {
		rec.Paused = &storev1.Trouble{Reason: string(reason), Message: message, Time: timestamppb.New(c.cfg.Now())}
	}
	switch in.GetState() {
	case authv1.Integration_NOT_CONNECTED:
		rec.Disconnected = true
		pause(apierr.ReasonNotConnected, "Bitbucket is not connected: pushes do not deploy. Connect an account under Integrations; auto-deploy then goes on by itself.")
	case authv1.Integration_RECONNECT_REQUIRED:
		pause(apierr.ReasonReconnectRequired, "Bitbucket no longer accepts the connection: deployments wait. Connect again under Integrations; they then go on by themselves.")
	case authv1.Integration_CONNECTED, authv1.Integration_REFRESH_FAILING, authv1.Integration_STATE_UNSPECIFIED:
	}
	return rec
}

// Durable is the consumer that all replicas share.
const Durable = "deployer-integrations"

// Run follows auth's change events until ctx is done.
func (c *Connections) Run(ctx context.Context, js jetstream.JetStream, metrics *stream.Metrics) error {
	filter, err := stream.EventsOfService("auth", "integration")
	if err != nil {
		return fmt.Errorf("connection: %w", err)
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: js, Stream: stream.EventsStream, Durable: Durable, Filters: []string{filter}, Slots: 2,
		Handle: func(ctx context.Context, m stream.Msg) error {
			_, workspace, _, err := stream.ParseEventSubject(m.Subject)
			if err != nil {
				return stream.Park(err.Error())
			}
			_, err = c.Refresh(ctx, workspace)
			return err
		},
		MaxAttempts: -1, Logger: c.cfg.Logger, Metrics: metrics,
	})
}

// What a connection that is well again carries on, as the schedule's entries name it.
const (
	// reachAll is for a new connection, whose account may reach other repositories.
	reachAll = "all"
	// unknown is for one of which nothing was known before: nothing was turned away until now.
	unknown = "unknown"
	// waiting is for one whose tokens are refreshed again: its account is the same.
	waiting = "waiting"
)

// Resume returns the schedule's handler that carries on what a connection makes possible that is well
// again: waiting deployments are tried at once, every watched repository is reconciled, and, of a new
// connection, those that the account cannot reach are marked.
func (c *Connections) Resume(apps Apps, poller Poller) schedule.Handler {
	return func(ctx context.Context, workspace, what string, _ int) (time.Time, error) {
		rec, _, err := c.cfg.Bucket.Get(ctx, workspace)
		if errors.Is(err, kv.ErrNotFound) || err == nil && rec.GetPaused() != nil {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		repositories, err := c.release(ctx, workspace, apps)
		if err != nil {
			return time.Time{}, err
		}
		// Polls ask git and need nobody's leave. What a repository is called, and whether the account has it, is asked
		// of Bitbucket's API, which may have none to give for a while: no poll waits for that, nor another repository.
		for _, id := range repositories {
			if err := poller.PollNow(ctx, workspace, id, what == reachAll); err != nil {
				return time.Time{}, err
			}
		}
		if what == waiting {
			return time.Time{}, nil
		}
		var missed []error
		for _, id := range repositories {
			if err := c.reach(ctx, workspace, id, rec, apps); err != nil {
				missed = append(missed, err)
			}
		}
		if len(missed) > 0 {
			return time.Time{}, errors.Join(missed...)
		}
		_, _, err = c.cfg.Bucket.Update(ctx, workspace, func(cur *storev1.Connection) (*storev1.Connection, error) {
			if cur.GetConnectionId() != rec.GetConnectionId() {
				return nil, kv.ErrSkip
			}
			cur.CheckedConnectionId = rec.GetConnectionId()
			return cur, nil
		})
		return time.Time{}, err
	}
}

// release has what waits in the workspace tried at once. It returns the repositories of its apps.
func (c *Connections) release(ctx context.Context, workspace string, apps Apps) (repositories []string, err error) {
	ids, err := apps.Apps(ctx, workspace)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		k := lane.Key{Workspace: workspace, App: id}
		a, err := apps.App(ctx, k)
		if apierr.Has(err, apierr.ReasonAppNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(repositories, a.GetRepository()) {
			repositories = append(repositories, a.GetRepository())
		}
		l, err := c.cfg.Dispatcher.Change(ctx, k, lane.Release)
		if err != nil {
			return nil, err
		}
		if err := c.cfg.Dispatcher.Dispatch(ctx, k, l); err != nil {
			return nil, err
		}
	}
	return repositories, nil
}

// reach marks a repository that the connected account cannot reach.
func (c *Connections) reach(ctx context.Context, workspace, repository string, rec *storev1.Connection, apps Apps) error {
	r, err := c.cfg.Repositories.Repository(ctx, workspace, repository)
	switch {
	case err == nil:
		if err := apps.Named(ctx, workspace, r); err != nil {
			return err
		}
		return apps.Reached(ctx, workspace, repository, nil)
	case apierr.Has(err, apierr.ReasonWorkspaceExcluded):
		e := apierr.From(err)
		return apps.Reached(ctx, workspace, repository, &storev1.Trouble{Reason: string(e.Reason()), Message: e.Message(), Time: timestamppb.New(c.cfg.Now())})
	case apierr.Has(err, apierr.ReasonRepositoryNotFound), apierr.Has(err, apierr.ReasonAccessRestricted):
		e := apierr.From(err)
		return apps.Reached(ctx, workspace, repository, &storev1.Trouble{
			Reason: string(e.Reason()), Time: timestamppb.New(c.cfg.Now()),
			Message: fmt.Sprintf("The connected account %s cannot reach this app's repository: nothing can be deployed from it. Give the account access, or connect another one.", rec.GetAccountLabel()),
		})
	default:
		return err
	}
}
