package logs

import (
	"context"
	"log/slog"
)

// The messages of the lines that each request has one of.
const (
	MsgRPCServed  = "rpc served"
	MsgHTTPServed = "http served"
)

// quietRequests takes request lines from INFO to DEBUG: on a terminal hundreds of them would push
// what a person looks for, such as the link to sign in with, out of sight. Requests that failed stay.
type quietRequests struct{ slog.Handler }

func (h quietRequests) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelInfo && (r.Message == MsgRPCServed || r.Message == MsgHTTPServed) {
		if !h.Enabled(ctx, slog.LevelDebug) {
			return nil
		}
		r.Level = slog.LevelDebug
	}
	return h.Handler.Handle(ctx, r)
}

func (h quietRequests) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietRequests{h.Handler.WithAttrs(attrs)}
}

func (h quietRequests) WithGroup(name string) slog.Handler {
	return quietRequests{h.Handler.WithGroup(name)}
}

type requestIDKey struct{}

// WithRequestID returns a context that belongs to a request: its log lines show the id, and calls
// and messages that are made with it carry the id on (pkg/rpc, pkg/stream).
func WithRequestID(ctx context.Context, id string) context.Context {
	ctx = context.WithValue(ctx, requestIDKey{}, id)
	return WithAttrs(ctx, slog.String(KeyRequestID, id))
}

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
