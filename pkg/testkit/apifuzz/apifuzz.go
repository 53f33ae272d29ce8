// Package apifuzz makes requests that an API must withstand, from nothing but its OpenAPI document:
// for every operation wrong types, huge and unknown values, text that is not Unicode, bodies that are
// not JSON, paths, queries, headers and methods that nobody meant. The requests are the same each time.
//
// It sends nothing and judges nothing: its callers do, against fakes or against the whole product.
package apifuzz

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Case is one request.
type Case struct {
	Name      string // of the operation, and what is wrong
	Operation string // operationId
	Path      string // of the document, with variables
	Method    string // of the operation; Send may be another
	Send      string // the method to send
	URL       string // path and query
	Header    [2]string
	Body      string
	Reasons   []string // that the document declares for the operation, those of every request among them
}

// Options say what makes a request meaningful.
type Options struct {
	// Variables are good values for the variables of paths.
	Variables map[string]string
	// Bodies are good bodies by operationId; the others are {}.
	Bodies map[string]string
	// Skip names operations that are left out.
	Skip []string
}

// values are what is put in the place of every field, as JSON text.
var values = []string{
	`null`, `true`, `-1`, `1.5`, `1e400`, `99999999999999999999`, `""`, `"\u0000"`, "\"\xff\"", `"\ud800"`, `[]`, `[null]`, `[{}]`, `{}`, `{"x":{"y":[1]}}`,
	`"` + strings.Repeat("x", 20_000) + `"`,
}

// texts are what is put in the place of every variable and parameter, escaped for a URL.
var texts = []string{
	"", "%ff", "%00", "%20", "..", "%2e%2e", "%2F", "a%2Fb", "a:b", "-1", "0", "99999999999999999999", "1.5", "true", "null", "%F0%9F%98%80", "*", "%25", "STATE_UNSPECIFIED",
	"a.b.c", "%3E", strings.Repeat("x", 3000),
}

var headers = [][2]string{
	{"If-Match", `""`}, {"If-Match", "x"}, {"If-Match", `W/"x"`}, {"If-Match", "*"}, {"If-Match", "\xff"}, {"If-Match", `"a", "b"`},
	{"If-None-Match", "\xff"}, {"If-None-Match", "x"}, {"Last-Event-ID", "\xff"}, {"Last-Event-ID", "x"}, {"Accept", "\xff"}, {"Accept", "text/html"},
	{"Content-Type", "text/plain"}, {"Content-Type", "multipart/form-data; boundary=x"}, {"Content-Type", "\xff"}, {"Content-Encoding", "gzip"}, {"X-Request-Id", "\xff"},
	{"Traceparent", "\xff"}, {"Tracestate", "\xff"}, {"Baggage", "a=\xff"}, {"X-Http-Method-Override", "DELETE"}, {"Grpc-Timeout", "x"}, {"Grpc-Metadata-X-Bin", "\xff"},
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW", "get"}

type object = map[string]any

// Cases yields the requests for a document: those that only read or ask first, deletions last.
func Cases(document []byte, o Options) (iter.Seq[Case], error) {
	var doc object
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("apifuzz: read the document: %w", err)
	}
	var bases []Case
	for _, path := range slices.Sorted(maps.Keys(at(doc, "paths"))) {
		for _, method := range slices.Sorted(maps.Keys(at(doc, "paths", path))) {
			id, _ := at(doc, "paths", path, method)["operationId"].(string)
			if slices.Contains(o.Skip, id) {
				continue
			}
			c := Case{Operation: id, Path: path, Method: strings.ToUpper(method), Send: strings.ToUpper(method)}
			c.URL = fill(path, o.Variables, "", "")
			c.Reasons = append(texted(at(doc, "paths", path, method)["x-reasons"]), texted(at(doc, "components", "responses", "Failure")["x-reasons"])...)
			if at(doc, "paths", path, method, "requestBody") != nil {
				if c.Body = o.Bodies[id]; c.Body == "" {
					c.Body = "{}"
				}
			}
			bases = append(bases, c)
		}
	}
	slices.SortStableFunc(bases, func(a, b Case) int { return weight(a) - weight(b) })
	return func(yield func(Case) bool) {
		for _, base := range bases {
			for c := range of(doc, base, o) {
				c.Name = base.Operation + ": " + c.Name
				if !yield(c) {
					return
				}
			}
		}
	}, nil
}

func texted(list any) []string {
	var out []string
	all, _ := list.([]any)
	for _, e := range all {
		out = append(out, fmt.Sprint(e))
	}
	return out
}

func weight(c Case) int {
	return map[string]int{"GET": 0, "POST": 1, "PATCH": 2, "DELETE": 3}[c.Method]
}

// of yields the requests for one operation.
func of(doc object, base Case, o Options) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		each := func(name string, change func(*Case)) bool {
			c := base
			c.Name = name
			change(&c)
			return yield(c)
		}
		if !each("as it should be", func(*Case) {}) {
			return
		}
		for _, m := range methods {
			if !each("method "+m, func(c *Case) { c.Send = m }) {
				return
			}
		}
		for _, h := range headers {
			if !each(fmt.Sprintf("%s: %q", h[0], h[1]), func(c *Case) { c.Header = h }) {
				return
			}
		}
		for _, u := range urls(doc, base, o) {
			if !each("address "+short(u), func(c *Case) { c.URL = u }) {
				return
			}
		}
		for _, b := range bodies(doc, base) {
			if !each("body "+short(b), func(c *Case) { c.Body = b }) {
				return
			}
		}
	}
}

// urls are addresses in which one variable or parameter is wrong.
func urls(doc object, base Case, o Options) []string {
	var out []string
	for variable := range variables(base.Path) {
		for _, t := range texts {
			out = append(out, fill(base.Path, o.Variables, variable, t))
		}
	}
	out = append(out, base.URL+"/", base.URL+"?", base.URL+"?nope=1", base.URL+"?%ff=%ff", base.URL+"?a=%zz", base.URL+"?a;b", base.URL+":nope", "/"+base.URL)
	params, _ := at(doc, "paths", base.Path, strings.ToLower(base.Method))["parameters"].([]any)
	for _, p := range params {
		param, _ := p.(object)
		name, ok := param["name"].(string)
		if !ok || param["in"] != "query" {
			continue
		}
		for _, t := range texts {
			out = append(out, base.URL+"?"+url.QueryEscape(name)+"="+t)
		}
		out = append(out, base.URL+"?"+name+"=a&"+name+"=b")
	}
	return out
}

// bodies are those in which one field is wrong, and those that are wrong as a whole.
func bodies(doc object, base Case) []string {
	out := []string{
		"", " ", "null", "[]", "7", `"x"`, "{", "}", `{"a":1}x`, `{} {}`, "\xef\xbb\xbf{}", "\xff\xfe", "\x00", "<xml/>", "a=b", `{"nope":1}`, "{\"\xff\":1}", `{"\ud800":1}`,
		strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 20_000), `{"a":"` + strings.Repeat("x", 1<<20) + `"}`,
	}
	if base.Body == "" {
		return out[:8]
	}
	for _, path := range fields(doc, at(doc, "paths", base.Path, strings.ToLower(base.Method), "requestBody", "content", "application/json", "schema"), 4) {
		for _, v := range values {
			out = append(out, with(base.Body, path, v))
		}
		name, _ := json.Marshal(path[0])
		out = append(out, fmt.Sprintf(`{%s:1,%s:2}`, name, name))
	}
	return out
}

// fields lists the paths of all fields of a schema; a list is entered at its first element.
func fields(doc, schema object, depth int) [][]string {
	schema = deref(doc, schema)
	if items, ok := schema["items"].(object); ok {
		var out [][]string
		for _, f := range fields(doc, items, depth) {
			out = append(out, append([]string{"0"}, f...))
		}
		return out
	}
	var out [][]string
	for _, name := range slices.Sorted(maps.Keys(at(schema, "properties"))) {
		out = append(out, []string{name})
		if depth == 0 {
			continue
		}
		for _, f := range fields(doc, at(schema, "properties", name), depth-1) {
			out = append(out, append([]string{name}, f...))
		}
	}
	return out
}

func deref(doc, schema object) object {
	if ref, ok := schema["$ref"].(string); ok {
		return at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return schema
}

// with is a body with a value, given as JSON text, at a path. Where the body has nothing on the way,
// the way is made.
func with(body string, path []string, value string) string {
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return body
	}
	const here = "here-stands-the-value"
	raw, err := json.Marshal(set(v, path, here))
	if err != nil {
		return body
	}
	return strings.Replace(string(raw), `"`+here+`"`, value, 1)
}

func set(v any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	if path[0] == "0" {
		list, _ := v.([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list[0] = set(list[0], path[1:], value)
		return list
	}
	o, ok := v.(object)
	if !ok {
		o = object{}
	}
	o[path[0]] = set(o[path[0]], path[1:], value)
	return o
}

func variables(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for part := range strings.SplitSeq(path, "{") {
			if name, _, ok := strings.Cut(part, "}"); ok && !yield(name) {
				return
			}
		}
	}
}

// fill puts good values into a path, and another one in one place.
func fill(path string, good map[string]string, variable, text string) string {
	for name := range variables(path) {
		v := good[name]
		if v == "" {
			v = "1"
		}
		if name == variable {
			v = text
		}
		path = strings.Replace(path, "{"+name+"}", v, 1)
	}
	return path
}

func at(o object, path ...string) object {
	for _, p := range path {
		next, ok := o[p].(object)
		if !ok {
			return nil
		}
		o = next
	}
	return o
}

func short(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return fmt.Sprintf("%q", s)
}
