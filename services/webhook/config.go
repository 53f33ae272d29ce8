package webhook

import (
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// Config holds the settings of the service.
type Config struct {
	// PublicURL is the address under which Bitbucket reaches /webhooks/bitbucket/, without a
	// trailing slash.
	PublicURL string
	// Site is the Bitbucket that webhooks are registered at.
	Site bitbucket.Site
	// ClientID is the OAuth consumer's key: calls to Bitbucket are counted per consumer.
	ClientID string

	// Hold is how long a delivery waits for the store before it gets 503; 7 s when zero.
	Hold time.Duration
	// Timing of the work at Bitbucket; see registry.Timing for the defaults.
	Timing registry.Timing
}

// Deps are what the service is built from. Redis may be nil: calls to Bitbucket are then not
// counted. TracerProvider and Registerer may be nil.
type Deps struct {
	Logger         *slog.Logger
	JS             jetstream.JetStream
	Redis          redis.UniversalClient
	Keyset         *seal.Keyset
	Auth           authv1.AuthServiceClient
	Registerer     prometheus.Registerer
	TracerProvider trace.TracerProvider
	Now            func() time.Time
}

func (d Deps) check() error {
	switch {
	case d.Logger == nil:
		return errors.New("webhook: Deps.Logger is missing")
	case d.JS == nil:
		return errors.New("webhook: Deps.JS is missing")
	case d.Keyset == nil:
		return errors.New("webhook: Deps.Keyset is missing")
	case d.Auth == nil:
		return errors.New("webhook: Deps.Auth is missing")
	}
	return nil
}
