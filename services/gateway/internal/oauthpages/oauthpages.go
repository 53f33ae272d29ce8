// Package oauthpages serves the two pages of a connect that only browsers visit:
// /oauth/bitbucket/start, which binds the handshake to this browser and sends it to Bitbucket, and
// /oauth/bitbucket/callback, to which Bitbucket sends it back (DESIGN.md#connect).
//
// Both need a browser session. Whose handshake it is says auth; what the visitor may do in its
// workspace is read anew each time. The result goes to the page that began, as
// ?bitbucket=connected or ?bitbucket=failed&reason=…; where that page is not known, a small page
// says it. No code, state or handshake is ever logged, and no page tells another site where it was
// opened from.
//
// It depends on the clients of auth and deployer, internal/caller and internal/pages.
package oauthpages

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/pages"
)

// The paths.
const (
	StartPath    = "/oauth/bitbucket/start"
	CallbackPath = "/oauth/bitbucket/callback"
)

const (
	cookiePrefix = "devpilot_connect_"
	cookiePath   = "/oauth/bitbucket"
	// Bounds of what the query and the cookies may hold. Bitbucket's codes are short; nobody
	// promises that they stay so.
	maxParameter = 4096

	timeout = 30 * time.Second // for the exchange with Bitbucket
)

// Handler serves the pages. Auth must record what it completes.
type Handler struct {
	Auth     authv1.AuthServiceClient
	Deployer deployerv1.DeployerServiceClient
	Callers  *caller.Authenticator
	Pages    *pages.Pages
	Secure   bool // browsers reach us over https
}

// ServeStart serves the start page.
func (h *Handler) ServeStart(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = StartPath
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	r = r.WithContext(ctx)
	handshake := parameter(r, "handshake")
	c, ok := h.visitor(w, r, func() { pages.ToSignIn(w, r, StartPath+"?"+url.Values{"handshake": {handshake}}.Encode()) })
	if !ok {
		return
	}
	who, ctx, err := h.lookUp(r, c, &authv1.LookUpHandshakeRequest{Handshake: handshake})
	if err != nil {
		h.failed(w, r, who, err)
		return
	}
	begun, err := h.Auth.BeginAuthorization(ctx, &authv1.BeginAuthorizationRequest{Workspace: who.GetWorkspace(), Handshake: handshake})
	if err != nil {
		h.failed(w, r, who, err)
		return
	}
	http.SetCookie(w, h.cookie(begun.GetBindingName(), begun.GetBinding(), int(begun.GetLife().AsDuration()/time.Second)))
	http.Redirect(w, r, begun.GetAuthorizeUrl(), http.StatusFound)
}

// ServeCallback serves what Bitbucket redirects to.
func (h *Handler) ServeCallback(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = CallbackPath
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	r = r.WithContext(ctx)
	// Without a session the code is not spent: signing in does not bring it back in time, and the
	// handshake must be completed by who began it.
	c, ok := h.visitor(w, r, func() {
		h.failed(w, r, nil, apierr.New(apierr.ReasonHandshakeMismatch, "You are not signed in to Devpilot in this browser, so the connection was not completed."))
	})
	if !ok {
		return
	}
	state := parameter(r, "state")
	who, ctx, err := h.lookUp(r, c, &authv1.LookUpHandshakeRequest{State: state})
	if err != nil {
		h.failed(w, r, who, err)
		return
	}
	used, err := h.used(ctx, who.GetWorkspace())
	if err != nil {
		h.failed(w, r, who, err) // the code is not spent
		return
	}
	done, err := h.Auth.CompleteAuthorization(ctx, &authv1.CompleteAuthorizationRequest{
		Workspace: who.GetWorkspace(), State: state, Code: parameter(r, "code"), Used: used,
		Error: parameter(r, "error"), ErrorDescription: parameter(r, "error_description"), Bindings: bindings(r, who.GetBindingName()),
	})
	if name := who.GetBindingName(); name != "" {
		http.SetCookie(w, h.cookie(name, "", -1)) // spent; those of other tabs stay
	}
	if err != nil {
		h.failed(w, r, who, err)
		return
	}
	http.Redirect(w, r, withResult(done.GetReturnPath(), url.Values{"bitbucket": {"connected"}}), http.StatusFound)
}

// used are the repositories of the workspace's apps where a connection is there that these rely on.
func (h *Handler) used(ctx context.Context, workspace string) ([]*authv1.UsedRepository, error) {
	got, err := h.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
	if err != nil || got.GetIntegration().GetState() == authv1.Integration_NOT_CONNECTED {
		return nil, err
	}
	var list []*authv1.UsedRepository
	at := map[string]*authv1.UsedRepository{}
	for req := (&deployerv1.ListAppsRequest{Workspace: workspace, PageSize: pagetoken.MaxPage, View: deployerv1.ListAppsRequest_BASIC}); ; {
		resp, err := h.Deployer.ListApps(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, a := range resp.GetApps() {
			u := at[a.GetRepository()]
			if u == nil {
				u = &authv1.UsedRepository{Repository: a.GetRepository(), FullName: a.GetRepositoryFullName()}
				at[a.GetRepository()], list = u, append(list, u)
			}
			u.Apps = append(u.Apps, a.GetId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return list, nil
		}
	}
}

// visitor is the signed-in person; otherwise the request has been answered. Keys and tokens do not
// count: what follows is bound to a browser.
func (h *Handler) visitor(w http.ResponseWriter, r *http.Request, unknown func()) (caller.Caller, bool) {
	r.Header.Del("Authorization")
	c, err := h.Callers.Authenticate(r)
	switch {
	case apierr.Has(err, apierr.ReasonUnauthenticated):
		unknown()
	case err != nil:
		h.failed(w, r, nil, err)
	default:
		edge.Of(r.Context()).Subject = c.Subject
		return c, true
	}
	return caller.Caller{}, false
}

// lookUp finds the handshake and returns a context in which calls are made as the visitor, with
// today's role in its workspace. A visitor who is not the one who began it learns nothing about it.
func (h *Handler) lookUp(r *http.Request, c caller.Caller, req *authv1.LookUpHandshakeRequest) (*authv1.LookUpHandshakeResponse, context.Context, error) {
	if req.GetHandshake() == "" && req.GetState() == "" {
		return nil, nil, apierr.New(apierr.ReasonHandshakeExpired, "The address is not complete. Start the connection again under Integrations.")
	}
	ctx, err := h.Callers.Identify(r.Context(), c, "")
	if err != nil {
		return nil, nil, err
	}
	who, err := h.Auth.LookUpHandshake(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	if who.GetSubject() != c.Subject {
		return nil, nil, apierr.New(apierr.ReasonHandshakeMismatch, "This connection was begun by somebody else. Start your own under Integrations.")
	}
	edge.Of(r.Context()).Workspace = who.GetWorkspace()
	ctx, err = h.Callers.Identify(r.Context(), c, who.GetWorkspace())
	if err != nil {
		return who, nil, err
	}
	if id, _ := identity.FromContext(ctx); id.Role < identity.RoleAdmin {
		return who, nil, apierr.Newf(apierr.ReasonPermissionDenied, "Only an owner or admin of workspace %s can connect Bitbucket.", who.GetWorkspace())
	}
	return who, ctx, nil
}

// failed tells the page that began, or the visitor where that page is not known.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, who *authv1.LookUpHandshakeResponse, err error) {
	e := edge.Typed(err)
	edge.Of(r.Context()).Err = e
	if who.GetReturnPath() != "" {
		result := url.Values{"bitbucket": {"failed"}, "reason": {string(e.Reason())}}
		for _, name := range []string{"apps", "appsCount", "repositoriesUnknown"} {
			if v := e.Detail(name); v != "" {
				result.Set(name, v)
			}
		}
		http.Redirect(w, r, withResult(who.GetReturnPath(), result), http.StatusFound)
		return
	}
	m := pages.Message{
		Status: e.Kind().HTTPStatus(), Title: "Bitbucket is not connected", Text: e.Message(),
		Reason: string(e.Reason()), RequestID: rpc.RequestID(r.Context()),
	}
	if row, ok := apierr.Lookup(e.Reason()); ok {
		m.Remedy = row.Remedy
	}
	if err := h.Pages.Message(w, m); err != nil {
		edge.Fail(w, r, err)
	}
}

// withResult adds to the query of a path and keeps the rest of it.
func withResult(path string, result url.Values) string {
	u, err := url.Parse(pages.LocalPath(path))
	if err != nil {
		u = &url.URL{Path: "/"}
	}
	q := u.Query()
	for _, old := range []string{"bitbucket", "reason", "apps", "appsCount", "repositoriesUnknown"} {
		q.Del(old)
	}
	for k, v := range result {
		q[k] = v
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// parameter is a value of the query that is given once and not out of all proportion.
func parameter(r *http.Request, name string) string {
	v := r.URL.Query()[name]
	if len(v) != 1 || len(v[0]) > maxParameter {
		return ""
	}
	return v[0]
}

// cookie is the one that binds a handshake to this browser. One per handshake: two tabs may connect
// two workspaces at once. It comes back from Bitbucket's site, a top-level visit, hence Lax.
func (h *Handler) cookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookiePrefix + name, Value: value, Path: cookiePath, MaxAge: maxAge,
		HttpOnly: true, Secure: h.Secure, SameSite: http.SameSiteLaxMode,
	}
}

// bindings is the browser's cookie of one handshake. Those of other tabs, and of attempts that were
// given up, do not count, however many there are.
func bindings(r *http.Request, name string) map[string]string {
	c, err := r.Cookie(cookiePrefix + name)
	if name == "" || err != nil || len(c.Value) > maxParameter {
		return nil
	}
	return map[string]string{name: c.Value}
}
