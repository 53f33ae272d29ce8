package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// tags group the operations by what they are about.
var tags = map[string]string{
	"GatewayService":  "Sign-in and workspaces",
	"AuthService":     "Integrations",
	"RepoService":     "Repositories",
	"DeployerService": "Apps and deployments",
	"WebhookService":  "Webhooks",
}

var methods = []string{"get", "post", "patch", "put", "delete"}

// operations finishes the operations that come from the protos.
func operations(doc object) error {
	byOperation := map[string]routes.Route{}
	for _, r := range routes.All() {
		service, method, ok := strings.Cut(r.RPC[strings.LastIndex(r.RPC, ".")+1:], "/")
		if ok {
			byOperation[service+"_"+method] = r
		}
	}
	for path, item := range at(doc, "paths") {
		for _, method := range methods {
			op, ok := item.(object)[method].(object)
			if !ok {
				continue
			}
			id := op["operationId"].(string)
			route, ok := byOperation[id]
			if !ok {
				return fmt.Errorf("%s %s: operation %s is no route", method, path, id)
			}
			operation(op, id, route)
		}
	}
	return nil
}

func operation(op object, id string, route routes.Route) {
	service, name, _ := strings.Cut(id, "_")
	op["operationId"] = strings.ToLower(name[:1]) + name[1:]
	op["tags"] = []any{tags[service]}
	summary, _ := op["summary"].(string)
	describe(op, strings.TrimSpace(summary), route)
	access(op, route)
	params := list(op, "parameters")
	ok := at(op, "responses", "200")
	headers := object{"X-Request-Id": object{"$ref": "#/components/headers/RequestId"}}
	if route.List {
		params = append(params, object{"$ref": "#/components/parameters/IfNoneMatch"})
		headers["ETag"] = object{"$ref": "#/components/headers/ETag"}
		at(op, "responses")["304"] = object{"description": "Unchanged since the answer with that ETag."}
	}
	if !route.ReadOnly && takesETag(route) {
		params = append(params, object{"$ref": "#/components/parameters/IfMatch"})
	}
	if id == "GatewayService_CreateSession" || id == "GatewayService_DeleteSession" {
		headers["Set-Cookie"] = object{"description": "The session cookie, or its removal.", "schema": object{"type": "string"}}
	}
	ok["headers"] = headers
	// The generator's sentence names the message; the schema says the rest.
	ok["description"] = "Done."
	if len(params) > 0 {
		op["parameters"] = params
	}
	at(op, "responses")["default"] = object{"$ref": "#/components/responses/Problem"}
}

// takesETag says whether the request, or the resource that it carries, has an etag.
func takesETag(route routes.Route) bool {
	if route.Input.Fields().ByName("etag") != nil {
		return true
	}
	body := route.Input.Fields().ByName("app")
	return route.Method == http.MethodPatch && body != nil && body.Message() != nil && body.Message().Fields().ByName("etag") != nil
}

var (
	reasonList = regexp.MustCompile(`(?s)\s*Reasons: (.*?)\.(\s|$)`)
	reasonWord = regexp.MustCompile(`\b[A-Z]{3,}(?:_[A-Z]+)*\b`)
	firstStop  = regexp.MustCompile(`\.\s`)
)

// describe splits the proto's comment: the first sentence, the rest, and the reasons.
func describe(op object, comment string, route routes.Route) {
	comment = strings.Join(strings.Fields(comment), " ")
	var reasons []string
	if m := reasonList.FindStringSubmatch(comment); m != nil {
		reasons = reasonWord.FindAllString(m[1], -1)
		comment = strings.TrimSpace(reasonList.ReplaceAllString(comment, " "))
	}
	comment = strings.Join(strings.Fields(comment), " ")
	summary, rest := comment, ""
	if i := firstStop.FindStringIndex(comment); i != nil {
		summary, rest = comment[:i[0]], strings.TrimSpace(comment[i[1]:])
	}
	op["summary"] = strings.TrimSuffix(summary, ".")
	var lines []string
	if rest != "" {
		lines = append(lines, rest)
	}
	switch {
	case route.Role > identity.RoleMember:
		lines = append(lines, fmt.Sprintf("Needs the role %s or higher in the workspace.", strings.ToUpper(route.Role.String())))
		op["x-role"] = strings.ToUpper(route.Role.String())
	case route.Role == identity.RoleMember:
		lines = append(lines, "Every member of the workspace may.")
		op["x-role"] = strings.ToUpper(route.Role.String())
	}
	if len(reasons) > 0 {
		slices.Sort(reasons)
		reasons = slices.Compact(reasons)
		var list []any
		for _, r := range reasons {
			list = append(list, r)
		}
		op["x-reasons"] = list
		lines = append(lines, "Reasons beside those of every request: "+strings.Join(reasons, ", ")+".")
	}
	if len(lines) > 0 {
		op["description"] = strings.Join(lines, "\n\n")
	} else {
		delete(op, "description")
	}
}

func access(op object, route routes.Route) {
	switch route.Access {
	case routes.Public:
		op["security"] = []any{}
	case routes.Optional:
		op["security"] = []any{object{}, object{"session": []any{}}, object{"bearer": []any{}}}
	case routes.Authenticated: // as the whole document
	}
}
