package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestLimits_areThoseOfTheDocument sends, for each limit that the document has of what is sent,
// something just beyond it, which must be refused by the field's name, and where one value can be made
// to reach it exactly, that, which must not.
func TestLimits_areThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	s := &shared{stack: startInProcess(t), planted: map[string]string{}}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	n := s.tenant(t, "limits")
	repo := s.site().repository(t, "limits", "site")
	n.app("web", repo, "main")
	target := n.api.must("POST", n.path("/notificationTargets"), object{"target": object{
		"kind": "WEBHOOK", "label": "Chat", "url": "https://hooks.example.com/path", "events": []string{"CONNECTION"},
	}})
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	requests := limitedRequests(repo.id)
	tried := 0
	for path, item := range d.doc["paths"].(object) {
		for method, op := range item.(object) {
			id := fmt.Sprint(dig(op, "operationId"))
			schema, _ := dig(op, "requestBody", "content", "application/json", "schema").(object)
			l := limited{t: t, d: d, n: n, method: strings.ToUpper(method), id: id}
			l.path = strings.NewReplacer("{workspace}", "limits", "{app}", "web", "{number}", "1", "{webhook}", "w", "{delivery}", "1", "{target}", fmt.Sprint(dig(target, "target", "id"))).Replace(path)
			good, known := requests[id]
			delete(requests, id)
			l.walk(schema, nil, func(at []any, limit string, beyond, just any) {
				if !known {
					t.Errorf("%s limits %v: give this test a body of it", id, at)
					return
				}
				tried++
				l.try(good, at, limit, beyond, just)
			})
		}
	}
	if tried < 40 || len(requests) > 0 {
		t.Errorf("%d limits tried, and none of %v", tried, slices.Collect(maps.Keys(requests)))
	}
}

// limitedRequests are good bodies, with one of each list in them, that change nothing; or of which only
// the bad ones are sent.
func limitedRequests(repository string) map[string]string {
	app := `"branch":"main","retention":3,"sharedPaths":["uploads/"],
		"hooks":[{"name":"build","stage":"POST_SETUP","command":"true","priority":1,"timeoutSeconds":60}],
		"variables":[{"name":"A","value":"b","branches":"main"}],
		"rules":{"tags":["v*"],"paths":["web/**"],"pathsIgnore":["docs/**"],"skip":{"phrases":["[no deploy]"]}},
		"source":{"submoduleWorkspaces":["acme-libs"]}`
	target := `"label":"Chat","url":"https://hooks.example.com/path","events":["CONNECTION"],"apps":["web"],"recipients":["a@example.com"],"behindMinutes":30,
		"quietHours":{"start":"22:00","end":"07:00"}`
	again := `{"requestId":"once"}`
	return map[string]string{
		"createApp":                `{"appId":"other","validateOnly":true,"requestId":"once","app":{"repository":"` + repository + `",` + app + `}}`,
		"updateApp":                `{"repository":"` + repository + `",` + app + `}`,
		"checkPush":                `{"branch":"main","rules":{"tags":["v*"],"paths":["web/**"],"pathsIgnore":["docs/**"],"skip":{"phrases":["[no deploy]"]}}}`,
		"createWorkspace":          `{"workspaceId":"limits-2","displayName":"Limits","requestId":"once","validateOnly":true}`,
		"updateWorkspace":          `{"displayName":"Limits"}`,
		"createLoginRequest":       `{"clientName":"laptop"}`,
		"createApiKey":             `{"label":"CI","apps":["web"],"requestId":"once","validateOnly":true}`,
		"createNotificationTarget": `{"validateOnly":true,"target":{"kind":"WEBHOOK",` + target + `}}`,
		"updateNotificationTarget": `{` + target + `}`,
		"narrowIntegration":        `{"bitbucketWorkspaces":[{"id":"c7e5b1a8-3f0d-4b5e-9a43-5d2f7f9a1c10"}]}`,
		"createDeployment":         again, "redeployDeployment": again, "rollBackApp": again, "replayDelivery": again,
	}
}

// limited is an operation whose limits are tried.
type limited struct {
	t                *testing.T
	d                *document
	n                *tenant // its workspace
	method, id, path string
}

// walk finds the limits of a schema and of what it is made of.
func (l limited) walk(schema object, at []any, each func(at []any, limit string, beyond, just any)) {
	if ref, ok := schema["$ref"].(string); ok {
		schema = dig(l.d.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...).(object)
	}
	number := func(key string) (int, bool) {
		v, ok := schema[key].(json.Number)
		if !ok {
			return 0, false
		}
		n, err := v.Int64()
		return int(n), err == nil
	}
	if n, ok := number("maxLength"); ok {
		each(at, "maxLength", strings.Repeat("x", n+1), strings.Repeat("x", n))
	}
	if n, ok := number("minLength"); ok {
		each(at, "minLength", strings.Repeat("x", n-1), strings.Repeat("x", n))
	}
	if n, ok := number("maximum"); ok {
		each(at, "maximum", n+1, n)
	}
	if n, ok := number("minimum"); ok {
		each(at, "minimum", n-1, n)
	}
	if n, ok := number("maxItems"); ok {
		each(at, "maxItems", n+1, nil)
	}
	if _, ok := number("minItems"); ok {
		each(at, "minItems", []any{}, nil)
	}
	if _, ok := schema["pattern"]; ok {
		each(at, "pattern", "Not So!", nil)
	}
	properties, _ := schema["properties"].(object)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		l.walk(properties[name].(object), append(slices.Clone(at), name), each)
	}
	if items, ok := schema["items"].(object); ok {
		l.walk(items, append(slices.Clone(at), 0), each)
	}
}

func (l limited) try(good string, at []any, limit string, beyond, just any) {
	name := fieldName(at)
	if limit == "maxItems" {
		list, _ := pick(parsed(good), at...).([]any)
		if len(list) == 0 {
			l.t.Errorf("%s limits the list %s: give this test a body that has one in it", l.id, name)
			return
		}
		beyond = slices.Repeat(list[:1], beyond.(int))
	}
	status, p := l.send(with(parsed(good), beyond, at...))
	if status != http.StatusBadRequest || !names(p, name) {
		l.t.Errorf("%s: %s beyond its %s: %d %s %v", l.id, name, limit, status, p.Reason, p.Fields)
	}
	if just == nil || strings.HasSuffix(name, "url") || strings.HasSuffix(name, "requestId") {
		return // cannot be made of x alone, or would do something
	}
	if status, p := l.send(with(parsed(good), just, at...)); status == http.StatusBadRequest && names(p, name) {
		l.t.Errorf("%s: %s at its %s: %d %s %v", l.id, name, limit, status, p.Reason, p.Fields)
	}
}

func (l limited) send(body any) (int, *problem) {
	path := l.path
	if l.method == http.MethodPatch {
		path += "?validateOnly=true"
	}
	p := l.n.api.do(l.method, path, body, nil)
	if p == nil {
		return http.StatusOK, &problem{}
	}
	return p.Status, p
}

// fieldName is how a problem names a place of a body.
func fieldName(at []any) string {
	var b strings.Builder
	for _, step := range at {
		switch step := step.(type) {
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(step)
		case int:
			fmt.Fprintf(&b, "[%d]", step)
		}
	}
	return b.String()
}

// names tells whether a problem is about a field, or about the list that it is of or one in it.
func names(p *problem, field string) bool {
	for _, f := range p.Fields {
		if strings.HasPrefix(f.Name, field) || strings.TrimSuffix(field, "[0]") == f.Name {
			return true
		}
	}
	return false
}

func parsed(body string) any {
	var v any
	if err := json.NewDecoder(bytes.NewBufferString(body)).Decode(&v); err != nil {
		panic(err) // it is this file's
	}
	return v
}

func pick(v any, at ...any) any {
	for _, step := range at {
		switch step := step.(type) {
		case string:
			v = v.(object)[step]
		case int:
			v = v.([]any)[step]
		}
	}
	return v
}

// with puts a value at a place of a body.
func with(v, value any, at ...any) any {
	switch step := at[len(at)-1].(type) {
	case string:
		pick(v, at[:len(at)-1]...).(object)[step] = value
	case int:
		pick(v, at[:len(at)-1]...).([]any)[step] = value
	}
	return v
}
