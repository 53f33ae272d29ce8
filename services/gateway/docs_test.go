package gateway_test

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// operationsOf calls fn with every operation of the document.
func operationsOf(t *testing.T, fn func(method, path string, op object)) {
	t.Helper()
	for path, item := range parseDocument(t)["paths"].(object) {
		for method, op := range item.(object) {
			fn(method, path, op.(object))
		}
	}
}

// Every operation has a page, with all that the document says about who may call it and what may come of it.
func TestAPIReference_everyOperationHasItsPage(t *testing.T) {
	g := start(t)
	index := html.UnescapeString(string(g.anybody().get("/docs/api").want(http.StatusOK).body))
	remedies := map[string]string{}
	for _, row := range parseDocument(t)["components"].(object)["schemas"].(object)["Reason"].(object)["x-reasons"].([]any) {
		remedies[row.(object)["reason"].(string)] = row.(object)["remedy"].(string)
	}
	seen := 0
	operationsOf(t, func(method, path string, op object) {
		seen++
		id := op["operationId"].(string)
		if !strings.Contains(index, `href="/docs/api/`+id+`"`) {
			t.Errorf("the first page does not lead to %s", id)
		}
		page := html.UnescapeString(string(g.anybody().get("/docs/api/" + id).want(http.StatusOK).body))
		wants := []string{strings.ToUpper(method) + " " + path, op["summary"].(string)}
		for _, name := range []string{"x-role", "x-scope"} {
			if word, ok := op[name].(string); ok {
				wants = append(wants, "<dd>"+word+"</dd>")
			}
		}
		for _, p := range asList(op["parameters"]) {
			if name, ok := p.(object)["name"].(string); ok {
				wants = append(wants, "<code>"+name+"</code>")
			}
		}
		for _, r := range asList(op["x-reasons"]) {
			wants = append(wants, "<code>"+r.(string)+"</code>", remedies[r.(string)])
		}
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("the page of %s lacks %s", id, want)
			}
		}
	})
	if seen < 70 {
		t.Errorf("%d operations", seen)
	}
	reasons := string(g.anybody().get("/docs/api/reasons").want(http.StatusOK).body)
	for reason := range remedies {
		if !strings.Contains(reasons, "<code>"+reason+"</code>") {
			t.Errorf("the page of reasons lacks %s", reason)
		}
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

// Fields stand by the paths that problems name them by, down into what they are made of.
func TestAPIReference_fieldsStandByTheirPaths(t *testing.T) {
	g := start(t)
	page := html.UnescapeString(string(g.anybody().get("/docs/api/createApp").want(http.StatusOK).body))
	for _, want := range []string{
		`<code>appId</code> <span class="soft">string, required</span>`,
		`<code>app.hooks[].stage</code>`, `<code>POST_SOURCE_CONTROL</code>`, `<code>app.rules.skip.phrases</code> <span class="soft">list of string</span>`,
		`(at least 0; at most 50)`, `<code>live.number</code>`, `<code>createTime</code> <span class="soft">time, required, only answered</span>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of createApp lacks %s", want)
		}
	}
	for _, want := range []string{"application/x-ndjson, LogRecord", "application/x-ndjson, LogEndLine", "text/event-stream, LogEventRecord"} {
		if log := string(g.anybody().get("/docs/api/readLog").want(http.StatusOK).body); !strings.Contains(log, want) {
			t.Errorf("the page of readLog lacks %s", want)
		}
	}
}

// The pages are for everybody, without scripts, and load nothing.
func TestAPIReference_pagesLoadNothing(t *testing.T) {
	g := start(t)
	for _, path := range []string{"/docs/api", "/docs/api/reasons", "/docs/api/createApp", "/docs/api/streamEvents"} {
		a := g.anybody().get(path).want(http.StatusOK)
		a.header.Set("Cache-Control", "no-store") // which pages with somebody's data have
		checkPage(t, a)
		if strings.Contains(a.header.Get("Content-Security-Policy"), "script-src") {
			t.Errorf("%s: policy %s", path, a.header.Get("Content-Security-Policy"))
		}
		body := string(a.body)
		if found := regexp.MustCompile(`(?i)<script|<iframe|<img|<form|src=|url\(|@import|<link rel="[^i]|href="(https?:)?//`).FindString(body); found != "" {
			t.Errorf("%s has %s", path, found)
		}
		if strings.Contains(body, "ZgotmplZ") {
			t.Errorf("%s: a template shows through", path)
		}
		g.anybody().get(path, with("If-None-Match", a.header.Get("ETag"))).want(http.StatusNotModified)
		if head := g.anybody().do(http.MethodHead, path, nil, with("Accept-Encoding", "gzip")).want(http.StatusOK); head.header.Get("ETag") != a.header.Get("ETag") {
			t.Errorf("%s: HEAD has the tag %s", path, head.header.Get("ETag"))
		}
		g.anybody().post(path, "{}").problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	}
	g.anybody().get("/docs/api/noSuchOperation").problem(http.StatusNotFound, "NOT_FOUND")
	g.anybody().get("/docs/apis").problem(http.StatusNotFound, "NOT_FOUND")
}
