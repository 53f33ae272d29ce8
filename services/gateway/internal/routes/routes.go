// Package routes knows the public API: which HTTP method and path is which RPC, what role it needs,
// and what it is called in the activity list. The routes come from the protos; the roles and words
// are tables that a test holds against the protos, so that an RPC cannot be added without both.
//
// It depends on the generated protos only.
package routes

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"devpilot.io/bitbucket/pkg/identity"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// The streams, which grpc-gateway does not serve.
const (
	EventsTemplate = "/v1/workspaces/{workspace}/events"
	LogTemplate    = "/v1/workspaces/{workspace}/apps/{app}/deployments/{number}/log"
	// ActivityExportTemplate is the activity list as a file.
	ActivityExportTemplate = "/v1/workspaces/{workspace}/activity:export"
)

// Access says who may use a route.
type Access int

// The kinds of access.
const (
	// Authenticated is everybody with credentials; inside a workspace, its members of at least the
	// role.
	Authenticated Access = iota
	// Public is everybody; credentials are not read.
	Public
	// Optional is everybody; credentials are used when they are good.
	Optional
)

// Route is one HTTP method and path.
type Route struct {
	Method     string // HTTP
	Template   string // such as /v1/workspaces/{workspace}/apps/{app}
	RPC        string // full method; ReadLog for the log, empty for the events
	Input      protoreflect.MessageDescriptor
	Body       string // "" no body, "*" the whole request, or the field that the body is
	Access     Access
	Role       identity.Role // within the workspace of the path; RoleNone where there is none
	OfApps     bool          // answers a program that is limited to some apps with what these have
	Browser    bool          // no program can, whatever its scope
	NoTokens   bool          // tokens of identity providers cannot, whatever their scope
	NoPrograms bool          // for people, or the admin token
	Operator   bool          // about the whole installation: for its operators alone
	Closed     bool          // also of a workspace that is being deleted, or is
	ReadOnly   bool
	List       bool         // a page of a list: answers carry an ETag of their content
	Stream     bool         // does not end by itself, or not soon
	Deprecated *Deprecation // nil: it stays
}

// PathFields are the names of the template's variables, as in the proto.
func (r Route) PathFields() []string {
	var names []string
	for part := range strings.SplitSeq(r.Template, "{") {
		if name, _, ok := strings.Cut(part, "}"); ok {
			names = append(names, name)
		}
	}
	return names
}

// pathNames are the variables that protos spell in another way than the paths of their neighbours: in
// public one address has one spelling.
var pathNames = map[string]string{"app_id": "app", "api_key": "apiKey", "target_id": "target", "user_code": "userCode"}

// PathName is the public name of one of the template's variables.
func (r Route) PathName(variable string) string {
	if name, ok := pathNames[variable]; ok {
		return name
	}
	return variable
}

// Public is the template with the public names.
func (r Route) Public() string {
	public := r.Template
	for from, to := range pathNames {
		public = strings.ReplaceAll(public, "{"+from+"}", "{"+to+"}")
	}
	return public
}

// TakesETag tells whether the request can be made to depend on an etag: it has that field, or it
// changes a resource that has.
func (r Route) TakesETag() bool {
	if r.ReadOnly || r.Input == nil {
		return false
	}
	fields := r.Input.Fields()
	if fields.ByName("etag") != nil {
		return true
	}
	if r.Method != http.MethodPatch || r.Body == "" || r.Body == "*" {
		return false
	}
	resource := fields.ByName(protoreflect.Name(r.Body)).Message()
	return resource != nil && resource.Fields().ByName("etag") != nil
}

// Scope is what a program's credential must have.
func (r Route) Scope() identity.Scope {
	return cmp.Or(scopes[r.RPC], identity.ScopeOf(r.Role, r.ReadOnly))
}

// NamesApp tells whether the request is about one app, which it names.
func (r Route) NamesApp() bool {
	return strings.Contains(r.Template, "{app}") || strings.Contains(r.Template, "{app_id}") || r.RPC == deployerv1.DeployerService_CreateApp_FullMethodName
}

// HasVerb tells whether the template ends in a verb, such as :cancel.
func (r Route) HasVerb() bool { return strings.Contains(r.Template, ":") }

// Services lists the descriptors of the services that the API is made of.
func Services() []protoreflect.ServiceDescriptor {
	return []protoreflect.ServiceDescriptor{
		gatewayv1.File_devpilot_gateway_v1_gateway_service_proto.Services().Get(0),
		authv1.File_devpilot_auth_v1_auth_service_proto.Services().Get(0),
		repov1.File_devpilot_repo_v1_repo_service_proto.Services().Get(0),
		deployerv1.File_devpilot_deployer_v1_deployer_service_proto.Services().Get(0),
		webhookv1.File_devpilot_webhook_v1_webhook_service_proto.Services().Get(0),
	}
}

// All lists the routes: those of the protos and the streams.
func All() []Route {
	var all []Route
	for _, s := range Services() {
		for i := range s.Methods().Len() {
			all = append(all, ofMethod(s.Methods().Get(i))...)
		}
	}
	return deprecate(append(all,
		Route{
			Method: http.MethodGet, Template: EventsTemplate, Role: identity.RoleMember, ReadOnly: true, Stream: true, OfApps: true,
		},
		Route{
			Method: http.MethodGet, Template: LogTemplate, Role: identity.RoleMember, ReadOnly: true, Stream: true,
			RPC: deployerv1.DeployerService_ReadLog_FullMethodName, Input: (&deployerv1.ReadLogRequest{}).ProtoReflect().Descriptor(),
		},
		Route{
			Method: http.MethodGet, Template: ActivityExportTemplate, Role: roles[gatewayv1.GatewayService_ListActivity_FullMethodName], ReadOnly: true, Stream: true,
			RPC: gatewayv1.GatewayService_ListActivity_FullMethodName, Input: (&gatewayv1.ListActivityRequest{}).ProtoReflect().Descriptor(),
		},
	), deprecated)
}

// FullMethod is "/package.Service/Method".
func FullMethod(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
}

func ofMethod(m protoreflect.MethodDescriptor) []Route {
	rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return nil
	}
	var out []Route
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		full := FullMethod(m)
		route := Route{
			RPC: full, Input: m.Input(), Body: r.GetBody(), Access: access[full], Role: roles[full], OfApps: ofApps[full], Browser: browser[full], NoTokens: noTokens[full], NoPrograms: noPrograms[full], Operator: operator[full], Closed: closed[full],
			ReadOnly: readOnly(m), List: strings.HasPrefix(string(m.Name()), "List"),
		}
		switch p := r.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			route.Method, route.Template = http.MethodGet, p.Get
		case *annotations.HttpRule_Post:
			route.Method, route.Template = http.MethodPost, p.Post
		case *annotations.HttpRule_Patch:
			route.Method, route.Template = http.MethodPatch, p.Patch
		case *annotations.HttpRule_Put:
			route.Method, route.Template = http.MethodPut, p.Put
		case *annotations.HttpRule_Delete:
			route.Method, route.Template = http.MethodDelete, p.Delete
		default:
			panic(fmt.Sprintf("routes: %s has a custom HTTP method", full)) // a mistake in a proto, seen by every test
		}
		out = append(out, route)
	}
	return out
}

func readOnly(m protoreflect.MethodDescriptor) bool {
	o, ok := m.Options().(*descriptorpb.MethodOptions)
	return ok && o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// Table finds routes. It is immutable.
type Table struct {
	byPattern map[string]Route
	all       []Route
}

// NewTable makes the table of All.
func NewTable() *Table { return tableOf(All()) }

// NewTableWith is NewTable with other calls that are to go: for tests.
func NewTableWith(deprecated map[string]Deprecation) *Table {
	return tableOf(deprecate(All(), deprecated))
}

func tableOf(all []Route) *Table {
	t := &Table{byPattern: map[string]Route{}, all: all}
	for _, r := range t.all {
		t.byPattern[r.Method+" "+r.Template] = r
	}
	return t
}

// Find returns the route of a method and a pattern as grpc-gateway prints it, in which a variable
// is {name=*}.
func (t *Table) Find(method, pattern string) (Route, bool) {
	r, ok := t.byPattern[method+" "+strings.ReplaceAll(pattern, "=*}", "}")]
	return r, ok
}

// IsVerb tells whether a path is an address that ends in a verb, whatever the method.
func (t *Table) IsVerb(path string) bool {
	return strings.Contains(path, ":") && slices.ContainsFunc(t.all, func(r Route) bool { return r.HasVerb() && matches(r.Template, path) })
}

// Allowed lists the methods that a path has, sorted: for the Allow header. An address that ends in a
// verb is no resource whose id has a colon.
func (t *Table) Allowed(path string) []string {
	var methods []string
	verb := t.IsVerb(path)
	for _, r := range t.all {
		if !matches(r.Template, path) || verb != r.HasVerb() {
			continue
		}
		methods = append(methods, r.Method)
		if r.Method == http.MethodGet && !r.Stream {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// matches says whether the path is one of the template's: segment by segment, with the verb apart.
func matches(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		segment, verb, hasVerb := strings.Cut(want[i], ":")
		value := got[i]
		if hasVerb {
			var ok bool
			if value, ok = strings.CutSuffix(value, ":"+verb); !ok {
				return false
			}
		}
		if strings.HasPrefix(segment, "{") {
			if value == "" {
				return false
			}
			continue
		}
		if segment != value {
			return false
		}
	}
	return true
}
