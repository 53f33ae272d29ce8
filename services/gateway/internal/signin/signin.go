package signin

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/pages"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// Prefix begins the addresses of the providers.
const Prefix = "/sign-in/"

func callbackPath(provider string) string { return Prefix + provider + "/callback" }

// Config is what New needs.
type Config struct {
	Settings  Settings
	PublicURL string // without a final slash
	Secure    bool   // browsers reach us over https
	Keyset    *seal.Keyset
	Tenants   *tenant.Store
	Short     *session.ShortLived
	Cookies   session.Cookies
	Limiter   *session.Limiter
	Pages     *pages.Pages
	Recorder  interface {
		Record(ctx context.Context, e activity.Entry)
	}
	Logger *slog.Logger
	Now    func() time.Time
}

// Service signs people in at the providers of the settings. It is safe for concurrent use.
type Service struct {
	cfg       Config
	attempts  attempts
	providers map[string]*Provider
	sessions  *session.Manager
	asking    singleflight.Group // by session
}

// New makes the service. Use must be called before it serves.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, attempts: attempts{keyset: cfg.Keyset, secure: cfg.Secure, now: cfg.Now}, providers: map[string]*Provider{}}
	for _, p := range cfg.Settings.Providers {
		s.providers[p.ID] = newProvider(p, cfg.PublicURL, cfg.Now)
	}
	return s
}

// Use names the sessions, which ask this service about those they have.
func (s *Service) Use(m *session.Manager) { s.sessions = m }

// Vouches implements session.Provider.
func (s *Service) Vouches(provider string) bool { return s.providers[provider] != nil }

// Buttons are the providers as the sign-in page names them, in the order of the settings.
func (s *Service) Buttons() []pages.Provider {
	var list []pages.Provider
	for _, p := range s.cfg.Settings.Providers {
		list = append(list, pages.Provider{ID: p.ID, Name: p.Name})
	}
	return list
}

// Name is how people call a provider; its id where it is not in the settings any more.
func (s *Service) Name(provider string) string {
	if p := s.providers[provider]; p != nil {
		return p.settings.Name
	}
	return provider
}

// SignOutURL is where the browser goes to sign out at the provider too, and back to our sign-in page; empty
// where the provider has no such place, or does not answer.
func (s *Service) SignOutURL(ctx context.Context, subject string, e *gatewaystorev1.ListedSession) string {
	p := s.providers[e.GetProvider()]
	if p == nil {
		return ""
	}
	_, f, err := p.discover(ctx)
	if err != nil {
		return ""
	}
	u, err := url.Parse(f.EndSession)
	if err != nil || u.Scheme != "https" && (u.Scheme != "http" || !edge.Loopback(u.Hostname())) {
		return ""
	}
	q := u.Query()
	q.Set("client_id", p.settings.ClientID)
	q.Set("post_logout_redirect_uri", strings.TrimSuffix(s.cfg.PublicURL, "/")+"/sign-in")
	if hint, err := s.sessions.Kept(subject, e.GetId(), e.GetSealedIdToken()); err == nil && !hint.IsZero() {
		q.Set("id_token_hint", hint.Reveal())
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Serve serves the addresses below Prefix: a provider's sign-in, its callback, and what it says of sessions
// that ended there.
func (s *Service) Serve(w http.ResponseWriter, r *http.Request) (found bool) {
	id, what, deeper := strings.Cut(strings.TrimPrefix(r.URL.Path, Prefix), "/")
	p := s.providers[id]
	if p == nil {
		return false
	}
	method, serve := http.MethodPost, s.serveBegin
	switch {
	case !deeper:
		edge.Of(r.Context()).Route = Prefix + "{provider}"
	case what == "callback":
		edge.Of(r.Context()).Route = Prefix + "{provider}/callback"
		method, serve = http.MethodGet, s.serveCallback
	case what == "logout":
		edge.Of(r.Context()).Route = Prefix + "{provider}/logout"
		serve = s.serveLogout
	default:
		return false
	}
	if r.Method != method {
		methodNotAllowed(w, r, method)
		return true
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*providerTimeout)
	defer cancel()
	serve(w, r.WithContext(ctx), p)
	return true
}

// record notes a sign-in in all workspaces of the person.
func (s *Service) record(ctx context.Context, e activity.Entry) {
	list, _, err := s.cfg.Tenants.List(ctx, e.Actor.Subject, "", pagetoken.MaxPage)
	if err != nil {
		return // signing in must not fail for it
	}
	for _, w := range list {
		e.Workspace = w.GetId()
		s.cfg.Recorder.Record(ctx, e)
	}
}
