// Package gateway is the service that people, scripts and browsers speak with (DESIGN.md#the-api).
// It serves the REST API under /v1 by calling the services over gRPC, the pages of a connect under
// /oauth/bitbucket, the OpenAPI document, and a few pages of its own. It owns sessions, API keys,
// workspaces and their members, and the list of what was done.
//
// Read service.go for what it is made of, then internal/edge (what every request goes through),
// internal/rest (what an API request goes through), internal/caller (who calls and what they may do),
// then internal/server, the gateway's own RPCs.
//
// Other parts: internal/routes knows the API's routes, roles and words; internal/tenant keeps
// workspaces, members and keys; internal/session keeps browsers signed in; internal/activity keeps
// who did what; internal/events and internal/logstream serve what does not end by itself;
// internal/activityexport gives the activity list as a file; internal/oauthpages and internal/pages serve HTML; internal/openapi holds the document and the
// program that makes it.
package gateway
