// Package rest serves the public API: grpc-gateway's routes over gRPC connections to the services,
// with the caller's identity, the rules of DESIGN.md#the-api about bodies, queries, entity tags
// and problems, and the streams that the other packages serve.
//
// Each request that found its route goes through: who calls → role of today in the workspace of the
// path → signed identity → time limit → path, query and body held against the request message →
// If-Match → RPC → ETag.
//
// It depends on internal/routes, internal/caller, internal/ratelimit and internal/edge.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/ratelimit"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
	"devpilot.io/bitbucket/services/gateway/internal/server"
	"devpilot.io/bitbucket/services/gateway/internal/session"
)

// Stream serves one of the streams. The context has the identity of the caller.
type Stream func(w http.ResponseWriter, r *http.Request, params map[string]string)

// Config is what New needs.
type Config struct {
	Callers *caller.Authenticator
	Cookies session.Cookies
	Renew   func(w http.ResponseWriter, c caller.Caller) // gives a used session a new cookie
	Now     func() time.Time
	// Timeout bounds a request that is not a stream.
	Timeout time.Duration
	// Programs bounds what keys and tokens send; nil: nothing does.
	Programs *ratelimit.Limiter
	// Table are the routes; nil: those that there are.
	Table *routes.Table
	// The connections to the services; Gateway leads to our own.
	Auth, Repo, Webhook, Deployer, Gateway Conn
	Events, Log, ActivityExport            Stream
}

// API is the handler of /v1.
type API struct {
	cfg   Config
	table *routes.Table
	mux   *runtime.ServeMux
}

// New registers all routes.
func New(cfg Config) (*API, error) {
	a := &API{cfg: cfg, table: cfg.Table}
	if a.table == nil {
		a.table = routes.NewTable()
	}
	none := func(string) (string, bool) { return "", false }
	a.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &marshaler{}),
		runtime.WithErrorHandler(a.rpcFailed),
		runtime.WithRoutingErrorHandler(a.noRoute),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithMetadata(forOurselves),
		runtime.WithForwardResponseOption(a.sessionCookie),
		runtime.WithForwardResponseOption(noteRevision),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithMiddlewares(a.middleware),
	)
	ctx := context.Background() // only kept by grpc-gateway's other way of registering
	for _, register := range []func() error{
		func() error {
			return gatewayv1.RegisterGatewayServiceHandlerClient(ctx, a.mux, gatewayv1.NewGatewayServiceClient(cfg.Gateway))
		},
		func() error {
			return authv1.RegisterAuthServiceHandlerClient(ctx, a.mux, authv1.NewAuthServiceClient(cfg.Auth))
		},
		func() error {
			return repov1.RegisterRepoServiceHandlerClient(ctx, a.mux, repov1.NewRepoServiceClient(cfg.Repo))
		},
		func() error {
			return webhookv1.RegisterWebhookServiceHandlerClient(ctx, a.mux, webhookv1.NewWebhookServiceClient(cfg.Webhook))
		},
		func() error {
			return deployerv1.RegisterDeployerServiceHandlerClient(ctx, a.mux, deployerv1.NewDeployerServiceClient(cfg.Deployer))
		},
		func() error { return a.mux.HandlePath(http.MethodGet, routes.EventsTemplate, stream(cfg.Events)) },
		func() error { return a.mux.HandlePath(http.MethodGet, routes.LogTemplate, stream(cfg.Log)) },
		func() error {
			return a.mux.HandlePath(http.MethodGet, routes.ActivityExportTemplate, stream(cfg.ActivityExport))
		},
	} {
		if err := register(); err != nil {
			return nil, fmt.Errorf("rest: register routes: %w", err)
		}
	}
	return a, nil
}

func stream(s Stream) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) { s(w, r, params) }
}

// ServeHTTP implements http.Handler. A HEAD is a GET whose body net/http leaves out; streams have
// none.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead && !strings.HasSuffix(r.URL.Path, "/events") && !strings.HasSuffix(r.URL.Path, "/log") && !strings.HasSuffix(r.URL.Path, "/activity:export") {
		get := *r
		get.Method = http.MethodGet
		r = &get
	}
	a.mux.ServeHTTP(w, r)
}

// middleware is what happens between a request that found its route and its RPC.
func (a *API) middleware(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		route, ok := a.table.Find(r.Method, pattern.String())
		if !ok {
			edge.Fail(w, r, fmt.Errorf("rest: no route %s %s", r.Method, pattern))
			return
		}
		for _, v := range params {
			if v == "" { // grpc-gateway takes it for a value
				NotFound(w, r)
				return
			}
		}
		if a.table.IsVerb(r.URL.Path) && !route.HasVerb() { // grpc-gateway takes web:rollback for an id
			a.methodNotAllowed(w, r)
			return
		}
		edge.Of(r.Context()).Route = route.Template
		if route.Deprecated != nil {
			route.Deprecated.Write(w.Header(), referencePath+route.OperationID())
		}
		if err := checkText(params, r.Header, route); err != nil {
			edge.Fail(w, r, err)
			return
		}
		ctx, err := a.identify(w, r, route, params["workspace"])
		if err != nil {
			edge.Fail(w, r, err)
			return
		}
		if route.Stream {
			next(w, clean(ctx, r, nil), params)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithValue(ctx, routeKey{}, route), a.cfg.Timeout)
		defer cancel()
		body, ctx, err := a.check(w, r.WithContext(ctx), route, params)
		if err != nil {
			edge.Fail(w, r, err)
			return
		}
		if r.Method != http.MethodGet {
			next(w, clean(ctx, r, body), params)
			return
		}
		h := &held{ResponseWriter: w}
		next(h, clean(ctx, r, nil), params)
		h.send(r)
	}
}

type routeKey struct{}

// referencePath is where an operation's page is (internal/apidocs, which depends on this package).
const referencePath = "/docs/api/"

// identify says who calls and signs it, unless the route is open to everybody.
func (a *API) identify(w http.ResponseWriter, r *http.Request, route routes.Route, workspace string) (context.Context, error) {
	ctx := r.Context()
	if route.Access == routes.Public {
		return ctx, nil
	}
	c, err := a.cfg.Callers.Authenticate(r)
	if err != nil {
		if route.Access == routes.Optional && apierr.Has(err, apierr.ReasonUnauthenticated) {
			return ctx, nil
		}
		return nil, err
	}
	note := edge.Of(ctx)
	note.Subject = c.Subject
	if c.Kind == identity.SubjectAPIKey || c.Kind == identity.SubjectOIDCToken {
		if err := a.cfg.Programs.Take(ctx, w.Header(), c.Subject); err != nil {
			return nil, err
		}
	}
	identify := a.cfg.Callers.Identify
	switch {
	case route.Closed:
		identify = a.cfg.Callers.IdentifyClosed
	case route.Operator:
		identify = a.cfg.Callers.IdentifyOperator
	}
	ctx, err = identify(ctx, c, workspace)
	if err != nil {
		return nil, err
	}
	note.Workspace = workspace
	if c.Session.Renew && route.Access == routes.Authenticated {
		a.cfg.Renew(w, c)
	}
	return ctx, nil
}

// check holds a request against its route. All that is wrong with it is told at once.
func (a *API) check(w http.ResponseWriter, r *http.Request, route routes.Route, params map[string]string) ([]byte, context.Context, error) {
	var faults apierr.Faults
	checkPath(params, route, &faults)
	query, err := ParseQuery(r.URL.RawQuery, &faults)
	if err != nil {
		return nil, nil, err
	}
	CheckQuery(query, route, &faults)
	body, object, err := readBody(w, r, route, &faults)
	if err != nil {
		return nil, nil, err
	}
	ctx := withIfMatch(r.Context(), r, route, &faults)
	ctx = withMask(ctx, query, object, route, &faults)
	if err := faults.Err(); err == nil || !canDryRun(route) {
		return body, ctx, err
	}
	if body, err = json.Marshal(object); err != nil {
		return nil, nil, err
	}
	return body, withDryRun(ctx, dryRun{&faults, route}), nil
}

// clean is the request as grpc-gateway gets it: without the headers that it would turn into gRPC
// metadata or obey, credentials first of all, and without the mask, which goes its own way.
func clean(ctx context.Context, r *http.Request, body []byte) *http.Request {
	c := r.WithContext(ctx)
	c.Header = http.Header{"Content-Type": {"application/json"}}
	for _, keep := range []string{"Accept", "Last-Event-Id", "User-Agent"} {
		if v := r.Header.Values(keep); len(v) > 0 {
			c.Header[keep] = v
		}
	}
	query := r.URL.Query()
	_, asks := ctx.Value(dryRunKey{}).(dryRun)
	if asks || query.Has(maskParam) {
		query.Del(maskParam)
		u := *r.URL
		if u.RawQuery = query.Encode(); asks {
			u.RawQuery = "" // it may be what is wrong
		}
		c.URL = &u
	}
	c.Body = io.NopCloser(bytes.NewReader(body))
	c.ContentLength = int64(len(body))
	return c
}

// forOurselves hands our own service what it needs of the HTTP request and its session.
func forOurselves(ctx context.Context, r *http.Request) metadata.MD {
	if full, _ := runtime.RPCMethod(ctx); !strings.HasPrefix(full, "/"+gatewayv1.GatewayService_ServiceDesc.ServiceName+"/") {
		return nil
	}
	md := server.CallMetadata{ClientAddress: edge.ClientAddress(ctx), UserAgent: r.Header.Get("User-Agent")}
	if c, ok := caller.From(ctx); ok {
		md.SessionID, md.SessionExpire = c.Session.ID, c.Session.ExpireTime
	}
	return md.Encode()
}

// sessionCookie sets or clears the cookie where our own service says so.
func (a *API) sessionCookie(ctx context.Context, w http.ResponseWriter, _ proto.Message) error {
	md, ok := runtime.ServerMetadataFromContext(ctx)
	if !ok {
		return nil
	}
	value, expire, clear := server.CookieOf(md.HeaderMD)
	switch {
	case clear:
		a.cfg.Cookies.Clear(w)
	case value != "":
		a.cfg.Cookies.Set(w, value, expire, a.cfg.Now())
	}
	return nil
}

func (a *API) rpcFailed(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if route, ok := r.Context().Value(routeKey{}).(routes.Route); ok {
		err = inBody(err, route)
	}
	edge.Fail(w, r, err)
}

// inBody names the fields of a service's error as the request that was sent has them: services know
// the whole message, of which the body may be one field.
func inBody(err error, route routes.Route) error {
	e := apierr.From(err)
	if len(e.Fields()) == 0 {
		return err
	}
	return e.Renamed(func(name string) string {
		if inside, ok := strings.CutPrefix(name, route.Body+"."); ok && route.Body != "*" && route.Body != "" {
			return inside
		}
		for _, of := range route.PathFields() {
			if f := route.Input.Fields().ByName(protoreflect.Name(of)); f != nil && f.JSONName() == name {
				return route.PathName(of)
			}
		}
		return name
	})
}

// noRoute answers what found no route, also a path that is not one.
func (a *API) noRoute(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	switch status {
	case http.StatusMethodNotAllowed:
		a.methodNotAllowed(w, r)
	case http.StatusBadRequest:
		edge.Fail(w, r, apierr.New(apierr.ReasonInvalidArgument, "The path cannot be read."))
	default:
		NotFound(w, r)
	}
}

func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allowed := strings.Join(a.table.Allowed(r.URL.Path), ", ")
	if allowed == "" { // grpc-gateway takes nothing for the value of a variable
		NotFound(w, r)
		return
	}
	w.Header().Set("Allow", allowed)
	edge.Of(r.Context()).Route = "method not allowed"
	edge.Fail(w, r, apierr.Newf(apierr.ReasonMethodNotAllowed, "This address does not take the method. It takes: %s.", allowed))
}

// NotFound answers an unknown path.
func NotFound(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = "not found"
	edge.Fail(w, r, apierr.New(apierr.ReasonNotFound, "There is nothing at this address. The API is described at /openapi.json."))
}
