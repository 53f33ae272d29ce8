// Package openapi holds the one description of the API, OpenAPI 3.1, and the JSON Schema of
// .devpilot.yaml, and serves them.
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

// Path is where the document is served, SchemaPath where the JSON Schema of .devpilot.yaml is.
const (
	Path       = "/openapi.json"
	SchemaPath = "/schemas/devpilot.schema.json"
)

//go:embed openapi.json
var document []byte

// The deployer reads .devpilot.yaml and has its schema; `make generate` copies it here.
//
//go:embed devpilot.schema.json
var schema []byte

// Document is the description as it is served.
func Document() []byte { return bytes.Clone(document) }

var (
	documentETag = rest.ContentETag(document)
	schemaETag   = rest.ContentETag(schema)
)

// Serves tells whether a path is one of the two.
func Serves(path string) bool { return path == Path || path == SchemaPath }

// Serve serves them; clients may keep them and ask whether they changed.
func Serve(w http.ResponseWriter, r *http.Request) {
	body, etag, kind := document, documentETag, "application/json"
	if r.URL.Path == SchemaPath {
		body, etag, kind = schema, schemaETag, "application/schema+json"
	}
	edge.Of(r.Context()).Route = r.URL.Path
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", kind)
	rest.SendTagged(w, r, etag, body)
}
