package repo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/repo/internal/account"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
	"devpilot.io/bitbucket/services/repo/internal/rediscache"
	"devpilot.io/bitbucket/services/repo/internal/server"
)

// Deps are the parts around the service.
type Deps struct {
	Logger *slog.Logger
	Redis  redis.UniversalClient // may be down at any time
	Keyset *seal.Keyset          // seals page tokens; the same in all replicas
	Auth   authv1.AuthServiceClient

	Registerer     prometheus.Registerer // nil: no metrics
	TracerProvider trace.TracerProvider  // nil: no traces
	Now            func() time.Time      // nil: time.Now
	HTTPClient     *http.Client          // to Bitbucket; nil: one of our own
}

func (d Deps) missing() error {
	switch {
	case d.Logger == nil:
		return errors.New("repo: Deps.Logger is missing")
	case d.Redis == nil:
		return errors.New("repo: Deps.Redis is missing")
	case d.Keyset == nil:
		return errors.New("repo: Deps.Keyset is missing")
	case d.Auth == nil:
		return errors.New("repo: Deps.Auth is missing")
	default:
		return nil
	}
}

// Service is one replica of repo. Replicas are equal and share nothing but Redis.
type Service struct {
	catalog *catalog.Catalog
	server  *server.Server
}

// New builds the service. It does no I/O.
func New(cfg Config, d Deps) (*Service, error) {
	if err := d.missing(); err != nil {
		return nil, err
	}
	site, err := cfg.site()
	if err != nil {
		return nil, err
	}
	tokens, err := pagetoken.New(d.Keyset)
	if err != nil {
		return nil, fmt.Errorf("repo: %w", err)
	}
	cache, err := redisx.NewCache(d.Redis)
	if err != nil {
		return nil, fmt.Errorf("repo: %w", err)
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	client := bitbucket.NewClient(site, bitbucket.ClientOptions{
		HTTPClient: d.HTTPClient, Logger: d.Logger, Registerer: d.Registerer, TracerProvider: d.TracerProvider, Now: d.Now,
		Budget: redisx.NewBudget(redisx.BudgetConfig{Client: d.Redis, Consumer: cfg.ClientID, LocalShare: localShare, Service: "repo", Registerer: d.Registerer, Logger: d.Logger}),
	})
	c := catalog.New(catalog.Config{
		Accounts: account.NewSource(d.Auth, client), Store: rediscache.New(cache, d.Redis), Site: site,
		Parallel: cfg.Parallel, Logger: d.Logger, Registerer: d.Registerer, Now: d.Now,
	})
	return &Service{catalog: c, server: server.New(c, tokens, site)}, nil
}

// Register adds the RPCs to a server made with [Policy].
func (s *Service) Register(r grpc.ServiceRegistrar) { repov1.RegisterRepoServiceServer(r, s.server) }

// Run serves until ctx is done, then waits for listings that run in the background.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.catalog.Close()
	return nil
}

// Ready is always nil: without Redis the service is slower, not unable, and other services are not
// asked.
func (s *Service) Ready(context.Context) error { return nil }
