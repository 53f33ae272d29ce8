package pages

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/identity"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const (
	homeWorkspaces = 10              // workspaces that the plain home page shows
	homeApps       = 20              // apps of a workspace that it shows
	homeTimeout    = 3 * time.Second // for what it asks
)

// Handler serves the sign-in page and the home page.
type Handler struct {
	Pages    *Pages
	Callers  *caller.Authenticator
	Tenants  *tenant.Store
	Auth     authv1.AuthServiceClient
	Deployer deployerv1.DeployerServiceClient
	Renew    func(w http.ResponseWriter, c caller.Caller)
	Emulator bool
	// Providers are who else signs people in; LocalOwner says that the admin token and codes do.
	Providers  []Provider
	LocalOwner bool
}

// ServeSignIn serves /sign-in.
func (h *Handler) ServeSignIn(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = "/sign-in"
	if err := h.Pages.SignIn(w, SignIn{Next: LocalPath(r.URL.Query().Get("next")), Providers: h.Providers, LocalOwner: h.LocalOwner}); err != nil {
		edge.Fail(w, r, err)
	}
}

// LocalPath is p if it is a path of ours, else "/". Browsers read "//host" and "/\host" as another
// host, and drop control characters before they read.
func LocalPath(p string) string {
	u, err := url.Parse(p)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Opaque != "" ||
		!strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsFunc(p, func(r rune) bool { return r == '\\' || r <= ' ' || r == 0x7f }) {
		return "/"
	}
	return p
}

// ToSignIn sends a browser without a session to the sign-in page, and from there back.
func ToSignIn(w http.ResponseWriter, r *http.Request, next string) {
	http.Redirect(w, r, "/sign-in?"+url.Values{"next": {LocalPath(next)}}.Encode(), http.StatusSeeOther)
}

// ServeHome serves /.
func (h *Handler) ServeHome(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = "/"
	c, err := h.Callers.Authenticate(r)
	if apierr.Has(err, apierr.ReasonUnauthenticated) {
		ToSignIn(w, r, r.URL.RequestURI())
		return
	}
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	edge.Of(r.Context()).Subject = c.Subject
	list, more, err := h.Tenants.List(r.Context(), c.Subject, "", homeWorkspaces)
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	if c.Session.Renew {
		h.Renew(w, c)
	}
	data := Home{Label: c.Label, Emulator: h.Emulator, Banner: banner(r.URL.Query()), More: more, Workspaces: make([]HomeWorkspace, len(list))}
	ctx, cancel := context.WithTimeout(r.Context(), homeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, ws := range list {
		wg.Go(func() { data.Workspaces[i] = h.workspace(ctx, c, ws) })
	}
	wg.Wait()
	if err := h.Pages.Home(w, data); err != nil {
		edge.Fail(w, r, err)
	}
}

// banner says how a connect ended, in our words alone: the query is anybody's.
func banner(q url.Values) *Banner {
	switch q.Get("bitbucket") {
	case "connected":
		return &Banner{Good: true, Text: "Bitbucket is connected."}
	case "failed":
		text := "Bitbucket could not be connected."
		if row, ok := apierr.Lookup(apierr.Reason(q.Get("reason"))); ok {
			text += " " + row.Remedy
		}
		return &Banner{Text: text}
	}
	return nil
}

// workspace asks the services; what does not answer is said on the page.
func (h *Handler) workspace(ctx context.Context, c caller.Caller, ws tenant.Workspace) HomeWorkspace {
	out := HomeWorkspace{ID: ws.GetId(), Name: ws.GetDisplayName(), Role: ws.Role.String(), CanConnect: ws.Role >= identity.RoleAdmin}
	ctx, err := h.Callers.Identify(ctx, c, ws.GetId())
	if err != nil {
		out.Integration.Trouble = apierr.From(err).Message()
		out.AppsTrouble = out.Integration.Trouble
		return out
	}
	var wg sync.WaitGroup
	wg.Go(func() { out.Integration = h.integration(ctx, ws.GetId()) })
	wg.Go(func() { out.Apps, out.MoreApps, out.AppsTrouble = h.apps(ctx, ws.GetId()) })
	wg.Wait()
	return out
}

func (h *Handler) integration(ctx context.Context, workspace string) HomeIntegration {
	resp, err := h.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
	if err != nil {
		return HomeIntegration{Trouble: apierr.From(err).Message()}
	}
	i := resp.GetIntegration()
	out := HomeIntegration{
		State: i.GetState().String(), Label: i.GetAccount().GetLabel(), Problem: i.GetLastError().GetMessage(),
		CallbackURL: i.GetSetup().GetCallbackUrl(), Configured: i.GetSetup().GetConsumerConfigured(),
	}
	if i.GetState() == authv1.Integration_CONNECTED {
		out.Configured = true
	}
	if t := i.GetConnectTime(); t != nil {
		out.ConnectTime = t.AsTime()
	}
	return out
}

func (h *Handler) apps(ctx context.Context, workspace string) (apps []HomeApp, more bool, trouble string) {
	resp, err := h.Deployer.ListApps(ctx, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: homeApps})
	if err != nil {
		return nil, false, apierr.From(err).Message()
	}
	for _, a := range resp.GetApps() {
		row := HomeApp{ID: a.GetId(), Repository: a.GetRepositoryFullName(), Branch: a.GetBranch(), AutoDeploy: a.GetAutoDeploy()}
		if live := a.GetLive(); live != nil {
			row.LiveNumber, row.LiveCommit = live.GetNumber(), bitbucket.ShortHash(live.GetCommit().GetHash())
		}
		if latest := a.GetLatest(); latest != nil {
			row.LatestNumber, row.LatestState = latest.GetNumber(), strings.ToLower(latest.GetState().String())
		}
		apps = append(apps, row)
	}
	return apps, resp.GetNextPageToken() != "", ""
}
