package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activityexport"
	"devpilot.io/bitbucket/services/gateway/internal/apidocs"
	"devpilot.io/bitbucket/services/gateway/internal/badge"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/connector"
	"devpilot.io/bitbucket/services/gateway/internal/console"
	"devpilot.io/bitbucket/services/gateway/internal/deletion"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/events"
	"devpilot.io/bitbucket/services/gateway/internal/logstream"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
	"devpilot.io/bitbucket/services/gateway/internal/oauthpages"
	"devpilot.io/bitbucket/services/gateway/internal/openapi"
	"devpilot.io/bitbucket/services/gateway/internal/pages"
	"devpilot.io/bitbucket/services/gateway/internal/ratelimit"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
	"devpilot.io/bitbucket/services/gateway/internal/server"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/signin"
)

// assemble builds the parts that serve requests, from the inside out.
func (s *Service) assemble(w web, d Deps) error {
	secure := w.public.Scheme == "https"
	signer, err := identity.NewSigner(d.Keys, identity.Gateway)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	codec, err := pagetoken.New(d.Keyset)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	d.Auth = connector.Conn{ClientConnInterface: d.Auth, Teams: s.tenants, Logger: d.Logger}
	if err := s.assembleNotifications(w, d, signer); err != nil {
		return err
	}
	s.deleter = deletion.New(deletion.Config{
		Workspaces: s.tenants, Notifications: s.notes, Signer: signer, Settle: s.cfg.DeletionSettle, Logger: d.Logger, Now: d.Now,
		Auth: authv1.NewAuthServiceClient(d.Auth), Webhook: webhookv1.NewWebhookServiceClient(d.Webhook), Deployer: deployerv1.NewDeployerServiceClient(d.Deployer),
	})
	cookies := session.Cookies{Secure: secure}
	callers := &caller.Authenticator{
		AdminToken: s.cfg.AdminToken, LocalOff: s.cfg.LocalOwnerOff, Cookies: cookies, Tenants: s.tenants, Signer: signer, KeyUsed: s.keyUsed,
		Tokens: signin.NewTokens(w.people, d.Now), Now: d.Now,
	}
	html, err := pages.New()
	if err != nil {
		return err
	}
	limiter := session.NewLimiter(d.Now)
	people := signin.New(signin.Config{
		Settings: w.people, PublicURL: s.cfg.PublicURL, Secure: secure, Keyset: d.Keyset, Tenants: s.tenants, Short: s.short, Cookies: cookies,
		Limiter: limiter, Pages: html, Recorder: s.recorder, Logger: d.Logger, Now: d.Now,
	})
	sessions := session.NewManager(session.Config{
		Keyset: d.Keyset, Accounts: s.tenants, Ended: s.short, Providers: people, Credential: callers.Credential, Idle: s.cfg.SessionIdle, Life: s.cfg.SessionLife, Now: d.Now,
	})
	callers.Sessions = sessions
	s.sessions = sessions
	people.Use(sessions)
	s.streams.Callers = callers
	var buttons []*gatewayv1.SignInProvider
	for _, b := range people.Buttons() {
		buttons = append(buttons, &gatewayv1.SignInProvider{Id: b.ID, Name: b.Name})
	}
	s.server = server.New(server.Config{
		Tenants: s.tenants, Short: s.short, Sessions: sessions, Limiter: limiter, Activity: s.activity, Recorder: s.recorder, Pages: codec, Logger: d.Logger,
		Notifications: s.notes, Sender: s.sender, Checks: s.checks(w),
		SignIn: callers, Providers: people, Auth: authv1.NewAuthServiceClient(d.Auth), Webhook: webhookv1.NewWebhookServiceClient(d.Webhook),
		Repo: repov1.NewRepoServiceClient(d.Repo), Deployer: deployerv1.NewDeployerServiceClient(d.Deployer),
		LastEvent: s.hub.Last, Doctor: s.newDoctor(d),
		Info: &gatewayv1.Info{
			Version: s.cfg.Version, PublicUrl: s.cfg.PublicURL, Emulator: s.cfg.Emulator,
			BitbucketSiteUrl: s.cfg.BitbucketSiteURL, SignInProviders: buttons, WebhooksReachable: webhooksReachable(w.public, s.cfg.BitbucketSiteURL),
		},
		PublicURL: s.cfg.PublicURL, Now: d.Now,
	})
	if err := s.serveOwn(d); err != nil {
		return err
	}
	conn := func(c grpc.ClientConnInterface) rest.Conn {
		return rest.Conn{ClientConnInterface: c, Recorder: s.recorder, Now: d.Now}
	}
	renew := func(rw http.ResponseWriter, c caller.Caller) {
		if value, expire, err := sessions.Seal(c.Session); err == nil { // else the old cookie serves on
			cookies.Set(rw, value, expire, d.Now())
		}
		s.sessionUsed(c.Session)
	}
	deployer := deployerv1.NewDeployerServiceClient(conn(d.Deployer))
	objects := events.NewObjects(s.cfg.ObjectWait, events.Sources{
		Auth: authv1.NewAuthServiceClient(d.Auth), Webhook: webhookv1.NewWebhookServiceClient(d.Webhook), Deployer: deployerv1.NewDeployerServiceClient(d.Deployer),
	}.Read)
	api, err := rest.New(rest.Config{
		Callers: callers, Cookies: cookies, Renew: renew, Now: d.Now, Timeout: s.cfg.Timeout,
		Programs: ratelimit.New(d.Redis, s.cfg.ProgramRequestsPerMinute, d.Logger),
		Auth:     conn(d.Auth), Repo: conn(d.Repo), Webhook: conn(d.Webhook), Deployer: conn(d.Deployer), Gateway: conn(s.own),
		Events:         (&events.Handler{Hub: s.hub, Streams: s.streams, Callers: callers, Objects: objects}).Serve,
		Log:            (&logstream.Handler{Deployer: deployer, Streams: s.streams, Now: d.Now}).Serve,
		ActivityExport: (&activityexport.Handler{Gateway: gatewayv1.NewGatewayServiceClient(conn(s.own)), Streams: s.streams, Now: d.Now}).Serve,
	})
	if err != nil {
		return err
	}
	if d.Console == nil {
		d.Console = console.Embedded()
	}
	ui, err := console.New(d.Console, html, s.cfg.BitbucketSiteURL)
	if err != nil {
		return err
	}
	site := &site{
		ready: s.ready.Load, api: api, docs: apidocs.New(s.cfg.PublicURL), console: ui, badges: &badge.Handler{Deployer: deployerv1.NewDeployerServiceClient(d.Deployer)},
		pages: &pages.Handler{
			Pages: html, Callers: callers, Tenants: s.tenants, Auth: authv1.NewAuthServiceClient(conn(d.Auth)), Deployer: deployer,
			Renew: renew, Emulator: s.cfg.Emulator, Providers: people.Buttons(), LocalOwner: !s.cfg.LocalOwnerOff,
		},
		people: people,
		oauth:  &oauthpages.Handler{Auth: authv1.NewAuthServiceClient(conn(d.Auth)), Deployer: deployer, Callers: callers, Pages: html, Secure: secure},
	}
	s.handler, err = edge.Wrap(edge.Config{
		Logger: d.Logger, Registerer: d.Registerer, TracerProvider: d.TracerProvider,
		Hosts: w.hosts, Origins: w.origins, Proxies: w.proxies, Now: d.Now, Secure: secure,
	}, site)
	return err
}

// checks says what a notification target may be here.
func (s *Service) checks(w web) notify.Checks {
	return notify.Checks{Addresses: w.receivers, Mail: s.cfg.Mail.Host != ""}
}

func (s *Service) assembleNotifications(w web, d Deps, signer *identity.Signer) (err error) {
	s.notes, err = notify.NewStore(notify.StoreConfig{JS: d.JS, Keyset: d.Keyset, Logger: d.Logger, Registerer: d.Registerer, Now: d.Now})
	if err != nil {
		return err
	}
	s.sender = notify.NewSender(notify.SenderConfig{
		Store: s.notes, Addresses: w.receivers, SMTP: s.cfg.Mail, PublicURL: strings.TrimSuffix(s.cfg.PublicURL, "/"), Logger: d.Logger, Now: d.Now,
	})
	s.watcher = notify.NewWatcher(notify.WatcherConfig{
		Store: s.notes, JS: d.JS, Signer: signer, Keys: s.tenants, Logger: d.Logger, Now: d.Now,
		Auth: authv1.NewAuthServiceClient(d.Auth), Webhook: webhookv1.NewWebhookServiceClient(d.Webhook), Deployer: deployerv1.NewDeployerServiceClient(d.Deployer),
		PublicURL: s.cfg.PublicURL,
	})
	return nil
}

// serveOwn makes our own gRPC server and a connection to it: the same interceptors, deadlines and
// identities as between services.
func (s *Service) serveOwn(d Deps) (err error) {
	s.grpc, err = rpc.NewServer(rpc.ServerConfig{
		Service: identity.Gateway, Keys: d.Keys, Policy: Policy, Logger: d.Logger,
		Registerer: d.Registerer, TracerProvider: d.TracerProvider,
	})
	if err != nil {
		return err
	}
	s.server.Register(s.grpc)
	if err := rpc.CheckPolicy(s.grpc, Policy); err != nil {
		return err
	}
	s.own, err = rpc.Dial(rpc.ClientConfig{
		Service: identity.Gateway, TargetService: identity.Gateway, Keys: d.Keys, Logger: d.Logger,
		Registerer: d.Registerer, TracerProvider: d.TracerProvider,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) },
	})
	return err
}

// site sends a path to what serves it.
type site struct {
	ready   func() bool
	api     http.Handler
	docs    *apidocs.Handler
	console *console.Console
	badges  *badge.Handler
	pages   *pages.Handler
	oauth   *oauthpages.Handler
	people  *signin.Service
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case openapi.Serves(r.URL.Path):
		readOnly(w, r, openapi.Serve)
		return
	case apidocs.Serves(r.URL.Path):
		readOnly(w, r, s.docs.Serve)
		return
	}
	if !s.ready() {
		edge.Of(r.Context()).Route = "starting"
		edge.Fail(w, r, apierr.New(apierr.ReasonServiceUnavailable, "Devpilot is starting or stopping. Try again in a moment.", apierr.WithRetryAfter(time.Second)))
		return
	}
	switch r.URL.Path {
	case "/":
		if s.console.Built() {
			readOnly(w, r, s.console.ServePage)
			return
		}
		readOnly(w, r, s.pages.ServeHome)
	case server.LoginPage:
		readOnly(w, r, s.console.ServePage)
	case "/sign-in":
		readOnly(w, r, s.pages.ServeSignIn)
	case oauthpages.StartPath:
		readOnly(w, r, s.oauth.ServeStart)
	case oauthpages.CallbackPath:
		readOnly(w, r, s.oauth.ServeCallback)
	default:
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			s.api.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, signin.Prefix) && s.people.Serve(w, r):
		case strings.HasPrefix(r.URL.Path, badge.Prefix):
			readOnly(w, r, s.badges.Serve)
		case strings.HasPrefix(r.URL.Path, console.Prefix):
			readOnly(w, r, s.console.ServePage)
		case strings.HasPrefix(r.URL.Path, console.AssetPrefix):
			readOnly(w, r, s.console.ServeAsset)
		default:
			rest.NotFound(w, r)
		}
	}
}

// readOnly refuses methods that a page does not have. A HEAD must not spend a code: it is answered
// without the page.
func readOnly(w http.ResponseWriter, r *http.Request, page http.HandlerFunc) {
	switch {
	case r.Method == http.MethodGet:
		page(w, r)
	case r.Method == http.MethodHead && (openapi.Serves(r.URL.Path) || apidocs.Serves(r.URL.Path)):
		page(w, r)
	case r.Method == http.MethodHead:
		edge.Of(r.Context()).Route = "page"
		w.WriteHeader(http.StatusOK)
	default:
		edge.Of(r.Context()).Route = "method not allowed"
		w.Header().Set("Allow", "GET, HEAD")
		edge.Fail(w, r, apierr.New(apierr.ReasonMethodNotAllowed, "This address does not take the method. It takes: GET, HEAD."))
	}
}
