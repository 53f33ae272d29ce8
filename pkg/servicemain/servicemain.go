package servicemain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/transport"
)

// Version is the version of the build, set by the linker (-X). Every program answers --version with it.
var Version = "dev"

// Service is what every service is.
type Service interface {
	// Run blocks; it returns when ctx is done and the work is drained.
	Run(ctx context.Context) error
	// Ready is nil once the service can serve. It asks its own stores, never another service.
	Ready(ctx context.Context) error
}

// Registrar is a Service that serves gRPC.
type Registrar interface {
	Register(server grpc.ServiceRegistrar)
}

// HTTPService is a Service that serves HTTP.
type HTTPService interface {
	Handler() http.Handler
}

// Drainer is a Service with calls that would not end by themselves, such as followed logs: Drain
// asks them to end, before the servers are stopped.
type Drainer interface {
	Drain()
}

// Spec describes one service binary. C is the service's own kong struct of flags; embed the flag
// groups of this package in it.
type Spec[C any] struct {
	Name        string // short name: directory, binary, proto package, identity
	Description string // one sentence for --help
	// Listen, GRPCListen and OpsListen are the default addresses; where one of the first two is
	// empty the service serves no HTTP or no gRPC and has no such flag.
	Listen, GRPCListen, OpsListen string
	// WithoutNATS is for a service that keeps nothing in NATS: it starts and runs without it, and its Env
	// has no connection to it.
	WithoutNATS bool
	NATS        stream.Access // what it does there; see devpilot nats-permissions
	Policy      rpc.Policy
	Calls       []string // the services it calls: auth, repo, webhook, deployer
	// Examines are the checks of the stores that its process makes for all: each makes those of its own way there.
	Examines []string
	Build    func(ctx context.Context, env *Env, cfg C) (Service, error)
}

// Env is what a build function gets.
type Env struct {
	Service        string
	Version        string
	Logger         *slog.Logger
	NC             *nats.Conn  // nil where the Spec says WithoutNATS
	JS             *kv.Session // likewise
	Redis          redis.UniversalClient
	Keyset         *seal.Keyset
	Keys           *identity.Keys
	Registerer     prometheus.Registerer
	TracerProvider trace.TracerProvider
	Now            func() time.Time
	HTTPAddr       net.Addr               // where HTTP is served; nil where it is not
	HTTPS          bool                   // whether it is served with a certificate
	Certificate    *transport.Certificate // the service's own; nil where there is none
	// Examined is this process as the doctor asks it, for the service that asks the others; to be asked when it serves.
	Examined *checkup.Subject

	// Dial connects to a service named in Spec.Calls, while this one is built. Whoever set it closes the
	// connection, after the service.
	Dial func(target string) (*grpc.ClientConn, error)
}

// dial connects to the address that a flag named.
func (m *program) dial(target string) (*grpc.ClientConn, error) {
	address, ok := m.addresses[target]
	if !ok {
		return nil, fmt.Errorf("servicemain: %s is not among the services that %s calls", target, m.name)
	}
	conn, err := rpc.Dial(rpc.ClientConfig{
		Service: m.name, TargetService: target, Target: address, Keys: m.env.Keys, Logger: m.env.Logger,
		Registerer: m.env.Registerer, TracerProvider: m.env.TracerProvider, Certificate: m.certificate,
	})
	if err != nil {
		return nil, err
	}
	m.conns = append(m.conns, conn)
	return conn, nil
}

func (m *program) closeConns(context.Context) error {
	var errs []error
	for _, c := range m.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// base holds the flags that every single service has.
type base struct {
	LogFlags          `embed:""`
	OpsFlags          `embed:""`
	TLSFlags          `embed:""`
	PlaintextFlags    `embed:""`
	StoreFlags        `embed:""`
	InstallationFlags `embed:""`
	KeyFlags          `embed:""`
}

// Main runs a service and exits: 0 after a clean stop, 1 after an error, 2 for wrong settings.
func Main[C any](spec Spec[C]) {
	ctx, stop := lifecycle.Signals(context.Background())
	context.AfterFunc(ctx, stop) // a second signal kills
	code := Run(ctx, spec, OSProcess())
	stop()
	os.Exit(code)
}

// Run is Main without the exit and the signals: it runs until ctx is done and returns the exit
// code.
func Run[C any](ctx context.Context, spec Spec[C], p Process) int {
	m, err := configure(spec, p)
	if errors.Is(err, ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
		return 2
	}
	err = m.run(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 0 // stopped while it was starting: as asked
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
		return 1
	}
	return 0
}

// configure parses the settings into a program that can run.
func configure[C any](spec Spec[C], p Process) (*program, error) {
	var cfg C
	m := &program{
		name: spec.Name, policy: checkup.WithPolicy(spec.Policy), servesHTTP: spec.Listen != "", servesGRPC: spec.GRPCListen != "", withoutNATS: spec.WithoutNATS,
		access: spec.NATS, examines: spec.Examines, own: &cfg,
		env: &Env{Service: spec.Name, Version: Version, Now: time.Now}, addresses: map[string]string{},
	}
	m.env.Dial = m.dial
	m.env.Examined = m.examined()
	m.build = func(ctx context.Context) (Service, error) { return spec.Build(ctx, m.env, cfg) }
	s := Settings{
		Name: spec.Name, Description: spec.Description, Grammar: &cfg,
		Embed: []any{&m.base},
		Vars: map[string]string{
			"listen": spec.Listen, "grpc_listen": spec.GRPCListen, "ops_listen": spec.OpsListen, "drain_delay": "1s",
		},
	}
	if m.servesHTTP {
		s.Embed = append(s.Embed, &m.http)
	}
	if m.servesGRPC {
		s.Embed = append(s.Embed, &m.grpc)
	}
	var n called
	embeds, required, err := n.of(spec.Calls)
	if err != nil {
		return nil, err
	}
	s.Embed = append(s.Embed, embeds...)
	s.Required = append([]string{"DEVPILOT_REDIS_URL", "DEVPILOT_ENCRYPTION_KEYSET_FILE", "DEVPILOT_IDENTITY_KEY_FILE"}, required...)
	if !spec.WithoutNATS {
		s.Required = append([]string{"DEVPILOT_NATS_URL"}, s.Required...)
	}
	if _, err := Parse(p, s); err != nil {
		return nil, err
	}
	if m.installation, err = m.base.Name(); err != nil {
		return nil, err
	}
	for _, name := range spec.Calls {
		m.addresses[name] = n.address(name)
	}
	if err := m.checkPlaintext(); err != nil {
		return nil, err
	}
	m.env.Logger, err = logs.New(p.Stderr, m.base.Format(p.Stderr), m.base.LogLevel)
	if err != nil {
		return nil, err
	}
	m.env.Logger = m.env.Logger.With(slog.String(logs.KeyService, spec.Name))
	if p.adoptLogs {
		AdoptLogs(m.env.Logger)
	}
	return m, nil
}

// called holds the flags of the addresses of the services that are called.
type called struct {
	auth     AuthAddrFlag
	repo     RepoAddrFlag
	webhook  WebhookAddrFlag
	deployer DeployerAddrFlag
}

// of returns the flag structs and variables of the named services.
func (n *called) of(names []string) (embeds []any, required []string, err error) {
	for _, name := range names {
		switch name {
		case "auth":
			embeds = append(embeds, &n.auth)
		case "repo":
			embeds = append(embeds, &n.repo)
		case "webhook":
			embeds = append(embeds, &n.webhook)
		case "deployer":
			embeds = append(embeds, &n.deployer)
		default:
			return nil, nil, fmt.Errorf("servicemain: nobody calls a service %q", name)
		}
		required = append(required, addressVariable(name))
	}
	return embeds, required, nil
}

func (n *called) address(name string) string {
	return map[string]string{
		"auth": n.auth.AuthAddr, "repo": n.repo.RepoAddr, "webhook": n.webhook.WebhookAddr, "deployer": n.deployer.DeployerAddr,
	}[name]
}
