package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// call is one RPC on its way through the layers.
type call struct {
	method string // full
	stream bool
	start  time.Time
	// setTrailer adds trailing metadata to the answer.
	setTrailer func(key, value string)
	// checks see every request message: at once where a unary call adds them, as each message is
	// received on a stream.
	checks  []func(ctx context.Context, msg any) error
	message any // of a unary call
	// caller and subject are noted by the identity layer for the access line.
	caller, subject, workspace string
}

// layer is one interceptor, of unary calls and streams alike.
type layer func(ctx context.Context, c *call, next func(context.Context) error) error

// check runs f on the request: now for a unary call, on each message of a stream.
func (c *call) check(ctx context.Context, f func(ctx context.Context, msg any) error) error {
	if !c.stream {
		return f(ctx, c.message)
	}
	c.checks = append(c.checks, f)
	return nil
}

func run(ctx context.Context, c *call, layers []layer, handler func(context.Context) error) error {
	if len(layers) == 0 {
		return handler(ctx)
	}
	return layers[0](ctx, c, func(ctx context.Context) error { return run(ctx, c, layers[1:], handler) })
}

// unaryChain makes the unary interceptor of the layers.
func unaryChain(layers []layer) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		c := &call{method: info.FullMethod, start: time.Now(), message: req}
		c.setTrailer = func(k, v string) { _ = grpc.SetTrailer(ctx, pair(k, v)) } // fails only after the answer
		var resp any
		err := run(ctx, c, layers, func(ctx context.Context) error {
			var err error
			resp, err = handler(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// streamChain makes the stream interceptor of the same layers.
func streamChain(layers []layer) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		c := &call{method: info.FullMethod, stream: true, start: time.Now()}
		c.setTrailer = func(k, v string) { ss.SetTrailer(pair(k, v)) }
		return run(ss.Context(), c, layers, func(ctx context.Context) error {
			return handler(srv, &serverStream{ServerStream: ss, ctx: ctx, call: c})
		})
	}
}

// serverStream gives the handler the context that the layers made, and the checks every message.
type serverStream struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // a stream hands its context out by a method
	call *call
}

// Context returns the layers' context.
func (s *serverStream) Context() context.Context { return s.ctx }

// RecvMsg receives and checks one message; a check's error ends the stream.
func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	for _, f := range s.call.checks {
		if err := f(s.ctx, m); err != nil {
			return err
		}
	}
	return nil
}
