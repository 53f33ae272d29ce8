package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// finish turns the merged documents into the one that is served.
func finish(doc object) error {
	inputs(doc)
	if err := outputsOfProtos(doc); err != nil {
		return err
	}
	if err := shorten(doc); err != nil {
		return err
	}
	if err := operations(doc); err != nil {
		return err
	}
	spell(doc)
	streams(doc)
	pages(doc)
	unset(doc)
	if err := limits(doc); err != nil {
		return err
	}
	if err := examples(doc); err != nil {
		return err
	}
	components := at(doc, "components")
	problems(at(doc, "components", "schemas"))
	common := make([]any, 0, len(everywhere))
	for _, reason := range everywhere {
		common = append(common, string(reason))
	}
	// Not called as its schema is: generators of clients make a type of either.
	components["responses"] = object{"Failure": object{
		"description": "What went wrong, for people and programs (RFC 9457). x-reasons are those of every request; each operation has its own beside them.",
		"x-reasons":   common,
		"headers": object{
			"X-Request-Id": object{"$ref": "#/components/headers/RequestId"},
			"Retry-After":  object{"description": "Seconds after which a repeat can help.", "schema": object{"type": "integer"}},
		},
		"content": object{"application/problem+json": object{"schema": object{"$ref": refPrefix + "Problem"}}},
	}}
	components["headers"] = object{
		"RequestId": object{"description": "The id of the request, also in the logs.", "schema": object{"type": "string"}},
		"ETag":      object{"description": "Changes with any part of the answer; for If-None-Match. That of a resource that has an etag begins with it and a dot, and can be sent as If-Match too.", "schema": object{"type": "string"}},
	}
	components["parameters"] = object{
		"IfNoneMatch": header("If-None-Match", "Answer 304 when the answer would be the one with this ETag. Several with commas between, or *; compared weakly (RFC 9110)."),
		"IfMatch":     header("If-Match", "Do it only if the resource still has this revision: its field etag in double quotes, or the ETag of an answer, of which the part before the dot counts. Several with commas between, or * for any; a weak one (W/) matches none. What cannot be read is refused (RFC 9110)."),
		"LastEventId": header("Last-Event-ID", "Go on after this event."),
	}
	components["securitySchemes"] = object{
		"session": object{"type": "apiKey", "in": "cookie", "name": "devpilot_session",
			"description": "A browser session, begun by POST /v1/session. Where Devpilot is served over https the cookie is called __Host-devpilot_session. Requests that change something must come from Devpilot's own pages or from an allowed origin."},
		"bearer": object{"type": "http", "scheme": "bearer", "description": "An API key, or the admin token."},
	}
	doc["openapi"] = "3.1.0"
	doc["jsonSchemaDialect"] = "https://spec.openapis.org/oas/3.1/dialect/base"
	doc["info"] = object{"title": "Devpilot API", "version": "v1", "description": description, "contact": object{"name": "Whoever runs this installation"}}
	doc["servers"] = []any{object{"url": "/"}}
	doc["security"] = []any{object{"session": []any{}}, object{"bearer": []any{}}}
	doc["tags"] = tagList()
	return nil
}

const description = `Deploys code from Bitbucket: connect it, choose a repository and a branch, push.

* Names are lowerCamelCase, times RFC 3339 in UTC. What is absent is not there: no nulls, no empty words for "none". Lists are always there.
* More words may come for every enum, more fields for every answer and more reasons for problems: accept unknown ones.
* Lists have pages: pass nextPageToken as pageToken and keep the filters. A filtered page may be short and still have a token.
* The field etag of a resource is its revision: sent back, as a field or as If-Match, it makes a change happen only if the resource is unchanged. The header ETag of an answer changes with all of the answer, also with what others decide, such as an app's latest deployment: it is for If-None-Match.
* A requestId makes a repeat harmless for 24 hours.
* All that is wrong with a request is told at once: each name in fields is a path into the body that was sent, such as hooks[0].stage, or a parameter or header.
* A PATCH changes what its body names and nothing else, as far down as it names something; {} changes nothing, a list is replaced as a whole.
* Every failure is a Problem. 401 means that your own credentials are missing or dead, and nothing else; trouble with Bitbucket is 409, 429 or 503.`

func header(name, text string) object {
	return object{"name": name, "in": "header", "description": text, "schema": object{"type": "string"}}
}

// about says what the operations of a tag are about.
var about = map[string]string{
	"Apps and deployments":   "What is deployed from where, and what came of it.",
	"Bitbucket":              "For Bitbucket alone.",
	"Browser":                "Pages and documents that a browser opens.",
	"Integrations":           "The connection of a workspace to Bitbucket.",
	"Live":                   "Streams: what changes, and logs while they are written.",
	"Repositories":           "What the connected account reaches on Bitbucket.",
	"Sign-in and workspaces": "Who calls, with which keys, and what was done.",
	"Webhooks":               "How Bitbucket tells of pushes, and what it told.",
}

func tagList() []any {
	var out []any
	for _, name := range slices.Sorted(maps.Keys(about)) {
		out = append(out, object{"name": name, "description": about[name]})
	}
	return out
}

// outputsOfProtos applies outputs to the schemas that come from protos, not to those of inputs.
func outputsOfProtos(doc object) error {
	protos := object{}
	for name, s := range at(doc, "components", "schemas") {
		if !strings.HasSuffix(name, "Input") && !strings.HasSuffix(name, "Patch") {
			protos[name] = s
		}
	}
	return outputs(protos)
}

// problems adds the schema of a problem and the table of reasons.
func problems(schemas object) {
	var words, table []any
	var text strings.Builder
	text.WriteString("What went wrong, for programs. More may come.\n\n| reason | status | repeat | what to do |\n| --- | --- | --- | --- |\n")
	for _, row := range apierr.Table() {
		words = append(words, string(row.Reason))
		table = append(table, object{
			"reason": string(row.Reason), "status": row.HTTPStatus, "grpcCode": row.Code.String(),
			"retry": string(row.Retry), "title": row.Title, "remedy": row.Remedy,
		})
		fmt.Fprintf(&text, "| `%s` | %d | %s | %s |\n", row.Reason, row.HTTPStatus, row.Retry, row.Remedy)
	}
	schemas["Reason"] = object{
		"description": text.String(), "x-reasons": table,
		"type": "string", "enum": words,
	}
	str := func(d string) object { return object{"type": "string", "description": d} }
	schemas["Problem"] = object{
		"type": "object", "description": "What went wrong (RFC 9457).",
		"required": []any{"type", "title", "status", "detail", "reason", "fields", "requestId"},
		"properties": object{
			"type":   str("Identifies the reason; for comparing, not for following."),
			"title":  str("The same for every problem of the kind."),
			"status": object{"type": "integer", "description": "The HTTP status."},
			"detail": str("A sentence for people, with what to do next."),
			"reason": object{"$ref": refPrefix + "Reason"},
			"fields": object{"type": "array", "description": "What is wrong in the request; empty when it is meant as a whole.", "items": object{
				"type": "object", "required": []any{"name", "message"},
				"properties": object{"name": str("A path into the body that was sent, such as app.hooks[0].stage, or the name of a parameter or header."), "message": str("What is wrong with it.")},
			}},
			"retryAfterSeconds": object{"type": "integer", "description": "When a repeat can help; absent when no time is known."},
			"requestId":         str("The id of the request."),
			"details":           object{"type": "object", "additionalProperties": object{"type": "string"}, "description": "Further facts for programs, by reason."},
		},
	}
}

func pathParameter(name string) object {
	return object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}}
}

func query(name, text string, schema object) object {
	return object{"name": name, "in": "query", "description": text, "schema": schema}
}

// failures are the reasons with which a connect may end.
var failures = []any{
	string(apierr.ReasonHandshakeExpired), string(apierr.ReasonHandshakeMismatch), string(apierr.ReasonConsentDenied), string(apierr.ReasonScopeMissing),
	string(apierr.ReasonConsumerRefused), string(apierr.ReasonBitbucketUnavailable), string(apierr.ReasonBitbucketRateLimited), string(apierr.ReasonAccessRestricted),
}

// pages adds what browsers visit and what Bitbucket calls.
func pages(doc object) {
	paths := at(doc, "paths")
	html := object{"text/html": object{"schema": object{"type": "string"}}}
	str := object{"type": "string"}
	session := []any{object{"session": []any{}}}
	redirect := object{"description": "To the next page.", "headers": object{"Location": object{"schema": str}}}
	page := func(id, summary, text string, params []any, security []any) object {
		return object{"get": object{
			"tags": []any{"Browser"}, "operationId": id, "summary": summary, "description": text, "parameters": params, "security": security,
			"responses": object{"302": redirect, "303": redirect, "default": object{"description": "A page that says what is wrong.", "content": html}},
		}}
	}
	paths["/oauth/bitbucket/start"] = page("startAuthorization", "Sends the browser to Bitbucket",
		"Opened in the browser that began the connect; sets a cookie that binds it. Without a session it leads over the sign-in page.",
		[]any{required(query("handshake", "From connectIntegration.", str))}, session)
	paths["/oauth/bitbucket/callback"] = page("finishAuthorization", "Where Bitbucket sends the browser back",
		"Leads to the returnPath of the connect with ?bitbucket=connected, or ?bitbucket=failed&reason=… with a Reason.",
		[]any{required(query("state", "As sent.", str)), query("code", "The authorization code.", str), query("error", "Instead of a code, such as access_denied.", str), query("error_description", "For people.", str)}, session)
	at(paths, "/oauth/bitbucket/callback", "get")["x-reasons"] = failures
	paths["/openapi.json"] = object{"get": object{
		"tags": []any{"Browser"}, "operationId": "getOpenApi", "summary": "This document", "description": "All that programs need to know to speak with Devpilot.", "security": []any{},
		"parameters": []any{object{"$ref": "#/components/parameters/IfNoneMatch"}},
		"responses": object{
			"200": object{"description": "The document.", "headers": object{"ETag": object{"$ref": "#/components/headers/ETag"}}, "content": object{"application/json": object{"schema": object{"type": "object"}}}},
			"304": object{"description": "Unchanged since the answer with that ETag."},
		},
	}}
	paths["/schemas/devpilot.schema.json"] = object{"get": object{
		"tags": []any{"Browser"}, "operationId": "getConfigSchema", "summary": "The JSON Schema of .devpilot.yaml", "description": "For editors, which complete and check the file by it.", "security": []any{},
		"parameters": []any{object{"$ref": "#/components/parameters/IfNoneMatch"}},
		"responses": object{
			"200": object{"description": "The schema.", "headers": object{"ETag": object{"$ref": "#/components/headers/ETag"}}, "content": object{"application/schema+json": object{"schema": object{"type": "object"}}}},
			"304": object{"description": "Unchanged since the answer with that ETag."},
		},
	}}
	answer := func(text string) object {
		return object{"description": text, "content": object{"application/json": object{"schema": object{
			"type": "object", "required": []any{"message"},
			"properties": object{"message": object{"type": "string", "description": "For whoever reads it in Bitbucket's View requests."}},
		}}}}
	}
	paths["/webhooks/bitbucket/{webhook}"] = object{"post": object{
		"tags": []any{"Bitbucket"}, "operationId": "deliver", "summary": "Takes a delivery of Bitbucket",
		"description": "For Bitbucket only. The body is signed with the webhook's secret (HMAC-SHA256); nothing else is needed to be believed.",
		"security":    []any{},
		"parameters": []any{
			pathParameter("webhook"),
			header("X-Hub-Signature", "sha256= and the signature of the raw body, in hexadecimal digits."),
			header("X-Event-Key", "Such as repo:push."), header("X-Request-UUID", "Of the delivery; the same in its repeats."),
			header("X-Attempt-Number", "From 1."), header("X-Hook-UUID", "Bitbucket's id of the webhook."),
		},
		"requestBody": object{"required": true, "content": object{"application/json": object{"schema": object{"type": "object"}}}},
		"responses": object{
			"200": answer("Understood; there is nothing to do."), "202": answer("Stored."), "400": answer("Signed, but not a delivery that can be read."),
			"401": answer("The signature is missing or wrong."), "404": answer("There is no such webhook."), "413": answer("Larger than any delivery of Bitbucket."),
			"503": answer("Cannot be stored now; Bitbucket repeats it."),
		},
	}}
}

func required(param object) object {
	param["required"] = true
	return param
}
