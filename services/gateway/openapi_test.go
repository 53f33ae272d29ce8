package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
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

// newValidator makes one of the strict document; the server's address is the test's.
func newValidator(t *testing.T, url string) validator.Validator {
	t.Helper()
	doc := parseDocument(t)
	strict(doc["components"])
	doc["servers"] = []any{object{"url": url}}
	paths := object{}
	for path, item := range at(doc, "paths").(object) {
		paths[strings.ReplaceAll(path, "}:", "}/-")] = item
	}
	doc["paths"] = paths
	delete(doc, "security") // credentials have tests of their own
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := libopenapi.NewDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(parsed)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return v
}

// verb is one after a variable: the validator knows only whole segments as variables, so that both
// the document and the requests show it as a segment of its own.
var verb = regexp.MustCompile(`/(webhooks/[^/:]+|deliveries/[^/:]+):(\w+)$`)

// conform holds an answer, and where it was good the request too, against the document.
func conform(t *testing.T, v validator.Validator, a *answer, body string) {
	t.Helper()
	req := a.req.Clone(context.Background())
	req.URL.Path = verb.ReplaceAllString(req.URL.Path, "/$1/-$2")
	req.Header.Set("Content-Type", "application/json")
	req.Body = io.NopCloser(strings.NewReader(body))
	if a.status == http.StatusOK {
		if ok, errs := v.ValidateHttpRequest(req); !ok {
			for _, e := range errs {
				t.Errorf("%s: request: %s: %s %v", a.what, e.Message, e.Reason, e.SchemaValidationErrors)
			}
		}
		req.Body = io.NopCloser(strings.NewReader(body))
	}
	resp := &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), Request: req}
	if ok, errs := v.ValidateHttpResponse(req, resp); !ok {
		for _, e := range errs {
			t.Errorf("%s: answer %s: %s: %s %v", a.what, a.body, e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
}

func TestOpenAPI_isValid(t *testing.T) {
	doc, err := libopenapi.NewDocument(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, problems := v.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("%s: %s %v", p.Message, p.Reason, p.SchemaValidationErrors)
		}
	}
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
	rename := strings.NewReplacer("{app_id}", "{app}", "{api_key}", "{apiKey}")
	ids := map[string]bool{}
	for _, r := range routes.All() {
		op, _ := at(doc, "paths", rename.Replace(r.Template), strings.ToLower(r.Method)).(object)
		if op == nil {
			t.Errorf("%s %s is not in the document", r.Method, r.Template)
			continue
		}
		id, _ := op["operationId"].(string)
		if id == "" || ids[id] {
			t.Errorf("%s %s: operation id %q", r.Method, r.Template, id)
		}
		ids[id] = true
		if at(op, "responses", "default", "$ref") != "#/components/responses/Problem" {
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
	g := start(t)
	v := newValidator(t, g.url)
	owner := g.key("default", "OWNER")
	for _, full := range []bool{true, false} {
		for _, r := range routes.All() {
			if r.Stream {
				continue
			}
			c := owner
			if strings.HasSuffix(r.RPC, "Code") || strings.HasSuffix(r.RPC, "/CreateWorkspace") {
				c = g.withToken(adminToken)
			}
			path, body := pathOf(r, "default"), bodyOf(r)
			if r.List {
				path += "?pageSize=1"
				if strings.HasSuffix(r.RPC, "/ListIntegrations") {
					path = pathOf(r, "default")
				}
			}
			a := c.send(r.Method, path, body)
			noSuchKey, madeBefore := strings.HasSuffix(r.RPC, "/DeleteApiKey"), strings.HasSuffix(r.RPC, "/CreateWorkspace") && !full
			if a.status != http.StatusOK && !noSuchKey && !madeBefore {
				t.Errorf("%s: %d %s", a.what, a.status, a.body)
			}
			conform(t, v, a, body)
			if r.Access == routes.Authenticated {
				conform(t, v, g.anybody().send(r.Method, path, body), body)
			}
			if full {
				teachEmpty(g, r)
			}
		}
	}
	conform(t, v, owner.post("/v1/workspaces/default/apps", `{"app":{"nope":1}}`), "")
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
			fields := m.Output().Fields()
			for i := range fields.Len() {
				if fd := fields.Get(i); fd.Kind() == protoreflect.MessageKind && !fd.IsList() && !strings.HasSuffix(string(fd.Name()), "_time") {
					out.ProtoReflect().Mutable(fd)
				}
			}
			return out, nil
		})
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
	if h := g.anybody().do(http.MethodHead, "/openapi.json", nil).want(http.StatusOK); h.header.Get("ETag") != a.header.Get("ETag") {
		t.Error("HEAD differs")
	}
}

// TestOpenAPI_theCheckNotices makes sure that the check above can fail.
func TestOpenAPI_theCheckNotices(t *testing.T) {
	v := newValidator(t, "http://127.0.0.1")
	for name, body := range map[string]string{
		"a field that is not described": `{"version":"1","publicUrl":"u","emulator":false,"bitbucketSiteUrl":"s","webhooksReachable":false,"time":"2026-11-22T14:15:16Z","extra":1}`,
		"a field that is missing":       `{"publicUrl":"u","emulator":false,"bitbucketSiteUrl":"s","webhooksReachable":false}`,
		"a field of another type":       `{"version":1,"publicUrl":"u","emulator":false,"bitbucketSiteUrl":"s","webhooksReachable":false}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/v1/info", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: req}
		if ok, _ := v.ValidateHttpResponse(req, resp); ok {
			t.Errorf("%s went unnoticed", name)
		}
	}
}
