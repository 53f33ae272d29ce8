// Package app holds what people do with apps and deployments: create, change, delete, deploy, look
// at the history (DESIGN.md#services, DESIGN.md#a-push-becomes-a-deployment and DESIGN.md#the-api).
//
// An app's own record holds what people chose, and its revision is the app's etag. Everything that
// lists apps (those of a workspace, those that watch a repository) reads an index record made for
// it. An index is written before the app's record and cleaned after it, so that whatever dies in
// between, it names at least every app there is; readers hold each entry against the app's record.
//
// Depends on internal/record/store, internal/record/lane and internal/control/schedule, and on the neighbours by the
// interfaces in service.go.
package app
