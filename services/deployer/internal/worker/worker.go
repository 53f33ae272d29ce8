// Package worker is the role worker: it serves one server's data directory. It takes wake-ups from
// the work queue, runs deployments, and serves the releases that are live.
//
// Depends on its own packages, internal/record, internal/engine and internal/client; never on
// internal/control.
package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/client"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/dryrun"
	"devpilot.io/bitbucket/services/deployer/internal/record/examine"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
	"devpilot.io/bitbucket/services/deployer/internal/worker/decide"
	"devpilot.io/bitbucket/services/deployer/internal/worker/host"
	"devpilot.io/bitbucket/services/deployer/internal/worker/pipeline"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Config is what a Worker needs.
type Config struct {
	Records *record.Records
	Clients client.Clients
	JS      jetstream.JetStream
	Mirrors *mirror.Mirrors
	SiteURL string // commits link there

	// Server is the server of Front's data directory, and Slots how many deployments run at a time.
	Server  string
	Slots   int
	Version string
	// Lease is how long a silent worker keeps its wake-up.
	Lease time.Duration
	// Timeout bounds one attempt of a deployment; pipeline's default when zero.
	Timeout time.Duration
	// DrainTimeout is how long running deployments may go on when the process stops; 20 s when zero.
	DrainTimeout time.Duration
	// DecisionTimeout bounds what git is asked about an app's pushes; policy.Timeout when zero.
	DecisionTimeout time.Duration
	Backoff         func(failures int32, reason string) time.Duration
	Doubt           time.Duration
	Hooks           Hooks
	// Front holds the data directory of Server.
	Front *Front

	Observe    pipeline.Observer
	Count      func(verdict string) // decide.Config's; may be nil
	Tracer     trace.Tracer         // may be nil
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Metrics    *stream.Metrics
	Now        func() time.Time
}

// Worker is the role worker of one process.
type Worker struct {
	cfg      Config
	id       string
	releases *release.Store
	hooks    sandbox.Runner // nil where hooks do not run
	pipeline *pipeline.Worker
	decider  *decide.Decider
}

const (
	defaultLease        = 30 * time.Second // the lease of a worker: after so long a silence another takes its deployments over
	defaultDrainTimeout = 20 * time.Second // for deployments to be handed back at shutdown
)

// New ties the data directory to the server's record.
func New(ctx context.Context, cfg Config) (*Worker, error) {
	r := cfg.Records
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = defaultDrainTimeout
	}
	releases := cfg.Front.releases
	w := &Worker{cfg: cfg, releases: releases}
	if err := w.join(ctx, releases.ID()); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	w.id = fmt.Sprintf("%s-%s", strings.ToLower(filepath.Base(host)), strings.ToLower(rand.Text()[:8])) // tells processes of one host apart
	runner, noHooks, err := w.hookRunner(ctx)
	if err != nil {
		return nil, err
	}
	w.hooks = runner
	git := decide.Git{Mirrors: source{cfg.Mirrors}, Names: r.Apps}
	w.decider = decide.New(decide.Config{Server: cfg.Server, Dispatcher: r.Dispatcher, Apps: r.Apps, Git: git, Head: git.Head, Logger: cfg.Logger, Now: cfg.Now, Timeout: cfg.DecisionTimeout, Count: cfg.Count, Tracer: cfg.Tracer,
		Tell: func(ctx context.Context, k lane.Key, l *storev1.Lane) error {
			return r.Outcomes.Deciding(ctx, k, l, false)
		},
	})
	w.pipeline = pipeline.New(pipeline.Config{
		Server: cfg.Server, Worker: w.id, SiteURL: cfg.SiteURL, Slots: cfg.Slots, Dispatcher: r.Dispatcher, Apps: r.Apps, Source: source{cfg.Mirrors},
		Releases: releases, Announce: cfg.Front.announce(), Logs: logOpener{r.Logs}, Records: r.Store.Deployments, Lanes: r.Store.Lanes, Alarm: r.Alarm, Observe: cfg.Observe, Tracer: cfg.Tracer,
		Logger: cfg.Logger, Now: cfg.Now, Backoff: cfg.Backoff, Policy: decide.Rules{Git: git, Now: cfg.Now}, Witness: cfg.Clients.Witness, Doubt: cfg.Doubt, Hooks: runner, NoHooks: noHooks,
		AppDisk: cfg.Hooks.AppDisk, DiskReserve: cfg.Hooks.DiskReserve, Timeout: cfg.Timeout,
	})
	return w, nil
}

// join ties the data directory to the server, waiting out trouble with the store.
func (w *Worker) join(ctx context.Context, directory string) error {
	for {
		err := w.afterRestore(ctx, directory)
		if err == nil {
			err = w.cfg.Records.Fleet.Join(ctx, w.cfg.Server, directory)
		}
		var mismatch *fleet.MismatchError
		if err == nil || errors.As(err, &mismatch) || !errors.Is(err, kv.ErrUnavailable) {
			return err
		}
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Busy is how many deployments run now.
func (w *Worker) Busy() int32 { return w.pipeline.Busy() }

// Run works until ctx is done. A part that ends early with an error ends them all.
func (w *Worker) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	part := func(name string, fn func(context.Context) error) {
		g.Go(func() error {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("worker: %s: %w", name, err)
			}
			return nil
		})
	}
	cfg := w.cfg
	if cfg.Front.serves() {
		part("sites", func(ctx context.Context) error {
			return cfg.Front.sites.Run(ctx, cfg.Records.Copies, cfg.Records.Fleet)
		})
	}
	part("deployments", w.deployments)
	part("spares", w.pipeline.Run)
	part("decisions", w.decider.Run)
	part("wake-ups for decisions", w.decisions)
	part("dry runs", func(ctx context.Context) error { return dryrun.Serve(ctx, cfg.JS, cfg.Server, w.decider.Check) })
	part("doctor", func(ctx context.Context) error {
		return examine.Serve(ctx, cfg.JS, cfg.Server, w.id, w.examined().Answer)
	})
	part("heartbeat", func(ctx context.Context) error {
		return cfg.Records.Fleet.Beat(ctx, fleet.Worker{
			Server: cfg.Server, ID: w.id, Host: w.id, Version: cfg.Version, Slots: cfg.Slots, Busy: w.Busy, HookRunner: describe(w.hooks), LiveAddress: cfg.Front.address(), LiveEncrypted: cfg.Front.cfg.Certificate != nil, Disk: w.room,
		})
	})
	return g.Wait()
}

// room is how much is free where it puts releases and mirrors, and how much of that stays free.
func (w *Worker) room() (free, reserve uint64, err error) {
	free, reserve, err = w.cfg.Mirrors.Room()
	if err != nil {
		return 0, 0, err
	}
	releases, err := w.releases.FreeBytes()
	return min(free, releases), reserve, err
}

// examined is this worker's machine as the doctor asks it.
func (w *Worker) examined() *checkup.Subject {
	return &checkup.Subject{Service: "deployer", Version: w.cfg.Version, Tasks: func(context.Context) []checkup.Task {
		return []checkup.Task{
			{Name: "git", Run: host.Git},
			{Name: "sandbox", Run: func(context.Context) checkup.Check { return CheckSandbox(w.cfg.Hooks) }},
			{Name: "disk", Run: func(context.Context) checkup.Check {
				free, reserve, err := w.room()
				return host.Disk(w.cfg.Front.cfg.DataDir, free, reserve, err)
			}},
		}
	}}
}

// deployments takes wake-ups of the server, one per free slot: what one worker held back another
// could run (DESIGN.md#jetstream).
func (w *Worker) deployments(ctx context.Context) error {
	cfg := w.cfg
	filter, err := streams.WorkFilter(cfg.Server)
	if err != nil {
		return err
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: cfg.JS, Stream: streams.WorkStream, Durable: "server-" + cfg.Server, Filters: []string{filter}, Slots: cfg.Slots, Position: stream.Queued,
		AckWait: cfg.Lease, MaxAttempts: 100, DrainTimeout: cfg.DrainTimeout, DoubleAck: true, Logger: cfg.Logger, Metrics: cfg.Metrics,
		Handle: func(ctx context.Context, m stream.Msg) error {
			_, workspace, name, err := streams.ParseWorkSubject(m.Subject)
			if err != nil {
				return stream.Park(err.Error())
			}
			return w.pipeline.Handle(ctx, lane.Key{Workspace: workspace, App: name}, pipeline.Wakeup{Sequence: m.Sequence, First: m.Attempt == 1})
		},
	})
}

// decisions takes wake-ups of lanes whose pushes wait to be decided about. They are acknowledged as soon
// as they are remembered: what is to be decided stands in the lanes.
func (w *Worker) decisions(ctx context.Context) error {
	cfg := w.cfg
	filter, err := streams.DecideFilter(cfg.Server)
	if err != nil {
		return err
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: cfg.JS, Stream: streams.WorkStream, Durable: "decide-" + cfg.Server, Filters: []string{filter}, Position: stream.Queued, Logger: cfg.Logger, Metrics: cfg.Metrics,
		HandleBatch: func(_ context.Context, ms []stream.Msg) error {
			for _, m := range ms {
				_, workspace, name, err := streams.ParseDecideSubject(m.Subject)
				if err == nil {
					w.decider.Wake(lane.Key{Workspace: workspace, App: name})
				} else if len(ms) == 1 {
					return stream.Park(err.Error())
				}
			}
			return nil
		},
	})
}

func describe(r sandbox.Runner) string {
	if r == nil {
		return ""
	}
	return r.Describe()
}

// source and logOpener give results the interfaces that pipeline declares.
type source struct{ *mirror.Mirrors }

func (s source) Fetch(ctx context.Context, src mirror.Source) (pipeline.Tree, error) {
	t, err := s.Mirrors.Fetch(ctx, src)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// File implements decide.Mirrors: it reads a single file of a commit.
func (s source) File(ctx context.Context, src mirror.Source, name string, most int64) ([]byte, error) {
	t, err := s.Mirrors.Fetch(ctx, src)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.ReadFile(ctx, name, most)
}

type logOpener struct{ sink *deploylog.Sink }

func (l logOpener) Open(ctx context.Context, k lane.Key, number int32, generation, epoch int64) (pipeline.Log, error) {
	w, err := l.sink.Open(ctx, deploylog.Name{Workspace: k.Workspace, App: k.App, Number: number, Generation: generation, Epoch: epoch})
	if err != nil {
		return nil, err
	}
	return w, nil
}
