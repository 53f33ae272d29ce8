package signin

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/pages"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
	"devpilot.io/bitbucket/services/gateway/internal/session"
)

const (
	maxBody      = 8 << 10 // bytes of the request that begins a sign-in
	maxParameter = 8 << 10 // bytes of a parameter of a provider's answer
	maxNext      = 1000    // bytes of the path that a sign-in leads to
)

func methodNotAllowed(w http.ResponseWriter, r *http.Request, method string) {
	w.Header().Set("Allow", method)
	edge.Fail(w, r, apierr.New(apierr.ReasonMethodNotAllowed, "This address does not take the method. It takes: "+method+"."))
}

// serveBegin answers where the browser signs in, and gives it the cookie of the attempt. It is a POST of
// JSON: no page of another site can begin a sign-in, and an invitation is in no address.
func (s *Service) serveBegin(w http.ResponseWriter, r *http.Request, p *Provider) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		if refused := edge.JSONBody(r, raw); refused != nil {
			edge.Fail(w, r, refused)
			return
		}
	}
	var body struct{ Next, Invitation string }
	if err != nil || json.Unmarshal(raw, &body) != nil || len(body.Next) > maxNext {
		edge.Fail(w, r, apierr.New(apierr.ReasonInvalidArgument, `The body must be JSON like {"next": "/"}.`))
		return
	}
	made := s.attempts.begin(p.settings.ID, pages.LocalPath(body.Next), body.Invitation)
	cookie, err := s.attempts.seal(made)
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	to, err := p.authorizeURL(r.Context(), made.GetState(), made.GetNonce(), made.GetVerifier())
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"authorizeUrl": to}) // a client that went away is no error of ours
}

// serveCallback is where the provider sends the browser back.
func (s *Service) serveCallback(w http.ResponseWriter, r *http.Request, p *Provider) {
	state := parameter(r, "state")
	made := s.attempts.find(r, p.settings.ID, state)
	if made == nil {
		s.failed(w, r, apierr.Newf(apierr.ReasonSignInFailed,
			"This sign-in was not begun in this browser, took longer than %d minutes, or was completed before. Sign in again.", attemptLife/time.Minute))
		return
	}
	http.SetCookie(w, s.attempts.cookie(state, "", -1)) // spent, however it ends
	if err := s.complete(w, r, p, made); err != nil {
		s.failed(w, r, err)
		return
	}
	http.Redirect(w, r, pages.LocalPath(made.GetNext()), http.StatusSeeOther)
}

// complete believes the provider's answer, or says why not.
func (s *Service) complete(w http.ResponseWriter, r *http.Request, p *Provider, made *gatewaystorev1.SignInAttempt) error {
	ctx := r.Context()
	a, err := s.answered(r, p, made)
	if err != nil {
		return err
	}
	first, err := s.cfg.Short.UseOnce(ctx, "state "+made.GetState(), attemptLife)
	if err != nil {
		return err
	}
	if !first {
		return refused{errors.New("the state was used before")}
	}
	who := p.person(a.claims)
	n, err := s.cfg.Tenants.Arrive(ctx, who, made.GetInvitation())
	if err != nil {
		return err
	}
	if n == 0 {
		return apierr.Newf(apierr.ReasonNotAMember, "%s knows you as %s, but you are not a member of any workspace here.", p.settings.Name, who.Label)
	}
	sess, err := s.sessions.Begin(ctx, session.New{
		Subject: who.Subject(), Label: who.Label, Address: edge.ClientAddress(ctx), UserAgent: r.UserAgent(),
		Provider: p.settings.ID, Life: p.settings.SessionLife, ProviderSession: a.claims.SessionID, RefreshToken: a.refresh, IDToken: a.idToken,
	})
	if err != nil {
		return err
	}
	if a.claims.SessionID != "" {
		if err := s.cfg.Short.KeepOwner(ctx, p.settings.Issuer, a.claims.SessionID, sess.Subject, p.settings.SessionLife); err != nil {
			return err
		}
	}
	value, expire, err := s.sessions.Seal(sess)
	if err != nil {
		return err
	}
	s.cfg.Cookies.Set(w, value, expire, s.cfg.Now())
	edge.Of(ctx).Subject = sess.Subject
	s.record(ctx, activity.Entry{
		Time: s.cfg.Now(), Actor: identity.Identity{Subject: sess.Subject, Label: sess.Label, SubjectKind: identity.SubjectSession},
		Action: routes.ActionSignIn, Target: sess.Label, Message: "Signed in with " + p.settings.Name + ".", RequestID: rpc.RequestID(ctx), Address: edge.ClientAddress(ctx),
	})
	return nil
}

// answered is who the person is, after everything that the address says was held against the attempt.
func (s *Service) answered(r *http.Request, p *Provider, made *gatewaystorev1.SignInAttempt) (answer, error) {
	ctx := r.Context()
	_, f, err := p.discover(ctx)
	if err != nil {
		return answer{}, err
	}
	// An answer of another provider must not be taken for this one's (RFC 9207).
	if iss := parameter(r, "iss"); iss != p.settings.Issuer && (iss != "" || f.IssParameter) {
		return answer{}, refused{errors.New("the answer is of another issuer")}
	}
	if said := parameter(r, "error"); said != "" {
		if said == "access_denied" {
			return answer{}, apierr.Newf(apierr.ReasonSignInFailed, "%s did not let you sign in, or you cancelled. Sign in again.", p.settings.Name)
		}
		return answer{}, refused{errors.New("the provider answered " + line(said))}
	}
	code := parameter(r, "code")
	if code == "" {
		return answer{}, refused{errors.New("the answer has no code")}
	}
	return p.exchange(ctx, code, made.GetNonce(), made.GetVerifier())
}

// failed says on a page that nobody was signed in. Why a provider's answer was not believed is in the log
// alone: it helps only whoever forges one.
func (s *Service) failed(w http.ResponseWriter, r *http.Request, err error) {
	var no refused
	if errors.As(err, &no) {
		s.cfg.Logger.WarnContext(r.Context(), "a sign-in was refused", slog.String(logs.KeyRequestID, rpc.RequestID(r.Context())), logs.Err(no.error))
		err = apierr.New(apierr.ReasonSignInFailed, "The identity provider's answer could not be accepted, so you are not signed in. Sign in again.")
	}
	e := edge.Typed(err)
	edge.Of(r.Context()).Err = e
	m := pages.Message{Status: e.Kind().HTTPStatus(), Title: "You are not signed in", Text: e.Message(), Reason: string(e.Reason()), RequestID: rpc.RequestID(r.Context())}
	if row, ok := apierr.Lookup(e.Reason()); ok {
		m.Remedy = row.Remedy
	}
	if err := s.cfg.Pages.Message(w, m); err != nil {
		edge.Fail(w, r, err)
	}
}

// parameter is a value of the query that is given once and not out of all proportion.
func parameter(r *http.Request, name string) string {
	v := r.URL.Query()[name]
	if len(v) != 1 || len(v[0]) > maxParameter {
		return ""
	}
	return v[0]
}
