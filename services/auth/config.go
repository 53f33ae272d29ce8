package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/token"
)

// Config is what an operator sets.
type Config struct {
	// PublicURL is the address under which people reach Devpilot; the callback URL is built from it.
	PublicURL string
	// Site is the Bitbucket that accounts are connected at.
	Site bitbucket.Site
	// ClientID and ClientSecret are the OAuth consumer's. Without them nobody can connect, and the
	// integration's setup says how to make one.
	ClientID     string
	ClientSecret seal.Secret
	// Timing holds the times of the refresh protocol; zero means those of DESIGN.md#a-token-that-never-races.
	Timing Timing
}

// Timing holds the times of the refresh protocol, for tests; zero means those of DESIGN.md#a-token-that-never-races.
type Timing struct {
	// Refresh bounds an attempt, TakeOver is how long a record must be seen unchanged before another
	// process's lease is taken.
	Refresh, TakeOver time.Duration
	// Scan is how often due refreshes are looked for, Stagger how far apart replicas come.
	Scan, Stagger time.Duration
}

// Deps are the parts that the process provides. All but HTTPClient, Registerer, TracerProvider and
// Now is required.
type Deps struct {
	Logger         *slog.Logger
	JS             jetstream.JetStream
	Redis          redis.UniversalClient
	Keyset         *seal.Keyset
	HTTPClient     *http.Client // its Transport is used for Bitbucket
	Registerer     prometheus.Registerer
	TracerProvider trace.TracerProvider
	Now            func() time.Time
}

func (d Deps) check() error {
	var missing []string
	for name, is := range map[string]bool{"Logger": d.Logger != nil, "JS": d.JS != nil, "Redis": d.Redis != nil, "Keyset": d.Keyset != nil} {
		if !is {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("auth: Deps lacks %s", strings.Join(missing, ", "))
	}
	return nil
}

// public checks and parses the public URL.
func (c Config) public() (*url.URL, error) {
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("auth: Config.PublicURL must be an origin such as https://devpilot.example.com")
	}
	u.Path = ""
	return u, nil
}

// consumer names the OAuth consumer. The fingerprint tells a changed secret without holding it: it
// is kept in records, and a consumer's secret is long and random.
func (c Config) consumer() rotation.Consumer {
	if c.ClientID == "" {
		return rotation.Consumer{SiteURL: c.Site.SiteURL}
	}
	h := sha256.New()
	h.Write([]byte("devpilot consumer\x00" + c.ClientID + "\x00" + c.ClientSecret.Reveal()))
	return rotation.Consumer{SiteURL: c.Site.SiteURL, Key: c.ClientID, Fingerprint: hex.EncodeToString(h.Sum(nil)[:12])}
}

func (t Timing) internal() token.Timing {
	return token.Timing{Refresh: t.Refresh, TakeOver: t.TakeOver, Scan: t.Scan, Stagger: t.Stagger}
}
