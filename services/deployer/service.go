package deployer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/transport"
	"devpilot.io/bitbucket/services/deployer/internal/control/server"
	"devpilot.io/bitbucket/services/deployer/internal/metrics"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/worker"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Deps are the parts around the service.
type Deps struct {
	Logger  *slog.Logger
	JS      jetstream.JetStream
	Keyset  *seal.Keyset // seals page tokens; the same in all replicas
	Auth    authv1.AuthServiceClient
	Repo    repov1.RepoServiceClient
	Webhook webhookv1.WebhookServiceClient

	// Redis shares the budget of calls to Bitbucket with the other services; nil: no limit of ours.
	Redis redis.UniversalClient
	// Live is where a worker serves releases; nil: not at all. Run closes it.
	Live net.Listener
	// Certificate is this service's, for what workers of different servers say to each other; nil: plain HTTP.
	Certificate *transport.Certificate

	Registerer prometheus.Registerer // nil: no metrics
	// TracerProvider records what belongs to a trace; nil: nothing does.
	TracerProvider trace.TracerProvider
	Now            func() time.Time // nil: time.Now
}

func (d Deps) missing() error {
	for name, missing := range map[string]bool{
		"Logger": d.Logger == nil, "JS": d.JS == nil, "Keyset": d.Keyset == nil, "Auth": d.Auth == nil, "Repo": d.Repo == nil, "Webhook": d.Webhook == nil,
	} {
		if missing {
			return fmt.Errorf("deployer: Deps.%s is missing", name)
		}
	}
	return nil
}

// Service is one deployer process.
type Service struct {
	cfg      Config
	deps     Deps
	site     bitbucket.Site
	gitSite  *url.URL
	liveBase *url.URL // nil where no releases are served
	metrics  *metrics.Metrics
	stream   *stream.Metrics
	copies   *kv.Metrics // nil: no metrics
	server   *server.Server
	roles    atomic.Pointer[roles]

	closing chan struct{}
	drain   sync.Once
}

// New builds the service. It does no I/O.
func New(cfg Config, d Deps) (*Service, error) {
	if err := d.missing(); err != nil {
		return nil, err
	}
	site, gitSite, err := cfg.check()
	if err != nil {
		return nil, err
	}
	liveBase, err := parseLive(cfg.LiveURL)
	if err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.TracerProvider == nil {
		d.TracerProvider = noop.NewTracerProvider()
	}
	s := &Service{cfg: cfg, deps: d, site: site, gitSite: gitSite, liveBase: liveBase, closing: make(chan struct{})}
	tokens, err := pagetoken.New(d.Keyset)
	if err != nil {
		return nil, fmt.Errorf("deployer: %w", err)
	}
	if s.metrics, err = metrics.New(d.Registerer, s.busy); err != nil {
		return nil, fmt.Errorf("deployer: %w", err)
	}
	if d.Registerer != nil {
		if s.stream, err = stream.NewMetrics(d.Registerer); err != nil {
			return nil, fmt.Errorf("deployer: %w", err)
		}
		if s.copies, err = kv.NewMetrics(d.Registerer); err != nil {
			return nil, fmt.Errorf("deployer: %w", err)
		}
	}
	uses := s.uses
	if !cfg.API {
		uses = nil
	}
	s.server = server.New(uses, tokens, s.closing, cfg.Heartbeat)
	return s, nil
}

// Register adds the RPCs to a server made with [Policy].
func (s *Service) Register(r grpc.ServiceRegistrar) {
	deployerv1.RegisterDeployerServiceServer(r, s.server)
}

// Drain ends followed logs, so that the servers can stop.
func (s *Service) Drain() { s.drain.Do(func() { close(s.closing) }) }

// Ready is nil once the stores are open and what is served from memory is known.
func (s *Service) Ready(ctx context.Context) error {
	r := s.roles.Load()
	if r == nil {
		return errors.New("deployer: stores are not open yet")
	}
	return r.ready(ctx)
}

func (s *Service) busy() float64 {
	if r := s.roles.Load(); r != nil && r.worker != nil {
		return float64(r.worker.Busy())
	}
	return 0
}

func (s *Service) uses() *server.Uses {
	if r := s.roles.Load(); r != nil && r.control != nil {
		return r.control.Uses()
	}
	return nil
}

// Run opens the stores and works until ctx is done; running deployments are given time to end.
// Trouble with a store is waited out. What nobody can mend by waiting ends it: a data directory
// that is another server's, a volume without working locks, a missing git program, lost records, a store
// without room.
func (s *Service) Run(ctx context.Context) error {
	if s.deps.Live != nil {
		defer func() { _ = s.deps.Live.Close() }()
	}
	if !s.cfg.Worker {
		return s.serve(ctx, nil)
	}
	front, err := worker.OpenFront(ctx, worker.FrontConfig{
		DataDir: s.cfg.DataDir, Server: s.cfg.Server, LiveBase: s.liveBase, Live: s.deps.Live, LiveAddress: s.cfg.LiveAddress, Certificate: s.deps.Certificate, Logger: s.deps.Logger, Registerer: s.deps.Registerer,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("deployer: %w", err)
	}
	defer func() { _ = front.Close() }()
	// Visitors are answered from the disk while the stores are not open yet.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := front.Run(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("deployer: sites: %w", err)
		}
		return nil
	})
	g.Go(func() error { return s.serve(ctx, front) })
	return g.Wait()
}

// serve opens the stores and runs the roles.
func (s *Service) serve(ctx context.Context, front *worker.Front) error {
	var st *store.Store
	if err := stream.UntilOpen(ctx, s.deps.Logger, func(ctx context.Context) (err error) {
		st, err = store.Open(ctx, s.deps.JS, s.deps.Logger)
		return err
	}); err != nil {
		if errors.Is(err, stream.ErrPermanent) {
			return err
		}
		return nil // a stop is no failure
	}
	r, err := s.open(ctx, st, front)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a stop is no failure
		}
		return fmt.Errorf("deployer: %w", err)
	}
	s.roles.Store(r)
	s.deps.Logger.InfoContext(ctx, "deployer runs", slog.Bool("api", s.cfg.API), slog.Bool("worker", s.cfg.Worker), slog.String(logs.KeyServer, s.cfg.Server))
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("deployer: %w", err)
	}
	return nil
}
