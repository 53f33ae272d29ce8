package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const (
	maxLogout = 64 << 10 // bytes of the request that says that a session ended at its provider
	// logoutAge is how old a logout token may be; its id is remembered for longer.
	logoutAge   = 10 * time.Minute
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
)

// serveLogout ends sessions that the provider says have ended there (OpenID Connect Back-Channel Logout 1.0).
func (s *Service) serveLogout(w http.ResponseWriter, r *http.Request, p *Provider) {
	ctx := r.Context()
	w.Header().Set("Cache-Control", "no-store")
	address := edge.ClientAddress(ctx)
	if wait, blocked := s.cfg.Limiter.Blocked(address); blocked { // a signature costs, and may have keys fetched
		edge.Fail(w, r, apierr.New(apierr.ReasonRateLimited, "Too many wrong logout tokens from your address.", apierr.WithRetryAfter(wait)))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxLogout)
	token, err := p.logoutToken(ctx, r.PostFormValue("logout_token"))
	if err == nil {
		err = s.endAt(ctx, p, token)
	}
	var no refused
	switch {
	case errors.As(err, &no):
		s.cfg.Limiter.Wrong(address)
		s.cfg.Logger.WarnContext(ctx, "a logout token was refused", slog.String("provider", p.settings.ID), logs.Err(no.error))
		edge.Fail(w, r, apierr.New(apierr.ReasonInvalidArgument, "The logout token could not be accepted."))
	case err != nil:
		edge.Fail(w, r, err)
	default:
		w.WriteHeader(http.StatusOK)
	}
}

// logoutToken verifies a token: signature, issuer, audience, event and no nonce by the library, the rest here.
func (p *Provider) logoutToken(ctx context.Context, raw string) (*oidc.LogoutToken, error) {
	if raw == "" {
		return nil, refused{errors.New("there is none")}
	}
	known, f, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	t, err := p.verifier(ctx, known, f).VerifyLogout(ctx, raw)
	if err != nil {
		return nil, refused{err}
	}
	var c struct {
		Events map[string]json.RawMessage `json:"events"`
	}
	var event map[string]json.RawMessage
	if err := errors.Join(t.Claims(&c), json.Unmarshal(c.Events[logoutEvent], &event)); err != nil || event == nil {
		return nil, refused{errors.New("the event is no object")}
	}
	if age := p.now().Sub(t.IssuedAt); age > logoutAge || age < -skew {
		return nil, refused{fmt.Errorf("it was issued %s ago", age.Round(time.Second))}
	}
	return t, nil
}

// endAt ends the sessions that a token is about: those of one session at the provider, or all of the person
// by this provider.
func (s *Service) endAt(ctx context.Context, p *Provider, t *oidc.LogoutToken) error {
	first, err := s.cfg.Short.UseOnce(ctx, "logout "+p.settings.Issuer+"\n"+t.TokenID, 2*logoutAge)
	if err != nil {
		return err
	}
	if !first {
		return refused{errors.New("it came before")}
	}
	subject := tenant.PersonSubject(p.settings.Issuer, t.Subject)
	if t.Subject == "" {
		if subject, err = s.cfg.Short.Owner(ctx, p.settings.Issuer, t.SessionID); err != nil || subject == "" {
			return err // nobody has it here (any more)
		}
	}
	_, err = s.cfg.Tenants.EndSessions(ctx, subject, func(e *gatewaystorev1.ListedSession) bool {
		return e.GetProvider() == p.settings.ID && (t.SessionID == "" || e.GetProviderSession() == t.SessionID)
	})
	return err
}
