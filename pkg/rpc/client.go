package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/transport"
)

// DefaultTimeout is the deadline of a unary call whose context has none.
const DefaultTimeout = 10 * time.Second

// ClientConfig is what Dial needs.
type ClientConfig struct {
	Service       string // own name: signs the caller tokens, a label of metrics
	TargetService string // the name of the called service: the audience of the caller tokens
	// Target is host:port, several of them joined by commas, or a gRPC target (see Hosts). It may be
	// empty where Dialer is set.
	Target string
	Keys   *identity.Keys // holds the private key of Service
	Logger *slog.Logger   // gets a line per call at debug level; nil: none

	Registerer     prometheus.Registerer // nil: metrics are not exported
	TracerProvider trace.TracerProvider  // nil: no traces
	// Dialer replaces the network: bufconn, for services in one process.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Certificate has the connection encrypted, shows who calls, and has the other side show that it is TargetService. nil:
	// nothing is encrypted.
	Certificate *transport.Certificate
	// Timeout is the default deadline of unary calls; 0 means DefaultTimeout.
	Timeout time.Duration
	// Options are appended; for tests and tuning.
	Options []grpc.DialOption
}

// Propagator is how trace context travels in metadata and headers: W3C.
func Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Dial makes a connection to another service; it connects in the background and again when the
// connection is lost. Calls made on it fail with *apierr.Error only.
func Dial(cfg ClientConfig) (*grpc.ClientConn, error) {
	switch {
	case cfg.Service == "" || cfg.TargetService == "":
		return nil, errors.New("rpc: ClientConfig.Service or TargetService is missing")
	case cfg.Keys == nil:
		return nil, errors.New("rpc: ClientConfig.Keys is missing")
	case cfg.Target == "" && cfg.Dialer == nil:
		return nil, fmt.Errorf("rpc: no address of service %s", cfg.TargetService)
	}
	if cfg.Dialer == nil {
		if _, err := Hosts(cfg.Target); err != nil {
			return nil, err
		}
	}
	signer, err := identity.NewSigner(cfg.Keys, cfg.Service)
	if err != nil {
		return nil, err
	}
	metrics, err := newClientMetrics(cfg.Registerer, cfg.Service)
	if err != nil {
		return nil, err
	}
	policy := balancerName
	if cfg.Dialer != nil {
		policy = roundrobin.Name // it is in this process, and freezes with it
	}
	sc, err := serviceConfig(policy)
	if err != nil {
		return nil, err
	}
	c := &client{
		signer: signer, target: cfg.TargetService, timeout: cfg.Timeout, metrics: metrics, logger: logs.Discard(),
		replicas: cfg.Dialer == nil, idempotent: map[string]bool{},
	}
	for m := range idempotentMethods() {
		c.idempotent[fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())] = true
	}
	if cfg.Logger != nil {
		c.logger = slog.New(logs.Handler(cfg.Logger.Handler()))
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	security := insecure.NewCredentials()
	if cfg.Certificate != nil {
		security = cfg.Certificate.Client(cfg.TargetService)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelOptions(cfg.TracerProvider)...)),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		grpc.WithDefaultServiceConfig(sc),
		grpc.WithDisableServiceConfig(), // a DNS record does not decide about our retries
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 12 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	target := cfg.Target
	switch {
	case cfg.Dialer != nil:
		opts = append(opts, grpc.WithContextDialer(cfg.Dialer))
		target = "passthrough:///" + cfg.TargetService
	case strings.Contains(target, ","):
		r := manual.NewBuilderWithScheme("devpilot-list")
		r.InitialState(resolver.State{Addresses: addresses(target)})
		opts = append(opts, grpc.WithResolvers(r))
		target = r.Scheme() + ":///" + cfg.TargetService
	}
	conn, err := grpc.NewClient(target, append(opts, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("rpc: dial %s at %q: %w", cfg.TargetService, cfg.Target, err)
	}
	return conn, nil
}

func addresses(list string) (out []resolver.Address) {
	for a := range strings.SplitSeq(list, ",") {
		if a = strings.TrimSpace(a); a != "" {
			out = append(out, resolver.Address{Addr: a})
		}
	}
	return out
}

type client struct {
	signer  *identity.Signer
	target  string
	timeout time.Duration
	metrics *clientMetrics
	logger  *slog.Logger
	// replicas is whether there may be several, each in a process of its own.
	replicas   bool
	idempotent map[string]bool // by full method
}

// observe counts a call. The error is logged by whoever handles it.
func (c *client) observe(ctx context.Context, method string, err error, took time.Duration) {
	code := status.Code(err)
	c.metrics.observe(ctx, method, code, took)
	c.logger.LogAttrs(ctx, slog.LevelDebug, "rpc called",
		slog.String(logs.KeyRPCMethod, method), slog.String(logs.KeyRPCCode, code.String()), logs.Duration(took))
}

// outgoing puts our metadata on a call. What came in under the same names is overwritten: behind
// grpc-gateway it can be an HTTP client's invention.
func (c *client) outgoing(ctx context.Context) (context.Context, error) {
	caller, err := c.signer.SignCaller(c.target)
	if err != nil {
		return nil, err
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(mdCaller, caller)
	md.Delete(mdUser)
	if user := identity.UserTokenFromContext(ctx); user != "" {
		md.Set(mdUser, user)
	}
	id := RequestID(ctx)
	if id == "" {
		id = NewRequestID()
	}
	md.Set(mdRequestID, id)
	return metadata.NewOutgoingContext(ctx, md), nil
}

func (c *client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	out, err := c.outgoing(ctx)
	if err == nil {
		err = c.invoke(out, method, func(ctx context.Context) error { return invoker(ctx, method, req, reply, cc, opts...) })
	}
	c.observe(ctx, method, err, time.Since(start))
	return c.mapError(ctx, err)
}

func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	start := time.Now()
	out, err := c.outgoing(ctx)
	if err != nil {
		return nil, c.mapError(ctx, err)
	}
	s, err := streamer(out, desc, cc, method, opts...)
	c.observe(ctx, method, err, time.Since(start)) // of a stream: the time to open it
	if err != nil {
		return nil, c.mapError(ctx, err)
	}
	return &clientStream{ClientStream: s, client: c}, nil
}

// clientStream maps the errors of a stream; io.EOF is the normal end and stays.
type clientStream struct {
	grpc.ClientStream
	client *client
}

// SendMsg maps the error of the stream's.
func (s *clientStream) SendMsg(m any) error { return s.mapError(s.ClientStream.SendMsg(m)) }

// RecvMsg maps the error of the stream's.
func (s *clientStream) RecvMsg(m any) error { return s.mapError(s.ClientStream.RecvMsg(m)) }

func (s *clientStream) mapError(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return s.client.mapError(s.Context(), err)
}

// mapError types what a call returned. Two answers mean something else to our own caller than to
// us: a service that does not accept our tokens is our fault and not the user's missing sign-in,
// and one that cancels while we still wait is on its way down.
func (c *client) mapError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	e := apierr.From(err)
	switch {
	case e.Reason() == apierr.ReasonUnauthenticated:
		return apierr.New(apierr.ReasonInternal, apierr.Neutral,
			apierr.WithCause(fmt.Errorf("service %s refused our identity: %w", c.target, err)))
	case e.Kind() == apierr.Canceled && ctx.Err() == nil, e.Reason() == apierr.ReasonServiceUnavailable && e.Cause() != nil:
		return apierr.New(apierr.ReasonServiceUnavailable, fmt.Sprintf("Devpilot's service %q does not answer at the moment. Try again shortly.", c.target),
			apierr.WithCause(err))
	}
	return e
}

// serviceConfig balances over all replicas that say they serve, and retries UNAVAILABLE, twice and within a
// budget, on exactly the methods that are idempotent. Answers that a handler gave are never retried (see
// mapErrors).
func serviceConfig(policy string) (string, error) {
	type name struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	var names []name
	for m := range idempotentMethods() {
		names = append(names, name{string(m.Parent().FullName()), string(m.Name())})
	}
	cfg := map[string]any{
		"loadBalancingConfig": []any{map[string]any{policy: map[string]any{}}},
		"healthCheckConfig":   map[string]any{"serviceName": ""},
		"retryThrottling":     map[string]any{"maxTokens": 20, "tokenRatio": 0.1},
	}
	if len(names) > 0 {
		cfg["methodConfig"] = []any{map[string]any{
			"name": names,
			"retryPolicy": map[string]any{
				"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2.0,
				"retryableStatusCodes": []string{"UNAVAILABLE"},
			},
		}}
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return "", fmt.Errorf("rpc: service config: %w", err)
	}
	return string(raw), nil
}

// idempotentMethods yields the methods that say idempotency_level in their proto.
func idempotentMethods() iter.Seq[protoreflect.MethodDescriptor] {
	return func(yield func(protoreflect.MethodDescriptor) bool) {
		protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
			if !strings.HasPrefix(string(f.Package()), "devpilot.") {
				return true
			}
			for i := range f.Services().Len() {
				s := f.Services().Get(i)
				for j := range s.Methods().Len() {
					if m := s.Methods().Get(j); idempotent(m) && !yield(m) {
						return false
					}
				}
			}
			return true
		})
	}
}

func idempotent(m protoreflect.MethodDescriptor) bool {
	o, ok := m.Options().(*descriptorpb.MethodOptions)
	if !ok {
		return false
	}
	switch o.GetIdempotencyLevel() {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS, descriptorpb.MethodOptions_IDEMPOTENT:
		return true
	case descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN:
		return false
	}
	return false
}
