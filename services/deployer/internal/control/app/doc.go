// Package app holds what people do with apps and deployments: create, change, delete, deploy, look
// at the history (DESIGN.md#services, DESIGN.md#a-push-becomes-a-deployment and DESIGN.md#the-api).
//
// An app's own record holds what people chose, its revision is the app's etag, and its key is what
// lists it. Who watches a repository stands in an index record of the repository. That is written before
// the app's record and cleaned after it, so that whatever dies in between, it names at least every app
// there is; readers hold each entry against the app's record.
//
// What is shown is read from watched copies (reading.go); what is decided is read from the store and
// stored by compare-and-set.
//
// Depends on internal/record/store, internal/record/lane and internal/control/schedule, and on the other services by the
// interfaces in service.go.
package app
