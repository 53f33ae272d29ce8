// Package apidocs serves the reference of the API at /docs/api: pages made of the OpenAPI document, each
// operation with who may call it, what it takes and answers, its reasons with what to do, and examples for
// curl, the command line and TypeScript that can be run as they stand.
//
// The pages have no script and nothing from elsewhere; their style is allowed by its hash. They are made once,
// when somebody first asks, and anybody may read them, as the document itself.
//
// A request goes: path → the page of that name → ETag. It depends on internal/openapi and internal/rest.
package apidocs

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/openapi"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

// Path is the first page; the others are below it.
const Path = "/docs/api"

// reasonsPage is the name of the page with all reasons; no operation is called so.
const reasonsPage = "reasons"

// Serves tells whether a path is one of the pages.
func Serves(path string) bool { return path == Path || strings.HasPrefix(path, Path+"/") }

// Handler serves the pages. It is safe for concurrent use.
type Handler struct {
	pages func() (*site, error)
}

// site is all pages, and the policy that they are sent with.
type site struct {
	policy string
	pages  map[string]page
}

type page struct {
	etag string
	body []byte
}

// New makes a handler whose examples name the address of this installation.
func New(publicURL string) *Handler {
	address := strings.TrimSuffix(publicURL, "/")
	return &Handler{pages: sync.OnceValues(func() (*site, error) { return build(openapi.Document(), address) })}
}

// Serve answers a GET or HEAD of a page.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, Path), "/")
	note := edge.Of(r.Context())
	note.Route = Path
	if name != "" {
		note.Route = Path + "/{operation}"
	}
	all, err := h.pages()
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	p, ok := all.pages[name]
	if !ok {
		edge.Fail(w, r, apierr.New(apierr.ReasonNotFound, "The API has no operation of that name. All of them are listed at "+Path+"."))
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", all.policy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cache-Control", "no-cache")
	rest.SendTagged(w, r, p.etag, p.body)
}

// policy allows the one style, and the icon.
func policy(style []byte) string {
	sum := sha256.Sum256(style)
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
}
