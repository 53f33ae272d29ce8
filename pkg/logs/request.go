package logs

import (
	"context"
	"log/slog"
)

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
