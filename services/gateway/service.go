package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/deletion"
	"devpilot.io/bitbucket/services/gateway/internal/events"
	"devpilot.io/bitbucket/services/gateway/internal/live"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
	"devpilot.io/bitbucket/services/gateway/internal/server"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/signin"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// Policy says who may call the gateway's own RPCs: the gateway itself, for users of the role that
// DESIGN.md#the-api names.
var Policy = server.Policy(routes.Roles(), routes.Scopes(), routes.OfApps())

// Roles is the RPC × role table of the whole public API: the least role, in the workspace that the
// request names, by full method. The services' own policies decide; this is what is published.
func Roles() map[string]identity.Role { return routes.Roles() }

// Scopes lists the RPCs that take another scope of programs than follows from the role.
func Scopes() map[string]identity.Scope { return routes.Scopes() }

// OfApps lists the RPCs that answer a program that is limited to some apps with what these have.
func OfApps() map[string]bool { return routes.OfApps() }

// NeedsBrowser tells what nobody but a person in a browser can do.
func NeedsBrowser(rpc string) bool { return routes.NeedsBrowser(rpc) }

// Access is what one call of the API takes of who calls.
type Access = routes.Row

// Authenticated is the Access of what takes credentials at all.
const Authenticated = routes.Authenticated

// AccessTable is the table of who may call what, sorted by name: what REFERENCE.md publishes.
func AccessTable() []Access { return routes.Rows() }

// Deps are the parts around the service.
type Deps struct {
	Logger *slog.Logger
	JS     jetstream.JetStream
	Keyset *seal.Keyset          // seals session cookies and page tokens; the same in all replicas
	Keys   *identity.Keys        // holds the gateway's private key
	Redis  redis.UniversalClient // counts requests of programs; only where they are bounded

	// The connections to the other services, made by rpc.Dial as "gateway".
	Auth, Repo, Webhook, Deployer grpc.ClientConnInterface

	Examined *checkup.Subject // this process as the doctor asks it; nil: it is asked nothing

	Console fs.FS // the built console; nil: the one that was built into the program, if any

	Registerer     prometheus.Registerer // nil: no metrics
	TracerProvider trace.TracerProvider  // nil: no traces
	Now            func() time.Time      // nil: time.Now
}

func (d Deps) missing() error {
	for name, absent := range map[string]bool{
		"Logger": d.Logger == nil, "JS": d.JS == nil, "Keyset": d.Keyset == nil, "Keys": d.Keys == nil,
		"Auth": d.Auth == nil, "Repo": d.Repo == nil, "Webhook": d.Webhook == nil, "Deployer": d.Deployer == nil,
	} {
		if absent {
			return fmt.Errorf("gateway: Deps.%s is missing", name)
		}
	}
	return nil
}

// Service is one replica of the gateway. Replicas are equal and share nothing but JetStream.
type Service struct {
	cfg    Config
	js     jetstream.JetStream
	logger *slog.Logger

	tenants  *tenant.Store
	short    *session.ShortLived
	activity *activity.Store
	recorder *activity.Recorder
	notes    *notify.Store
	sender   *notify.Sender
	watcher  *notify.Watcher
	deleter  *deletion.Deleter
	hub      *events.Hub
	streams  *live.Streams
	touched  chan string // API keys whose use is to be noted
	seen     chan session.Session
	sessions *session.Manager
	people   signin.Settings

	// Our own RPCs, served in memory.
	listener *bufconn.Listener
	grpc     *grpc.Server
	own      *grpc.ClientConn
	server   *server.Server

	handler http.Handler
	ready   atomic.Bool
}

// New builds the service. It does no I/O.
func New(cfg Config, d Deps) (*Service, error) {
	if err := d.missing(); err != nil {
		return nil, err
	}
	web, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if cfg.ProgramRequestsPerMinute > 0 && d.Redis == nil {
		return nil, errors.New("gateway: Deps.Redis is missing, which counts requests of programs")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	lost := prometheus.NewCounter(prometheus.CounterOpts{Name: "devpilot_activity_lost_total", Help: "Activity records that could not be stored."})
	if d.Registerer != nil {
		if err := d.Registerer.Register(lost); err != nil {
			return nil, fmt.Errorf("gateway: register metrics: %w", err)
		}
	}
	var copies *kv.Metrics
	if d.Registerer != nil {
		if copies, err = kv.NewMetrics(d.Registerer); err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
	}
	s := &Service{
		cfg: cfg, js: d.JS, logger: d.Logger,
		short:    session.NewShortLived(d.JS, d.Keyset, copies, d.Now),
		activity: activity.NewStore(d.JS, cfg.ActivityRetention),
		recorder: activity.NewRecorder(d.Logger, lost),
		hub:      events.NewHub(d.JS, d.Logger),
		streams:  live.NewStreams(cfg.Heartbeat),
		touched:  make(chan string, 256),
		seen:     make(chan session.Session, 256),
		listener: bufconn.Listen(1 << 20),
	}
	teams := tenant.Options{Logger: d.Logger, Metrics: copies, Now: d.Now, Changed: s.streams.Recheck}
	if cfg.LocalOwnerOff {
		teams.Absent = caller.LocalSubject
	}
	s.tenants = tenant.New(d.JS, teams)
	s.people = web.people
	if err := s.assemble(web, d); err != nil {
		return nil, err
	}
	return s, nil
}

// Handler serves everything but POST /webhooks/bitbucket/…, which is the webhook service's.
func (s *Service) Handler() http.Handler { return s.handler }

// SignInCodeLife is how long a code of NewSignInCode works.
const SignInCodeLife = session.CodeLife

// NewSignInCode makes a one-time code that signs the local owner in: for a first start. The service
// must run. The code works once, for SignInCodeLife.
func (s *Service) NewSignInCode(ctx context.Context) (code string, err error) {
	if !s.ready.Load() {
		return "", errors.New("gateway: not running yet")
	}
	code, _, err = s.server.NewSignInCode(ctx)
	return code, err
}

// SignInURL is the page to open with a code from NewSignInCode: the code is in its fragment.
func (s *Service) SignInURL(code string) string { return server.SignInURL(s.cfg.PublicURL, code) }

// Drain ends the streams, and lets no more begin: a followed log would keep the HTTP server from
// stopping.
func (s *Service) Drain() { s.streams.Drain() }

// Ready is nil once requests can be served: the buckets are open and the stream of changes is followed.
// Records that were found lost are its error too. Whether the store takes writes, its connection knows.
func (s *Service) Ready(context.Context) error {
	if !s.ready.Load() {
		return errors.New("gateway: the buckets are not open yet")
	}
	if err := s.hub.Ready(); err != nil {
		return err
	}
	return s.tenants.Intact()
}

// Run opens the buckets, makes the default workspace, and works until ctx is done:
//
//  1. our own RPCs, the stream of changes, activity records, uses of keys;
//  2. ctx done: streams end, what was recorded is stored, our own RPCs end.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := stream.UntilOpen(ctx, s.logger, s.open); err != nil {
		return errors.Join(err, s.own.Close())
	}
	var wg sync.WaitGroup
	failed := make(chan error, 8)
	background := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("gateway: %s: %w", what, err)
			}
		})
	}
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.listener) }()
	background("watch who may do what", s.tenants.Watch)
	background("watch sessions that end", s.short.Watch)
	background("follow change events", s.hub.Run)
	background("note uses of keys and sessions", s.noteUses)
	background("notify", func(ctx context.Context) error { return s.notes.Run(ctx, s.notify) })
	background("record activity", func(ctx context.Context) error { s.recorder.Run(ctx, s.activity); return nil })
	background("delete workspaces", s.deleter.Run)
	background("publish changes of workspaces", s.relay)
	s.ready.Store(true)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.streams.Drain()
	cancel()
	wg.Wait()
	s.ready.Store(false)
	rpc.Stop(s.grpc, 5*time.Second)
	return errors.Join(err, <-served, s.own.Close())
}

func (s *Service) open(ctx context.Context) error {
	if err := errors.Join(s.tenants.Open(ctx), s.short.Open(ctx), s.activity.Open(ctx), s.notes.Open(ctx)); err != nil {
		return err
	}
	local := tenant.Subject{ID: caller.LocalSubject, Label: caller.LocalLabel}
	if err := s.tenants.Ensure(ctx, caller.DefaultWorkspace, "Default", local); err != nil {
		return err
	}
	for _, id := range s.people.Workspaces() { // rules give roles in workspaces that are there
		if err := s.tenants.Ensure(ctx, id, "", local); err != nil {
			return err
		}
	}
	return nil
}

// notify watches and sends while anybody wants to hear of anything.
func (s *Service) notify(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.watcher.Run(ctx) })
	group.Go(func() error { return s.sender.Run(ctx) })
	return group.Wait()
}

// keyUsed notes a use later; it never blocks a request.
func (s *Service) keyUsed(id string) {
	select {
	case s.touched <- id:
	default: // the next request of the key says it again
	}
}

// sessionUsed notes a use later; it never blocks a request.
func (s *Service) sessionUsed(used session.Session) {
	if !used.Listed {
		return
	}
	select {
	case s.seen <- used:
	default: // the next new cookie says it again
	}
}

func (s *Service) noteUses(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case used := <-s.seen:
			if err := s.sessions.Used(ctx, used.Subject, used.ID); err != nil && ctx.Err() == nil {
				s.logger.WarnContext(ctx, "use of a session not noted", logs.Err(err))
			}
		case id := <-s.touched:
			if err := s.tenants.TouchKey(ctx, id); err != nil && ctx.Err() == nil {
				s.logger.WarnContext(ctx, "use of an API key not noted", logs.Err(err))
			}
		}
	}
}

// relay tells live pages of workspaces and teams that changed.
func (s *Service) relay(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for bucket, kind := range map[string]string{tenant.WorkspacesBucket: "workspace", tenant.TeamsBucket: "members"} {
		group.Go(func() error {
			return kv.RelayChanges(ctx, s.js, kv.RelayConfig{
				Bucket: bucket, Service: identity.Gateway, Logger: s.logger,
				Describe: func(key string, _ bool) (workspace, of, id string, ok bool) { return key, kind, key, true },
			})
		})
	}
	return group.Wait()
}
