package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
)

func pair(k, v string) metadata.MD { return metadata.Pairs(k, v) }

// requestContext takes over the request id or makes one, and puts what every log line of the
// request shall carry into the context.
func requestContext(ctx context.Context, c *call, next func(context.Context) error) error {
	id := incoming(ctx, mdRequestID)
	if !ValidRequestID(id) {
		id = NewRequestID()
	}
	ctx = WithRequestID(ctx, id)
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyRPCMethod, c.method))
	return next(ctx)
}

// accessLog writes the one line of each request and observes its duration. Errors are logged here
// and nowhere below.
func accessLog(logger *slog.Logger, m *serverMetrics) layer {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if c.stream && isHealth(c.method) {
			return next(ctx) // watched for as long as a connection lives: no call that takes time
		}
		done := m.begin(ctx, c.method)
		err := next(ctx)
		code := status.Code(err)
		done(code, time.Since(c.start))

		attrs := []slog.Attr{slog.String(logs.KeyRPCCode, code.String()), logs.Since(c.start)}
		if c.caller != "" {
			attrs = append(attrs, slog.String(logs.KeyCaller, c.caller))
		}
		if c.subject != "" {
			attrs = append(attrs, slog.String(logs.KeySubject, c.subject))
		}
		if c.workspace != "" {
			attrs = append(attrs, slog.String(logs.KeyWorkspace, c.workspace))
		}
		attrs = append(attrs, errorAttrs(err)...)
		logger.LogAttrs(ctx, accessLevel(c, err), "rpc served", attrs...)
		return err
	}
}

func errorAttrs(err error) []slog.Attr {
	if err == nil {
		return nil
	}
	e := apierr.From(err)
	attrs := []slog.Attr{
		slog.String(logs.KeyReason, string(e.Reason())),
		slog.String(logs.KeyErrKind, e.Kind().String()),
		logs.Err(err),
	}
	if id := e.Detail(apierr.DetailErrorID); id != "" {
		attrs = append(attrs, slog.String(logs.KeyErrorID, id))
	}
	var p *panicError
	if errors.As(err, &p) {
		attrs = append(attrs, slog.String(logs.KeyStack, string(p.stack)))
	}
	return attrs
}

// accessLevel: our own faults are errors, what an operator may have to act on is a warning, all
// else is the callers' life. Probes are noise.
func accessLevel(c *call, err error) slog.Level {
	if err == nil {
		if isHealth(c.method) {
			return slog.LevelDebug
		}
		return logs.LevelRequest
	}
	switch apierr.KindOf(err) {
	case apierr.Internal:
		return slog.LevelError
	case apierr.Unavailable, apierr.DeadlineExceeded, apierr.ResourceExhausted, apierr.Unauthenticated, apierr.Unimplemented:
		return slog.LevelWarn
	case apierr.Invalid, apierr.PermissionDenied, apierr.NotFound, apierr.MethodNotAllowed, apierr.AlreadyExists,
		apierr.FailedPrecondition, apierr.Aborted, apierr.TooLarge, apierr.MediaType, apierr.Canceled:
		return logs.LevelRequest
	}
	return slog.LevelError
}

// whenOpen refuses calls until the service can answer them. It stands before mapErrors, whose answers are
// final: this one is not the service's, and another replica may have a better one.
func whenOpen(open func() bool) layer {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if open == nil || open() || isHealth(c.method) {
			return next(ctx)
		}
		return apierr.New(apierr.ReasonServiceUnavailable, "This service is starting. Try again shortly.")
	}
}

// mapErrors makes sure that nothing but typed errors leaves: an untyped one becomes INTERNAL with
// a neutral text and an id that the access line shows too. Answers of a handler are final: the
// client is told not to retry, which leaves retries to connections that failed, and to replicas whose
// clock may be right where that of this one is not.
func mapErrors(ctx context.Context, c *call, next func(context.Context) error) error {
	err := next(ctx)
	if err == nil {
		return nil
	}
	if clock := (*identity.ClockError)(nil); !errors.As(err, &clock) {
		c.setTrailer(mdRetryPushback, "-1")
	}
	e := apierr.From(err)
	switch {
	case e.Kind() == apierr.Internal && e.Detail(apierr.DetailErrorID) == "":
		return apierr.InternalWithID(NewRequestID()[:12], err)
	case e == err: //nolint:errorlint // identity is meant: the error as it is needs no new cause
		return e
	default:
		return e.With(apierr.WithCause(err)) // keeps what was wrapped around it, for the log
	}
}

// panicError is what a recovered panic becomes.
type panicError struct {
	value any
	stack []byte
}

// Error implements error.
func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// recovery turns a panic into an error; error mapping makes it INTERNAL.
func recovery(ctx context.Context, _ *call, next func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return next(ctx)
}

// What the deadline guard keeps back, and what a unary call gets that came without a deadline.
const (
	deadlineReserve = 20 * time.Millisecond
	maxUnary        = 60 * time.Second
)

// deadlineGuard shaves a little off the caller's deadline, so that we can still report that one of
// our own callees timed out. It refuses what has no time left at all.
func deadlineGuard(ctx context.Context, c *call, next func(context.Context) error) error {
	deadline, ok := ctx.Deadline()
	switch {
	case ok:
		deadline = deadline.Add(-deadlineReserve)
		if time.Until(deadline) <= 0 {
			return apierr.New(apierr.ReasonTimeout, "The request arrived with no time left to serve it. Try again.")
		}
	case c.stream:
		return next(ctx) // a log may be followed for as long as its reader wants
	default:
		deadline = c.start.Add(maxUnary)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return next(ctx)
}
