package main

import "fmt"

// What the emulator has in its scenario "sample": examples work against it as they stand.
const (
	sampleRepository = "86af9dc4-9db7-5027-98be-96f9cc98f6a6" // acme/web
	sampleWorkspace  = "346ac1d1-88ae-5863-a5ce-a37a711a509d" // acme
)

// bodies are an example of each body, by operation. A test of the whole product sends each.
var bodies = map[string]object{
	"createSession":            {"token": "dpa_…"},
	"createLoginRequest":       {"clientName": "laptop"},
	"redeemLoginRequest":       {"deviceCode": "dpl_…"},
	"approveLoginRequest":      {"scope": "DEPLOY"},
	"denyLoginRequest":         {},
	"createSignInCode":         {},
	"runDoctor":                {},
	"createWorkspace":          {"workspaceId": "acme-inc", "displayName": "Acme, Inc."},
	"updateWorkspace":          {"displayName": "Acme"},
	"createInvitation":         {"email": "olga@example.com", "role": "MEMBER"},
	"setMemberRole":            {"role": "ADMIN"},
	"createApiKey":             {"label": "CI of the shop", "scope": "DEPLOY", "apps": []any{"web"}},
	"createNotificationTarget": {"target": object{"label": "Team chat", "kind": "WEBHOOK", "url": "https://hooks.example.com/path", "events": []any{"DEPLOYMENT_FAILED", "CONNECTION"}}},
	"updateNotificationTarget": {"label": "Team chat", "behindMinutes": 30},
	"rotateNotificationSecret": {},
	"sendTestNotification":     {},
	"connectIntegration":       {"returnPath": "/", "evenIfAppsStop": false},
	"refreshIntegration":       {},
	"narrowIntegration":        {"bitbucketWorkspaces": []any{object{"id": sampleWorkspace}}},
	"runProof":                 {},
	"createApp":                {"appId": "web", "app": object{"repository": sampleRepository, "branch": "main", "autoDeploy": true}},
	"updateApp":                {"hooks": []any{object{"name": "greet", "stage": "POST_SOURCE_CONTROL", "command": "echo it's there"}}},
	"checkPush":                {"branch": "main", "changedPaths": []any{"index.html"}},
	"createDeployment":         {},
	"cancelDeployment":         {},
	"redeployDeployment":       {},
	"rollBackApp":              {"deployment": 1},
	"registerWebhook":          {},
	"repairWebhook":            {},
	"rotateWebhookSecret":      {},
	"revealWebhookSecret":      {},
	"replayDelivery":           {},
	"replayDeliveries":         {"first": 1, "last": 1},
	"revealDeliveryBody":       {},
}

// examples writes the examples of bodies into the document. A body without one is a mistake, and so is an example of
// nothing.
func examples(doc object) error {
	left := map[string]bool{}
	for id := range bodies {
		left[id] = true
	}
	for _, item := range at(doc, "paths") {
		for _, o := range item.(object) {
			op := o.(object)
			id, _ := op["operationId"].(string)
			content := at(op, "requestBody", "content", "application/json")
			if len(content) == 0 || id == "deliver" {
				continue
			}
			body, ok := bodies[id]
			if !ok {
				return fmt.Errorf("there is no example of the body of %s", id)
			}
			content["example"] = body
			delete(left, id)
		}
	}
	for id := range left {
		return fmt.Errorf("the example of %s is of nothing that is sent", id)
	}
	return nil
}
