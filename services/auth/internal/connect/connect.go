package connect

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/handshake"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/scope"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// OAuth is Bitbucket's side of the flow. Errors of Exchange are *bitbucket.OAuthError.
type OAuth interface {
	AuthorizeURL(state, pkceChallenge string) string
	Exchange(ctx context.Context, code, verifier string) (bitbucket.Grant, error)
}

// Integrations stores what was connected; see package store.
type Integrations interface {
	Get(ctx context.Context, workspace string) (*authstorev1.Integration, uint64, error)
	Update(ctx context.Context, workspace string, fn func(cur *authstorev1.Integration) (*authstorev1.Integration, error)) (*authstorev1.Integration, uint64, error)
}

// Sealer seals tokens for a workspace's record; see package store.
type Sealer interface {
	SealAccess(workspace string, token seal.Secret) ([]byte, error)
	SealRefresh(workspace string, token seal.Secret) (sealed, id []byte, err error)
}

// Config is what a Flow needs; all of it is required.
type Config struct {
	Handshakes   *handshake.Store
	OAuth        OAuth
	Accounts     Accounts
	Integrations Integrations
	Tokens       Sealer
	// Changed is told of the stored record.
	Changed   func(ctx context.Context, workspace string, rec *authstorev1.Integration, rev uint64)
	Site      bitbucket.Site
	Consumer  rotation.Consumer // key and fingerprint; an empty key means that none is configured
	PublicURL *url.URL
	Logger    *slog.Logger
	Metrics   *Metrics
	Now       func() time.Time
}

// Flow connects workspaces. It is safe for concurrent use. Its errors are *apierr.Error or errors of
// pkg/kv.
type Flow struct{ cfg Config }

// NewFlow does no I/O.
func NewFlow(cfg Config) *Flow { return &Flow{cfg} }

// StartPath is the path of our own page that sends browsers to Bitbucket, and CallbackPath where
// Bitbucket sends them back; the gateway serves both.
const (
	StartPath    = "/oauth/bitbucket/start"
	CallbackPath = "/oauth/bitbucket/callback"
)

// Begin starts a handshake and returns the address of our own start page.
func (f *Flow) Begin(ctx context.Context, v handshake.Visitor, returnPath string, evenIfAppsStop bool) (startURL string, expire time.Time, _ error) {
	if f.cfg.Consumer.Key == "" {
		return "", time.Time{}, apierr.New(apierr.ReasonConsumerRefused,
			"Devpilot has no OAuth consumer yet. The operator makes one at Bitbucket and sets DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET.")
	}
	id, expire, err := f.cfg.Handshakes.Begin(ctx, v, handshake.Wish{ReturnPath: handshake.ReturnPath(f.cfg.PublicURL, returnPath), EvenIfAppsStop: evenIfAppsStop})
	if err != nil {
		return "", time.Time{}, err
	}
	f.cfg.Metrics.count("begun")
	u := f.cfg.PublicURL.JoinPath(StartPath)
	u.RawQuery = url.Values{"handshake": {id}}.Encode()
	return u.String(), expire, nil
}

// LookUp finds a handshake by its id or state, and spends nothing.
func (f *Flow) LookUp(ctx context.Context, id, state string) (*authstorev1.Handshake, error) {
	return f.cfg.Handshakes.LookUp(ctx, id, state)
}

// Authorize spends the handshake's id and returns Bitbucket's consent page with what binds the
// browser to it.
func (f *Flow) Authorize(ctx context.Context, id string, v handshake.Visitor) (string, handshake.Authorization, error) {
	a, err := f.cfg.Handshakes.Authorize(ctx, id, v, f.target())
	if err != nil {
		return "", handshake.Authorization{}, err
	}
	return f.cfg.OAuth.AuthorizeURL(a.State, a.Challenge), a, nil
}

func (f *Flow) target() handshake.Target {
	return handshake.Target{SiteURL: f.cfg.Site.SiteURL, ConsumerKey: f.cfg.Consumer.Key}
}

// Callback is what Bitbucket's redirect and the browser's cookies say.
type Callback struct {
	State    string
	Code     string
	Error    string // the OAuth error code; its description is never relied on
	Bindings map[string]string
	Used     []*authv1.UsedRepository // by the workspace's apps
}

// completeTimeout bounds what follows the redirect. It does not end with the request: the code is
// spent, and a person who closed the page early still wanted to connect.
const completeTimeout = 20 * time.Second

// Complete finishes a connect and returns the stored integration and where the browser goes. who
// names the visitor, for people.
func (f *Flow) Complete(ctx context.Context, cb Callback, v handshake.Visitor, who string) (*authstorev1.Integration, string, error) {
	h, err := f.cfg.Handshakes.Complete(ctx, cb.State, cb.Bindings, v, f.target())
	if err != nil {
		f.cfg.Metrics.count(outcome(err))
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeTimeout)
	defer cancel()
	rec, err := f.connect(ctx, cb, h, who)
	f.cfg.Metrics.count(outcome(err))
	if err != nil {
		return nil, h.GetReturnPath(), err
	}
	f.cfg.Logger.InfoContext(ctx, "bitbucket connected", slog.String(logs.KeyWorkspace, h.GetWorkspace()), slog.String(logs.KeyConnection, rec.GetConnectionId()))
	return rec, h.GetReturnPath(), nil
}

func (f *Flow) connect(ctx context.Context, cb Callback, h *authstorev1.Handshake, who string) (*authstorev1.Integration, error) {
	switch {
	case cb.Error == "access_denied":
		return nil, apierr.New(apierr.ReasonConsentDenied, "You pressed Cancel at Bitbucket, so nothing was connected or changed. To connect, start again and press Grant access.")
	case cb.Error != "" || cb.Code == "":
		return nil, apierr.New(apierr.ReasonConsentDenied, "Bitbucket did not grant access, so nothing was connected or changed. Start again; if it stays, check the OAuth consumer at Bitbucket.")
	}
	grant, err := f.cfg.OAuth.Exchange(ctx, cb.Code, h.GetVerifier())
	if err != nil {
		return nil, fmt.Errorf("exchange the authorization code: %w", err)
	}
	user, scopes, err := f.examine(ctx, grant)
	if err != nil {
		return nil, err
	}
	rec, err := f.record(h, grant, user, scopes, who)
	if err != nil {
		return nil, err
	}
	rev, err := f.replace(ctx, cb, h, grant.AccessToken, rec)
	if err != nil {
		return nil, err
	}
	f.cfg.Changed(ctx, rec.GetWorkspace(), rec, rev)
	return rec, nil
}

// examine checks that the grant suffices and says whose it is.
func (f *Flow) examine(ctx context.Context, grant bitbucket.Grant) (bitbucket.User, []string, error) {
	if len(grant.Scopes) > 0 {
		if missing := scope.Missing(grant.Scopes); len(missing) > 0 {
			return bitbucket.User{}, nil, scopeMissing(missing)
		}
	}
	user, said, err := f.cfg.Accounts.Account(ctx, grant.AccessToken)
	scopes := grant.Scopes
	if len(scopes) == 0 {
		scopes = said
	}
	if missing := scope.Missing(scopes); len(missing) > 0 && (err == nil || len(said) > 0) {
		return bitbucket.User{}, nil, scopeMissing(missing)
	}
	if err != nil {
		return bitbucket.User{}, nil, fmt.Errorf("read the connected account: %w", err)
	}
	return user, scopes, nil
}

func scopeMissing(missing []string) error {
	return apierr.New(apierr.ReasonScopeMissing, status.ScopeMessage(missing), apierr.WithDetail("missingScopes", strings.Join(missing, " ")))
}

// record makes the integration: a new connection in every respect, also when the account is the one
// that was connected before.
func (f *Flow) record(h *authstorev1.Handshake, grant bitbucket.Grant, user bitbucket.User, scopes []string, who string) (*authstorev1.Integration, error) {
	ws, now := h.GetWorkspace(), timestamppb.New(f.cfg.Now())
	access, err := f.cfg.Tokens.SealAccess(ws, grant.AccessToken)
	if err != nil {
		return nil, err
	}
	if grant.RefreshToken.IsZero() {
		return nil, apierr.New(apierr.ReasonConsumerRefused, "Bitbucket granted access without a refresh token, so the connection would end in two hours. The operator unticks \"This is a private consumer\" at the OAuth consumer, then connect again.")
	}
	refresh, id, err := f.cfg.Tokens.SealRefresh(ws, grant.RefreshToken)
	if err != nil {
		return nil, err
	}
	rec := &authstorev1.Integration{
		Workspace: ws, ConnectionId: newConnectionID(), SiteUrl: f.cfg.Site.SiteURL, ApiUrl: f.cfg.Site.APIURL,
		ConsumerKey: f.cfg.Consumer.Key, Scopes: slices.Clone(scopes), ConnectTime: now, ConnectedBy: who, ConnectedBySubject: h.GetSubject(),
		Account: &authstorev1.Account{
			Uuid: user.UUID, Label: user.Label(), DisplayName: user.DisplayName, Nickname: user.Nickname,
			Username: user.Username, AvatarUrl: user.AvatarURL,
		},
		Access:          &authstorev1.AccessToken{Sealed: access},
		Refresh:         &authstorev1.RefreshToken{Sealed: refresh, Id: id},
		LastRefreshTime: now, SuccessFingerprint: f.cfg.Consumer.Fingerprint,
	}
	if !grant.Expiry.IsZero() {
		rec.Access.ExpireTime = timestamppb.New(grant.Expiry)
	}
	return rec, nil
}

func newConnectionID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Metrics counts handshakes.
type Metrics struct{ handshakes *prometheus.CounterVec }

// NewMetrics registers the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "devpilot_auth_handshakes_total",
		Help: "Connects by what became of them: begun, connected, or the reason why not.",
	}, []string{"outcome"})}
	if reg == nil {
		return m, nil
	}
	if err := reg.Register(m.handshakes); err != nil {
		return nil, fmt.Errorf("register the handshake metrics: %w", err)
	}
	return m, nil
}

func (m *Metrics) count(outcome string) { m.handshakes.WithLabelValues(outcome).Inc() }

func outcome(err error) string {
	if err == nil {
		return "connected"
	}
	return string(apierr.ReasonOf(kv.ToAPI(err)))
}
