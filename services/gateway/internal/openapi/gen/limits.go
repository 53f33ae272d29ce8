package main

import (
	"fmt"
	"maps"
	"strings"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
)

// The forms of ids. A client that checks them finds typing errors before it asks.
const (
	slugPattern   = `^[a-z0-9][a-z0-9-]{0,62}$`
	uuidPattern   = `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
	hashPattern   = `^[0-9a-f]{40}$`
	prefixPattern = `^[0-9a-fA-F]{4,40}$`
	choicePattern = `^[0-9a-fA-F]{7,40}$`
	clockPattern  = `^([01][0-9]|2[0-3]):[0-5][0-9]$`
)

const (
	exampleHash = "5b3c9f0e8a1d47c2b6e9f013a8d7c54e21f60b9d"
)

// sent are the limits of what is sent, by schema and field: those of App hold for AppInput and AppPatch.
// [] stands for each of a list. The services own the limits and check them; the tests of the whole
// product send, for each of these, something just beyond it and see it refused.
var sent = map[string]object{
	"App.branch":                        {"minLength": 1, "maxLength": 244, "examples": []any{"main"}},
	"App.repository":                    {"pattern": uuidPattern, "examples": []any{sampleRepository}},
	"App.retention":                     {"minimum": 0, "maximum": 50},
	"App.hooks":                         {"maxItems": 50},
	"App.variables":                     {"maxItems": 200},
	"App.sharedPaths":                   {"maxItems": 50},
	"App.sharedPaths[]":                 {"minLength": 1, "maxLength": 255, "examples": []any{"uploads/"}},
	"AppRules.tags":                     {"maxItems": 64},
	"AppRules.tags[]":                   {"minLength": 1, "maxLength": 244, "examples": []any{"v*"}},
	"AppRules.paths":                    {"maxItems": 64},
	"AppRules.paths[]":                  {"minLength": 1, "maxLength": 244, "examples": []any{"web/**"}},
	"AppRules.pathsIgnore":              {"maxItems": 64},
	"AppRules.pathsIgnore[]":            {"minLength": 1, "maxLength": 244, "examples": []any{"docs/**"}},
	"SkipPhrases.phrases":               {"maxItems": 20},
	"SkipPhrases.phrases[]":             {"minLength": 3, "maxLength": 100, "examples": []any{"[skip deploy]"}},
	"SourceOptions.submoduleWorkspaces": {"maxItems": 100},
	"DeploymentHook.name":               {"minLength": 1, "maxLength": 64, "examples": []any{"build"}},
	"DeploymentHook.command":            {"minLength": 1, "maxLength": 8192, "examples": []any{"npm ci && npm run build"}},
	"DeploymentHook.priority":           {"minimum": -1000, "maximum": 1000},
	"DeploymentHook.timeoutSeconds":     {"minimum": 0, "maximum": 3600},
	"Variable.name":                     {"pattern": `^[A-Za-z_][A-Za-z0-9_]{0,127}$`, "examples": []any{"NODE_ENV"}},
	"Variable.value":                    {"maxLength": 122880},
	"Variable.branches":                 {"maxLength": 244},
	"NotificationTarget.label":          {"minLength": 1, "maxLength": 100, "examples": []any{"Team chat"}},
	"NotificationTarget.url":            {"maxLength": 2000, "examples": []any{"https://hooks.example.com/path"}},
	"NotificationTarget.events":         {"minItems": 1},
	"NotificationTarget.apps":           {"maxItems": 200},
	"NotificationTarget.recipients":     {"maxItems": 20},
	"NotificationTarget.behindMinutes":  {"minimum": 0, "maximum": 1440},
	"QuietHours.start":                  {"pattern": clockPattern, "examples": []any{"22:00"}},
	"QuietHours.end":                    {"pattern": clockPattern, "examples": []any{"07:00"}},

	"Workspace.displayName":                 {"maxLength": 200, "examples": []any{"Acme, Inc."}},
	"createWorkspace.workspaceId":           {"pattern": slugPattern, "examples": []any{"acme-inc"}},
	"createWorkspace.displayName":           {"maxLength": 200, "examples": []any{"Acme, Inc."}},
	"createWorkspace.requestId":             {"maxLength": 200},
	"createApiKey.label":                    {"minLength": 1, "maxLength": 100, "examples": []any{"CI of the shop"}},
	"createLoginRequest.clientName":         {"maxLength": 64, "examples": []any{"laptop"}},
	"createApiKey.requestId":                {"maxLength": 200},
	"createApiKey.apps":                     {"maxItems": 20, "uniqueItems": true},
	"createApiKey.apps[]":                   {"pattern": slugPattern, "examples": []any{"web"}},
	"createApp.appId":                       {"pattern": slugPattern, "examples": []any{"web"}},
	"createApp.requestId":                   {"maxLength": 200},
	"createDeployment.requestId":            {"maxLength": 200},
	"createDeployment.commit":               {"pattern": choicePattern, "examples": []any{exampleHash[:8]}},
	"createDeployment.tag":                  {"maxLength": 244, "examples": []any{"v1.0"}},
	"redeployDeployment.requestId":          {"maxLength": 200},
	"rollBackApp.requestId":                 {"maxLength": 200},
	"replayDelivery.requestId":              {"maxLength": 200},
	"narrowIntegration.bitbucketWorkspaces": {"maxItems": 100},
}

// asked are the limits of parameters, by name, wherever they are.
var asked = map[string]object{
	"workspace":  {"pattern": slugPattern, "example": "default"},
	"app":        {"pattern": slugPattern, "example": "web"},
	"repository": {"pattern": uuidPattern, "example": sampleRepository},
	"number":     {"minimum": 1, "example": 1},
	"delivery":   {"minimum": 1, "example": 1},
	"webhook":    {"example": "wh_3f0d4b5e"},
	"apiKey":     {"example": "k3f0d4b5e"},
	"target":     {"example": "0123456789abcdef"},
	"userCode":   {"example": "BCDF-GHJK"},
}

// askedBy are those of one operation.
var askedBy = map[string]object{
	"suggestServe.commit":    {"pattern": hashPattern, "example": exampleHash},
	"explain.commit":         {"pattern": prefixPattern, "example": exampleHash[:8]},
	"listActivity.actor":     {"maxLength": 200},
	"exportActivity.actor":   {"maxLength": 200},
	"listRepositories.query": {"maxLength": 500},
	"listBranches.query":     {"maxLength": 500},
	"listTags.query":         {"maxLength": 500},
}

// limits writes the limits into the document. One that is of nothing is a mistake.
func limits(doc object) error {
	used := map[string]bool{}
	for name, schema := range at(doc, "components", "schemas") {
		if of := strings.TrimSuffix(strings.TrimSuffix(name, "Input"), "Patch"); of != name {
			limitFields(schema.(object), of, used)
		}
	}
	for _, item := range at(doc, "paths") {
		for _, o := range item.(object) {
			op := o.(object)
			id, _ := op["operationId"].(string)
			limitFields(at(op, "requestBody", "content", "application/json", "schema"), id, used)
			for _, p := range list(op, "parameters") {
				limitParameter(id, p.(object), used)
			}
		}
	}
	for _, table := range []map[string]object{sent, asked, askedBy} {
		for key := range table {
			if !used[key] {
				return fmt.Errorf("the limit of %s is of nothing that is sent", key)
			}
		}
	}
	return nil
}

func limitFields(schema object, of string, used map[string]bool) {
	for field, p := range at(schema, "properties") {
		property := p.(object)
		put(property, sent, of+"."+field, used)
		if items, ok := property["items"].(object); ok {
			put(items, sent, of+"."+field+"[]", used)
		}
	}
}

// limitParameter puts the form of a parameter into its schema, and its example beside it.
func limitParameter(operation string, parameter object, used map[string]bool) {
	name, _ := parameter["name"].(string)
	schema := at(parameter, "schema")
	switch {
	case name == "pageSize":
		schema["minimum"], schema["default"] = 0, pagetoken.DefaultPage
		most := pagetoken.MaxPage
		if strings.Contains(parameter["description"].(string), "1,000 at most") {
			most = pagetoken.RepositoriesPage // repositories and branches
		}
		schema["maximum"] = most
		parameter["description"] = parameter["description"].(string) + " More is taken for the most."
		return
	case parameter["in"] == "path" && schema["$ref"] == nil:
		put(schema, asked, name, used)
	}
	put(schema, askedBy, operation+"."+name, used)
	if example, ok := schema["example"]; ok {
		delete(schema, "example")
		parameter["example"] = example
	}
}

func put(schema object, table map[string]object, key string, used map[string]bool) {
	if limit, ok := table[key]; ok {
		used[key] = true
		maps.Copy(schema, limit)
	}
}
