// Package openapi holds the one description of the API, OpenAPI 3.1, and serves it.
//
// The document is made from the protos by the program in gen, which `make generate` runs, and is
// committed; tests hold it against live answers.
package openapi

import (
	"bytes"
	_ "embed" // the document
	"net/http"

	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

// Path is where the document is served.
const Path = "/openapi.json"

//go:embed openapi.json
var document []byte

// Document is the description as it is served.
func Document() []byte { return bytes.Clone(document) }

var etag = rest.ContentETag(document)

// Serve serves it; clients may keep it and ask whether it changed.
func Serve(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = Path
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", etag)
	if rest.NoneMatch(r, etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(document) // a client that went away is no error of ours
}
