package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
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
	comments := map[string]string{} // by RPC
	for _, item := range at(doc, "paths") {
		for _, method := range methods {
			if op, ok := item.(object)[method].(object); ok {
				summary, _ := op["summary"].(string)
				_, name, _ := strings.Cut(op["operationId"].(string), "_")
				comments[name] = strings.Join(strings.Fields(summary), " ")
			}
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
			operation(op, id, route, comments)
		}
	}
	return nil
}

func operation(op object, id string, route routes.Route, comments map[string]string) {
	service, name, _ := strings.Cut(id, "_")
	op["operationId"] = strings.ToLower(name[:1]) + name[1:]
	op["tags"] = []any{tags[service]}
	describe(op, comments[name], reasonsOf(name, route, comments), route)
	access(op, route)
	if d := route.Deprecated; d != nil {
		op["deprecated"], op["x-sunset"] = true, d.Sunset.UTC().Format(time.DateOnly)
		text, _ := op["description"].(string)
		op["description"] = strings.TrimSpace(d.Instead + "\n\n" + text)
	}
	params := list(op, "parameters")
	ok := at(op, "responses", "200")
	headers := object{"X-Request-Id": object{"$ref": "#/components/headers/RequestId"}}
	if route.Method == http.MethodGet {
		params = append(params, object{"$ref": "#/components/parameters/IfNoneMatch"})
		headers["ETag"] = object{"$ref": "#/components/headers/ETag"}
		at(op, "responses")["304"] = object{"description": "Unchanged since the answer with that ETag."}
	}
	if route.TakesETag() {
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
	at(op, "responses")["default"] = object{"$ref": "#/components/responses/Failure"}
}

var (
	reasonList = regexp.MustCompile(`(?s)\s*Reasons: (.*?)\.(\s|$)`)
	reasonWord = regexp.MustCompile(`\b[A-Z]{2,}(?:_[A-Z]+)*\b`)
	reasonsAs  = regexp.MustCompile(`\bas ([A-Z][A-Za-z]+)`)
	firstStop  = regexp.MustCompile(`\.\s`)
)

// ofVariable is the reason by which a resource that the path names is not there.
var ofVariable = map[string]apierr.Reason{
	"app": apierr.ReasonAppNotFound, "app_id": apierr.ReasonAppNotFound, "number": apierr.ReasonDeploymentNotFound,
	"webhook": apierr.ReasonWebhookNotFound, "delivery": apierr.ReasonDeliveryNotFound,
	"repository": apierr.ReasonRepositoryNotFound, "api_key": apierr.ReasonAPIKeyNotFound, "user_code": apierr.ReasonLoginRequestNotFound,
	"target": apierr.ReasonNotificationTargetNotFound, "target_id": apierr.ReasonNotificationTargetNotFound,
}

// reasonsOf lists the reasons of an RPC beside those of every request: those that its comment names,
// also by naming another RPC, and those that follow from what it takes.
func reasonsOf(name string, route routes.Route, comments map[string]string) []any {
	var words []string
	if m := reasonList.FindStringSubmatch(comments[name]); m != nil {
		words = reasonWord.FindAllString(m[1], -1)
		for _, as := range reasonsAs.FindAllStringSubmatch(m[1], -1) {
			if of := reasonList.FindStringSubmatch(comments[as[1]]); of != nil {
				words = append(words, reasonWord.FindAllString(of[1], -1)...)
			}
		}
	}
	for _, variable := range route.PathFields() {
		if reason, ok := ofVariable[variable]; ok {
			words = append(words, string(reason))
		}
	}
	if route.Input.Fields().ByName("page_token") != nil {
		words = append(words, string(apierr.ReasonPageTokenInvalid))
	}
	if !route.ReadOnly { // also where nobody sent an etag: two that write at once may go on meeting
		words = append(words, string(apierr.ReasonEtagMismatch))
	}
	slices.Sort(words)
	var list []any
	for _, w := range slices.Compact(words) {
		if _, ok := apierr.Lookup(apierr.Reason(w)); ok && !slices.Contains(everywhere, apierr.Reason(w)) {
			list = append(list, w)
		}
	}
	return list
}

// everywhere lists the reasons that every request may be answered with, whatever it asks for.
var everywhere = []apierr.Reason{
	apierr.ReasonUnauthenticated, apierr.ReasonPermissionDenied, apierr.ReasonCrossOriginRefused, apierr.ReasonHostUnknown,
	apierr.ReasonInvalidArgument, apierr.ReasonRateLimited, apierr.ReasonPayloadTooLarge, apierr.ReasonUnsupportedMedia, apierr.ReasonNotFound,
	apierr.ReasonMethodNotAllowed, apierr.ReasonUnimplemented, apierr.ReasonStorageUnavailable, apierr.ReasonServiceUnavailable,
	apierr.ReasonTimeout, apierr.ReasonCanceled, apierr.ReasonInternal, apierr.ReasonWorkspaceNotFound, apierr.ReasonWorkspaceBeingDeleted,
}

// describe splits the proto's comment: the first sentence, and the rest without the reasons.
func describe(op object, comment string, reasons []any, route routes.Route) {
	comment = strings.Join(strings.Fields(reasonList.ReplaceAllString(comment, " ")), " ")
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
	case route.Operator:
		lines = append(lines, "Operators of the installation may: the local owner, and whom a rule of the identity providers makes one.")
		op["x-role"] = "OPERATOR"
	case route.Role > identity.RoleMember:
		lines = append(lines, fmt.Sprintf("Needs the role %s or higher in the workspace.", strings.ToUpper(route.Role.String())))
		op["x-role"] = strings.ToUpper(route.Role.String())
	case route.Role == identity.RoleMember:
		lines = append(lines, "Every member of the workspace may.")
		op["x-role"] = strings.ToUpper(route.Role.String())
	}
	if route.Access == routes.Authenticated {
		if !route.Browser && !route.NoPrograms {
			op["x-scope"] = strings.ToUpper(route.Scope().String())
		}
		lines = append(lines, programs(route))
	}
	if len(reasons) > 0 {
		op["x-reasons"] = reasons
		var words []string
		for _, r := range reasons {
			words = append(words, fmt.Sprint(r))
		}
		lines = append(lines, "Reasons beside those of every request: "+strings.Join(words, ", ")+".")
	}
	if len(lines) > 0 {
		op["description"] = strings.Join(lines, "\n\n")
	} else {
		delete(op, "description")
	}
}

// programs says what an API key or token must have.
func programs(route routes.Route) string {
	if route.Browser {
		return "It takes a browser: API keys and tokens are refused with BROWSER_REQUIRED, whatever their scope."
	}
	if route.NoPrograms {
		return "API keys and tokens cannot, whatever their scope."
	}
	s := "API keys and tokens take the scope " + strings.ToUpper(route.Scope().String())
	if route.NoTokens {
		s += " (tokens of identity providers cannot)"
	}
	switch {
	case route.OfApps:
		return s + "; limited to some apps, they get what these have."
	case route.NamesApp(), route.Role == identity.RoleNone:
		return s + "."
	}
	return s + ", and no limit to some apps."
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
