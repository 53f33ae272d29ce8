package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/openapi"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

type object = map[string]any

func parseDocument(t *testing.T) object {
	t.Helper()
	var doc object
	if err := json.Unmarshal(openapi.Document(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// strict forbids in every schema what it does not name, so that a field which the document lacks
// fails the test. Clients get the tolerant document.
func strict(v any) {
	switch v := v.(type) {
	case object:
		if _, ok := v["properties"]; ok {
			if _, said := v["additionalProperties"]; !said {
				v["additionalProperties"] = false
			}
		}
		for _, e := range v {
			strict(e)
		}
	case []any:
		for _, e := range v {
			strict(e)
		}
	}
}

// description is the strict document, with its schemas compiled on demand.
type description struct {
	doc      object
	compiler *jsonschema.Compiler
}

func describe(t *testing.T) *description {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi.Document()))
	if err != nil {
		t.Fatal(err)
	}
	doc := v.(object)
	strict(doc["components"])
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return &description{doc: doc, compiler: c}
}

var pointer = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B")

// check holds JSON against the schema at a place of the document.
func (d *description) check(raw []byte, place ...string) error {
	if at(d.doc, place...) == nil {
		return fmt.Errorf("the document has nothing at %q", place)
	}
	location := "openapi.json#"
	for _, p := range place {
		location += "/" + pointer.Replace(p)
	}
	schema, err := d.compiler.Compile(location)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// inDocument is how the document writes a template.
func inDocument(template string) string {
	return strings.NewReplacer("{app_id}", "{app}", "{api_key}", "{apiKey}", "{target_id}", "{target}", "{user_code}", "{userCode}").Replace(template)
}

// conform holds an answer, and where it was good the request's body too, against the document.
func (d *description) conform(t *testing.T, r routes.Route, a *answer, body string) {
	t.Helper()
	operation := []string{"paths", inDocument(r.Template), strings.ToLower(r.Method)}
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	var err error
	if a.status == http.StatusOK {
		if body != "" {
			if err := d.check([]byte(body), append(operation, "requestBody", "content", "application/json", "schema")...); err != nil {
				t.Errorf("%s: body %s: %v", a.what, body, err)
			}
		}
		err = d.check(a.body, append(operation, "responses", "200", "content", media, "schema")...)
	} else {
		if at(d.doc, append(operation, "responses", "default", "$ref")...) != "#/components/responses/Failure" {
			t.Errorf("%s: problems are not described", a.what)
		}
		err = d.check(a.body, "components", "responses", "Failure", "content", media, "schema")
	}
	if err != nil {
		t.Errorf("%s: answer %s: %v", a.what, a.body, err)
	}
}

// TestOpenAPI_isValid holds the document against the rules of OpenAPI 3.1 that generators of clients
// stumble over.
func TestOpenAPI_isValid(t *testing.T) {
	d := describe(t)
	if d.doc["openapi"] != "3.1.0" || at(d.doc, "info", "title") == "" || at(d.doc, "info", "version") == "" {
		t.Error("no version or title")
	}
	for _, ref := range refs(d.doc) {
		if at(d.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...) == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	}
	for name := range at(d.doc, "components", "schemas").(object) {
		if _, err := d.compiler.Compile("openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	tags := map[any]bool{}
	for _, tag := range d.doc["tags"].([]any) {
		tags[tag.(object)["name"]] = true
	}
	same := map[string]string{}
	variable := regexp.MustCompile(`\{([^}]*)\}`)
	for path, item := range at(d.doc, "paths").(object) {
		erased := variable.ReplaceAllString(path, "{}")
		if other, ok := same[erased]; ok {
			t.Errorf("%s and %s are one path", path, other)
		}
		same[erased] = path
		var vars []string
		for _, m := range variable.FindAllStringSubmatch(path, -1) {
			vars = append(vars, m[1])
		}
		for method, op := range item.(object) {
			checkOperation(t, d, strings.ToUpper(method)+" "+path, op.(object), vars, tags)
		}
	}
}

func checkOperation(t *testing.T, d *description, what string, op object, vars []string, tags map[any]bool) {
	t.Helper()
	params, _ := op["parameters"].([]any)
	var declared []string
	seen := map[string]bool{}
	for _, p := range params {
		param := p.(object)
		if ref, ok := param["$ref"].(string); ok {
			param = at(d.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...).(object)
		}
		key := fmt.Sprint(param["in"], " ", param["name"])
		if seen[key] || param["name"] == nil || param["schema"] == nil {
			t.Errorf("%s: parameter %s", what, key)
		}
		seen[key] = true
		if param["in"] == "path" {
			declared = append(declared, param["name"].(string))
			if param["required"] != true {
				t.Errorf("%s: %s is not required", what, key)
			}
		}
	}
	slices.Sort(declared)
	slices.Sort(vars)
	if !slices.Equal(declared, vars) {
		t.Errorf("%s: variables %v, declared %v", what, vars, declared)
	}
	responses, _ := op["responses"].(object)
	if len(responses) == 0 {
		t.Errorf("%s: no responses", what)
	}
	for status, r := range responses {
		if r.(object)["$ref"] == nil && r.(object)["description"] == nil {
			t.Errorf("%s: response %s has no description", what, status)
		}
	}
	for _, tag := range op["tags"].([]any) {
		if !tags[tag] {
			t.Errorf("%s: tag %v is not declared", what, tag)
		}
	}
	security, _ := op["security"].([]any)
	for _, need := range security {
		for scheme := range need.(object) {
			if at(d.doc, "components", "securitySchemes", scheme) == nil {
				t.Errorf("%s: no security scheme %s", what, scheme)
			}
		}
	}
}

func refs(v any) []string {
	var out []string
	switch v := v.(type) {
	case object:
		for k, e := range v {
			if ref, ok := e.(string); ok && k == "$ref" {
				out = append(out, ref)
			}
			out = append(out, refs(e)...)
		}
	case []any:
		for _, e := range v {
			out = append(out, refs(e)...)
		}
	}
	return out
}

func at(v any, path ...string) any {
	for _, p := range path {
		o, _ := v.(object)
		v = o[p]
	}
	return v
}

// TestOpenAPI_hasEveryRoute finds each route in the document, with its role and its reasons.
func TestOpenAPI_hasEveryRoute(t *testing.T) {
	doc := parseDocument(t)
	ids := map[string]bool{}
	for _, r := range routes.All() {
		op, _ := at(doc, "paths", inDocument(r.Template), strings.ToLower(r.Method)).(object)
		if op == nil {
			t.Errorf("%s %s is not in the document", r.Method, r.Template)
			continue
		}
		id, _ := op["operationId"].(string)
		if id == "" || ids[id] {
			t.Errorf("%s %s: operation id %q", r.Method, r.Template, id)
		}
		ids[id] = true
		if at(op, "responses", "default", "$ref") != "#/components/responses/Failure" {
			t.Errorf("%s: problems are not in the document", id)
		}
		if want := r.Role; want != identity.RoleNone && op["x-role"] != strings.ToUpper(want.String()) {
			t.Errorf("%s: role %v, not %s", id, op["x-role"], want)
		}
		if op["summary"] == "" {
			t.Errorf("%s: no summary", id)
		}
		reasons, _ := op["x-reasons"].([]any)
		for _, reason := range reasons {
			if _, ok := apierr.Lookup(apierr.Reason(reason.(string))); !ok {
				t.Errorf("%s: reason %v is not in the table", id, reason)
			}
		}
	}
	for _, path := range []string{"/oauth/bitbucket/start", "/oauth/bitbucket/callback", "/webhooks/bitbucket/{webhook}", "/openapi.json"} {
		if at(doc, "paths", path) == nil {
			t.Errorf("%s is not in the document", path)
		}
	}
	table, _ := at(doc, "components", "schemas", "Reason", "x-reasons").([]any)
	if len(table) != len(apierr.Table()) {
		t.Errorf("%d reasons in the document, %d in the table", len(table), len(apierr.Table()))
	}
}

// TestOpenAPI_answersConform asks every route for an answer with everything in it, one with nothing
// in it, and a failure, and holds them against the strict document.
func TestOpenAPI_answersConform(t *testing.T) {
	g := start(t, allowLoopback)
	d := describe(t)
	owner := g.key("default", "OWNER")
	receiver := newReceiver(t)
	for _, full := range []bool{true, false} {
		for _, r := range routes.All() {
			if r.Stream {
				continue
			}
			c := owner
			if strings.HasSuffix(r.RPC, "Code") || strings.HasSuffix(r.RPC, "/CreateWorkspace") || r.Browser || r.Operator {
				c = g.withToken(adminToken)
			}
			if takesSession(r) {
				c = g.signedIn()
			}
			path, body := pathOf(r, "default"), bodyOf(r)
			if r.List {
				path += "?pageSize=1"
				if strings.HasSuffix(r.RPC, "/ListIntegrations") || strings.HasSuffix(r.RPC, "/ListBitbucketWorkspaces") || strings.HasSuffix(r.RPC, "Sessions") || strings.HasSuffix(r.RPC, "/ListInvitations") {
					path = pathOf(r, "default")
				}
			}
			if strings.Contains(r.Template, "{target") {
				var made target
				owner.post("/v1/workspaces/default/notificationTargets", fmt.Sprintf(`{"target":{"kind":"WEBHOOK","label":"x","url":%q,"events":["CONNECTION"]}}`, receiver.url)).want(http.StatusOK).into(&made)
				path = strings.ReplaceAll(path, "0123456789abcdef", made.Target.ID)
			}
			if strings.HasSuffix(r.RPC, "/RunProof") {
				g.clock.forward(time.Minute)
			}
			if strings.HasSuffix(r.RPC, "/DeleteWorkspace") {
				c, path = g.withToken(adminToken), fmt.Sprintf("/v1/workspaces/gone-%v", full)
				g.workspace(fmt.Sprintf("gone-%v", full))
			}
			a := c.send(r.Method, path, body)
			noSuchKey, madeBefore := strings.HasSuffix(r.RPC, "/DeleteApiKey"), (strings.HasSuffix(r.RPC, "/CreateWorkspace") || strings.HasSuffix(r.RPC, "/ProveIntegration")) && !full
			nobody := strings.Contains(r.Template, "{member}") || strings.Contains(r.Template, "{session}") || strings.Contains(r.Template, "{invitation}") || takesSession(r) || strings.HasSuffix(r.RPC, "/RedeemLoginRequest")
			if a.status != http.StatusOK && !noSuchKey && !madeBefore && (!nobody || a.status != http.StatusNotFound) {
				t.Errorf("%s: %d %s", a.what, a.status, a.body)
			}
			d.conform(t, r, a, body)
			if r.Access == routes.Authenticated {
				d.conform(t, r, g.anybody().send(r.Method, path, body), "")
			}
			if full {
				teachEmpty(g, r)
			}
		}
	}
	create := routes.Route{Method: http.MethodPost, Template: "/v1/workspaces/{workspace}/apps"}
	d.conform(t, create, owner.post("/v1/workspaces/default/apps", `{"app":{"nope":1}}`), "")
}

// teachEmpty makes the route's service answer with nothing but the resource itself.
func teachEmpty(g *gate, r routes.Route) {
	service, method, _ := strings.Cut(strings.TrimPrefix(r.RPC, "/"), "/")
	f := map[string]*fake{
		"devpilot.auth.v1.AuthService": g.auth, "devpilot.repo.v1.RepoService": g.repo,
		"devpilot.webhook.v1.WebhookService": g.webhook, "devpilot.deployer.v1.DeployerService": g.deployer,
	}[service]
	if f == nil {
		return
	}
	for _, sd := range routes.Services() {
		m := sd.Methods().ByName(protoreflect.Name(method))
		if string(sd.FullName()) != service || m == nil {
			continue
		}
		f.on(method, func(context.Context, proto.Message) (proto.Message, error) {
			out := newMessage(g.t, m.Output())
			promised(out.ProtoReflect())
			fields := m.Output().Fields()
			for i := range fields.Len() {
				if fd := fields.Get(i); fd.Kind() == protoreflect.MessageKind && !fd.IsList() && !strings.HasSuffix(string(fd.Name()), "_time") {
					promised(out.ProtoReflect().Mutable(fd).Message())
				}
			}
			return out, nil
		})
	}
}

// promised sets the words and messages that an answer always has: no service leaves them out.
func promised(m protoreflect.Message) {
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch {
		case !routes.Always(fd) || fd.IsList() || fd.IsMap():
		case fd.Kind() == protoreflect.MessageKind:
			promised(m.Mutable(fd).Message())
		case fd.Kind() == protoreflect.EnumKind || fd.HasPresence():
			m.Set(fd, sample(fd))
		}
	}
}

func TestOpenAPI_isServed(t *testing.T) {
	g := start(t)
	a := g.anybody().get("/openapi.json").want(http.StatusOK)
	if !bytes.Equal(a.body, openapi.Document()) || a.header.Get("Content-Type") != "application/json" {
		t.Error("another document is served")
	}
	n := g.anybody().get("/openapi.json", with("If-None-Match", a.header.Get("ETag"))).want(http.StatusNotModified)
	if len(n.body) != 0 {
		t.Error("304 with a body")
	}
	if h := g.anybody().do(http.MethodHead, "/openapi.json", nil, with("Accept-Encoding", "gzip")).want(http.StatusOK); h.header.Get("ETag") != a.header.Get("ETag") {
		t.Error("HEAD differs")
	}
}

// TestOpenAPI_theCheckNotices makes sure that the check above can fail.
func TestOpenAPI_theCheckNotices(t *testing.T) {
	d := describe(t)
	place := []string{"paths", "/v1/info", "get", "responses", "200", "content", "application/json", "schema"}
	const good = `"publicUrl":"u","emulator":false,"bitbucketSiteUrl":"s","webhooksReachable":false,"time":"2026-11-22T14:15:16Z","signInProviders":[]}`
	if err := d.check([]byte(`{"version":"1",`+good), place...); err != nil {
		t.Errorf("a good answer: %v", err)
	}
	for name, body := range map[string]string{
		"a field that is not described": `{"version":"1","extra":1,` + good,
		"a field that is missing":       `{` + good,
		"a field of another type":       `{"version":1,` + good,
		"a time that is none":           strings.ReplaceAll(`{"version":"1",`+good, "2026-11-22T", ""),
	} {
		if d.check([]byte(body), place...) == nil {
			t.Errorf("%s went unnoticed", name)
		}
	}
}

// TestOpenAPI_logLinesConform holds each line of a log against the document.
func TestOpenAPI_logLinesConform(t *testing.T) {
	g := start(t)
	d := describe(t)
	g.deployer.onStream("ReadLog", threeLines)
	a := g.signedIn().get(logPath).want(http.StatusOK)
	for l := range strings.Lines(string(a.body)) {
		err := d.check([]byte(l), "paths", routes.LogTemplate, "get", "responses", "200", "content", "application/x-ndjson", "schema", "contentSchema")
		if err != nil {
			t.Errorf("%s: %v", l, err)
		}
	}
}
