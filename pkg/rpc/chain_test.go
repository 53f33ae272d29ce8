package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// answer makes both fakes fail with what f returns.
func (n *node) answer(f func(ctx context.Context) error) {
	n.auth.issue = func(ctx context.Context, _ *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
		return &authv1.IssueTokenResponse{}, f(ctx)
	}
	n.deployer.readLog = func(_ *deployerv1.ReadLogRequest, s grpc.ServerStreamingServer[deployerv1.ReadLogResponse]) error {
		if err := f(s.Context()); err != nil {
			return err
		}
		return s.Send(&deployerv1.ReadLogResponse{})
	}
}

func TestServer_errorsLeaveTypedAndWithoutTheirCause(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		cause := errors.New("nats: inner trouble")
		for _, tc := range []struct {
			err    error
			reason apierr.Reason
		}{
			{apierr.New(apierr.ReasonNotConnected, "Bitbucket is not connected.", apierr.WithCause(cause)), apierr.ReasonNotConnected},
			{fmt.Errorf("issue: %w", apierr.New(apierr.ReasonEtagMismatch, "Changed meanwhile.", apierr.WithCause(cause))), apierr.ReasonEtagMismatch},
			{fmt.Errorf("get: %w: %w", cause, context.DeadlineExceeded), apierr.ReasonTimeout},
			{cause, apierr.ReasonInternal},
			{status.Error(codes.Unknown, cause.Error()), apierr.ReasonInternal},
		} {
			n.answer(func(context.Context) error { return tc.err })
			err := call(t.Context(), n.as("repo"), "acme-inc")
			var typed *apierr.Error
			if !errors.As(err, &typed) || typed.Reason() != tc.reason || strings.Contains(err.Error(), "inner trouble") {
				t.Errorf("%v left as %v", tc.err, err)
			}
			if !n.logs.Contains("inner trouble") {
				t.Errorf("%v: the cause is not in the log", tc.err)
			}
		}
	})
}

func TestServer_internalErrorsShowAnIDThatIsInTheLog(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		n.answer(func(context.Context) error { return errors.New("disk on fire") })
		e := apierr.From(call(t.Context(), n.as("repo"), "acme-inc"))
		id := e.Detail(apierr.DetailErrorID)
		if id == "" || !strings.Contains(e.Message(), id) {
			t.Fatalf("%v", e)
		}
		testkit.Eventually(t, 5*time.Second, func() error {
			for line := range strings.Lines(n.logs.Text()) {
				if strings.Contains(line, `"error_id":"`+id+`"`) && strings.Contains(line, "disk on fire") && strings.Contains(line, `"level":"ERROR"`) {
					return nil
				}
			}
			return errors.New("no such line")
		})
	})
}

func TestServer_internalErrorOfANeighbourKeepsItsID(t *testing.T) {
	n := newNode(t, open())
	n.answer(func(context.Context) error { return apierr.InternalWithID("of-neighbour", errors.New("x")) })
	if e := apierr.From(issue(t.Context(), n.as("repo"), "acme-inc")); e.Detail(apierr.DetailErrorID) != "of-neighbour" {
		t.Errorf("%v", e)
	}
}

func TestServer_panicsBecomeInternal(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		n.answer(func(context.Context) error { panic("kaboom") })
		err := call(t.Context(), n.as("repo"), "acme-inc")
		if !apierr.Has(err, apierr.ReasonInternal) || strings.Contains(err.Error(), "kaboom") {
			t.Errorf("%v", err)
		}
		testkit.Eventually(t, 5*time.Second, func() error {
			if !n.logs.Contains("kaboom") || !n.logs.Contains("chain_test.go") {
				return errors.New("the log has no panic or no stack")
			}
			return nil
		})
		n.answer(func(context.Context) error { return nil })
		if err := call(t.Context(), n.as("repo"), "acme-inc"); err != nil {
			t.Errorf("after the panic: %v", err)
		}
	})
}

func TestServer_deadlineGuard(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		var left time.Duration
		var has bool
		n.answer(func(ctx context.Context) error {
			d, ok := ctx.Deadline()
			left, has = time.Until(d), ok
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		before, _ := ctx.Deadline()
		if err := call(ctx, n.as("repo"), "acme-inc"); err != nil {
			t.Fatal(err)
		}
		if slack := time.Until(before) - left; !has || left > 5*time.Second-20*time.Millisecond || slack > time.Second {
			t.Errorf("%s left of 5 s", left)
		}
	})
}

func TestServer_handlerReportsItsOwnCalleesTimeout(t *testing.T) {
	n := newNode(t, open())
	n.answer(func(ctx context.Context) error {
		<-ctx.Done() // as a callee's call would
		return apierr.New(apierr.ReasonBitbucketUnavailable, "Bitbucket did not answer in time.", apierr.WithCause(ctx.Err()))
	})
	conn := n.as("repo")
	// The answer has 20 ms to arrive before the caller gives up by itself: on a busy machine not
	// every one does.
	testkit.Eventually(t, 10*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		if err := issue(ctx, conn, "acme-inc"); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
			return fmt.Errorf("the caller learned only %w", err)
		}
		return nil
	})
}

func TestServer_boundsUnaryCallsWithoutADeadlineAndLeavesStreams(t *testing.T) {
	n := newNode(t, open())
	s, err := identity.NewSigner(n.keys, "repo")
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.SignCaller("auth")
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("devpilot-caller-token", token))
	var left time.Duration
	var has bool
	n.answer(func(ctx context.Context) error {
		d, ok := ctx.Deadline()
		left, has = time.Until(d), ok
		return nil
	})
	if err := issue(ctx, n.raw(), "acme-inc"); err != nil || !has || left > time.Minute || left < 50*time.Second {
		t.Errorf("unary: %v, deadline %v in %s", err, has, left)
	}
	if err := read(ctx, n.raw(), "acme-inc"); err != nil || has {
		t.Errorf("stream: %v, deadline %v", err, has)
	}
}

func TestServer_requestIDs(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		var got string
		n.answer(func(ctx context.Context) error { got = rpc.RequestID(ctx); return nil })
		for sent, taken := range map[string]bool{"req-12345678": true, "": false, "short": false, "with space in it": false, "line\nbreak-in-it": false, strings.Repeat("x", 65): false} {
			ctx := t.Context()
			if sent != "" && !strings.Contains(sent, "\n") {
				ctx = rpc.WithRequestID(ctx, sent)
			}
			if err := call(ctx, n.as("repo"), "acme-inc"); err != nil {
				t.Fatal(err)
			}
			if taken != (got == sent) || !rpc.ValidRequestID(got) {
				t.Errorf("sent %q, got %q", sent, got)
			}
			testkit.Eventually(t, 5*time.Second, func() error {
				if !n.logs.Contains(`"request_id":"` + got + `"`) {
					return errors.New("the id is not in the log")
				}
				return nil
			})
		}
	})
}

func TestServer_accessLine(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		ctx := rpc.WithRequestID(member(t.Context(), t, n, "acme-inc", identity.RoleAdmin), "req-12345678")
		token := identity.UserTokenFromContext(ctx)
		if err := call(ctx, n.as("gateway"), "acme-inc"); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 5*time.Second, func() error {
			text := n.logs.Text()
			for _, part := range []string{`"msg":"rpc served"`, `"rpc_code":"OK"`, `"duration_ms":`, `"caller":"gateway"`, `"subject":"user-1"`, `"workspace":"acme-inc"`} {
				if !strings.Contains(text, part) {
					return fmt.Errorf("%s is missing in %s", part, text)
				}
			}
			if strings.Count(text, "rpc served") != 1 {
				return errors.New("not one line per request")
			}
			return nil
		})
		n.logs.MustNotContain(t, token)
	})
}

func TestTrace_travelsWithTheCallIntoTheLog(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		n := newNode(t, open())
		tp := sdktrace.NewTracerProvider()
		var got trace.TraceID
		n.answer(func(ctx context.Context) error { got = trace.SpanContextFromContext(ctx).TraceID(); return nil })
		ctx, span := tp.Tracer("test").Start(t.Context(), "top")
		if err := call(ctx, n.as("repo", func(c *rpc.ClientConfig) { c.TracerProvider = tp }), "acme-inc"); err != nil {
			t.Fatal(err)
		}
		want := span.SpanContext().TraceID()
		if got != want {
			t.Errorf("trace %s became %s", want, got)
		}
		testkit.Eventually(t, 5*time.Second, func() error {
			if !n.logs.Contains(`"trace_id":"` + want.String() + `"`) {
				return errors.New("the trace id is not in the log")
			}
			return nil
		})
	})
}

func TestMetrics_countByMethodAndCode(t *testing.T) {
	n := newNode(t, open())
	n.answer(func(context.Context) error { return apierr.New(apierr.ReasonNotConnected, "no") })
	_ = issue(t.Context(), n.as("repo"), "acme-inc")
	_ = read(t.Context(), n.as("repo"), "acme-inc")
	testkit.Eventually(t, 5*time.Second, func() error {
		for _, name := range []string{"devpilot_rpc_server_duration_seconds", "devpilot_rpc_client_duration_seconds"} {
			if c, err := testutil.GatherAndCount(n.registry, name); err != nil || c < 1 {
				return fmt.Errorf("%s: %d series, %w", name, c, err)
			}
		}
		families, err := n.registry.Gather()
		if err != nil {
			return err
		}
		if text := fmt.Sprint(families); strings.Count(text, "FailedPrecondition") < 3 {
			return fmt.Errorf("codes are not counted: %s", text)
		}
		return nil
	})
}

func TestStop_letsCallsEndThenCutsThem(t *testing.T) {
	for name, tc := range map[string]struct {
		wait     time.Duration
		graceful bool
	}{"ends in time": {time.Minute, true}, "cut": {50 * time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, open())
			entered, release := make(chan struct{}), make(chan struct{})
			n.answer(func(ctx context.Context) error {
				close(entered)
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			result := make(chan error, 1)
			conn := n.as("repo")
			go func() { result <- issue(t.Context(), conn, "acme-inc") }()
			<-entered
			if tc.graceful {
				go func() {
					// Only once the server refuses new connections is the stop under way.
					testkit.Eventually(t, 5*time.Second, func() error {
						c, err := n.listener.DialContext(t.Context())
						if err == nil {
							_ = c.Close()
							return errors.New("still listening")
						}
						return nil
					})
					close(release)
				}()
			}
			if got := rpc.Stop(n.server, tc.wait); got != tc.graceful {
				t.Errorf("graceful: %v", got)
			}
			err := <-result
			if tc.graceful && err != nil {
				t.Errorf("a call that could end failed: %v", err)
			}
			if !tc.graceful && !apierr.Has(err, apierr.ReasonServiceUnavailable) {
				t.Errorf("a call that was cut: %v", err)
			}
		})
	}
}

func TestNewServerAndDial_nameWhatIsMissing(t *testing.T) {
	keys := testkit.Keys(t)
	logger := testkit.Logger(t).Logger
	for want, cfg := range map[string]rpc.ServerConfig{
		"Service": {Keys: keys, Logger: logger}, "Keys": {Service: "auth", Logger: logger}, "Logger": {Service: "auth", Keys: keys},
	} {
		if _, err := rpc.NewServer(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, cfg := range map[string]rpc.ClientConfig{
		"TargetService":  {Service: "repo", Keys: keys, Target: "x:1"},
		"Keys":           {Service: "repo", TargetService: "auth", Target: "x:1"},
		"no address":     {Service: "repo", TargetService: "auth", Keys: keys},
		"no private key": {Service: "repo", TargetService: "auth", Target: "x:1", Keys: keys.For("auth")},
		"\"stranger\"":   {Service: "stranger", TargetService: "auth", Target: "x:1", Keys: keys},
	} {
		if _, err := rpc.Dial(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
