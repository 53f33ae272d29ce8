package rpc

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"strings"

	"google.golang.org/grpc/metadata"

	"devpilot.io/bitbucket/pkg/logs"
)

// The metadata keys of our own. Clients overwrite whatever came in under these names: grpc-gateway
// turns HTTP headers into metadata.
const (
	mdRequestID = "devpilot-request-id"
	mdUser      = "devpilot-user-token"
	mdCaller    = "devpilot-caller-token"
	// mdRetryPushback is gRPC's: a negative value says "do not retry" (gRFC A6).
	mdRetryPushback = "grpc-retry-pushback-ms"
)

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string { return logs.RequestID(ctx) }

// WithRequestID returns a context that carries a request id; log lines show it, outgoing calls
// forward it.
func WithRequestID(ctx context.Context, id string) context.Context {
	return logs.WithRequestID(ctx, id)
}

// NewRequestID makes a random id of 26 characters, [a-z2-7].
func NewRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// ValidRequestID reports whether an id from outside may be taken over: 8 to 64 characters of
// [A-Za-z0-9_-], so that it can stand in a log line and a header unquoted.
func ValidRequestID(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// incoming returns the single value of a metadata key. Several values are none: nobody of ours
// sends them.
func incoming(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) == 1 {
		return v[0]
	}
	return ""
}
