package rest

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// Recorder takes what was done. It must return at once and may be called concurrently.
type Recorder interface {
	Record(ctx context.Context, e activity.Entry)
}

// Conn is the connection to a service as the API uses it: If-Match becomes the request's etag,
// the names in a body its update mask, and what changes something is recorded in the activity list, with its result.
type Conn struct {
	grpc.ClientConnInterface
	Recorder Recorder
	Now      func() time.Time
}

// Invoke implements grpc.ClientConnInterface.
func (c Conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	in, ok := args.(proto.Message)
	if !ok {
		return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	}
	applyMask(ctx, in)
	if a, ok := ctx.Value(dryRunKey{}).(dryRun); ok {
		return a.run(in, func() error { return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...) })
	}
	before := c.before(ctx, method, in)
	err := withRevisions(ctx, in, func() error {
		return signInRefused(method, c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...))
	})
	if f := in.ProtoReflect().Descriptor().Fields().ByName(validateField); f == nil || !in.ProtoReflect().Get(f).Bool() {
		c.record(ctx, method, in, reply, err, before)
	}
	return err
}

// signInRefused brings back the one UNAUTHENTICATED that is meant for the caller. The client takes
// any that a service answers for trouble between the services.
func signInRefused(method string, err error) error {
	if err == nil || method != gatewayv1.GatewayService_CreateSession_FullMethodName {
		return err
	}
	if cause := apierr.From(err).Cause(); cause != nil && apierr.Has(cause, apierr.ReasonUnauthenticated) {
		return apierr.New(apierr.ReasonUnauthenticated, apierr.From(cause).Message())
	}
	return err
}

// before is what is read of what a call is about to change; nil when there is none, or it cannot be read: then
// the call says why.
func (c Conn) before(ctx context.Context, method string, in proto.Message) proto.Message {
	action, ok := routes.ActionOf(method)
	if !ok || action.Before == nil {
		return nil
	}
	read, request, response := action.Before(in)
	if err := c.ClientConnInterface.Invoke(ctx, read, request, response); err != nil {
		return nil
	}
	return response
}

func (c Conn) record(ctx context.Context, method string, in proto.Message, reply any, err error, before proto.Message) {
	action, ok := routes.ActionOf(method)
	if !ok || action.Name == "" {
		return
	}
	actor, ok := identity.FromContext(ctx)
	if !ok {
		return
	}
	out, _ := reply.(proto.Message)
	workspace := actor.Workspace
	if action.Workspace != nil {
		if err != nil {
			return // there is no workspace to keep it in, or it is somebody else's
		}
		workspace = action.Workspace(in)
	}
	if route, ok := ctx.Value(routeKey{}).(routes.Route); ok && err != nil {
		err = inBody(err, route)
	}
	call := routes.Call{In: in, Out: out, Before: before}
	e := activity.Entry{
		Address: edge.ClientAddress(ctx), Workspace: workspace, Time: c.Now(), Actor: actor, Action: action.Name, Target: action.Target(call),
		Err: err, RequestID: rpc.RequestID(ctx),
	}
	if action.At != nil {
		e.Resource = action.At(call)
	}
	e.Message = action.Did + " " + e.Target + "."
	if action.Resource != nil && err == nil {
		if was := action.Resource(before); was != nil {
			e.Changes = changesOf(in, was, action.Resource(out))
		}
	}
	if len(e.Changes) > 0 {
		e.Message = cutTo(maxChange, sentence(e.Target, e.Changes))
	}
	for i := range e.Changes {
		e.Changes[i].Before, e.Changes[i].After = cutTo(maxChange, e.Changes[i].Before), cutTo(maxChange, e.Changes[i].After)
	}
	c.Recorder.Record(ctx, e)
}
