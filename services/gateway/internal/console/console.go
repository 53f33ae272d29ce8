// Package console serves the web console: its one HTML page for every address that it has, with a
// fresh nonce each time, and the built files that the page loads, which never change under a name.
//
// The console is built from services/gateway/console by `make console` into dist, which is not
// committed. Without it the gateway compiles all the same and the page says how to build it.
//
// It depends on internal/edge and internal/pages only.
package console

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/pages"
)

//go:embed all:dist
var built embed.FS

// Embedded is what was built when the program was: the directory that holds index.html, or nothing.
func Embedded() fs.FS {
	site, err := fs.Sub(built, "dist/site")
	if err != nil {
		panic(err) // the path is a constant and valid
	}
	return site
}

const (
	// Prefix is where the console's own addresses begin: /w/<workspace>/…
	Prefix = "/w/"
	// AssetPrefix is where its files are.
	AssetPrefix = "/assets/"

	// nonceWord stands in the built page where the nonce goes (console/vite.config.ts).
	nonceWord = "__CSP_NONCE__"
)

// Console serves the page and its files. It is immutable and safe for concurrent use.
type Console struct {
	files  fs.FS
	page   []byte
	pages  *pages.Pages
	images string // origins of pictures, for the policy
}

// New reads the built page from site. bitbucketSite is an origin that accounts' pictures may come
// from beside all of https: that of an emulator.
func New(site fs.FS, p *pages.Pages, bitbucketSite string) (*Console, error) {
	page, err := fs.ReadFile(site, "index.html")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &Console{files: site, page: page, pages: p, images: "'self' data: https:"}
	if u, err := url.Parse(bitbucketSite); err == nil && u.Scheme == "http" && u.Host != "" {
		c.images += " http://" + u.Host
	}
	return c, nil
}

// Built says whether there is a console.
func (c *Console) Built() bool { return len(c.page) > 0 }

// ServePage answers with the console's page, whichever of its addresses was asked for. What the
// visitor may see is decided by the API.
func (c *Console) ServePage(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = "console"
	if !c.Built() {
		err := c.pages.Message(w, pages.Message{
			Status: http.StatusNotFound, Title: "The console is not part of this program",
			Text:   "It was built without Node.js.",
			Remedy: "Install Node.js 20 or newer with npm, run make console and build again. The API serves all that the console does: see /openapi.json.",
		})
		if err != nil {
			edge.Fail(w, r, err)
		}
		return
	}
	nonce := newNonce()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", c.policy(nonce))
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	// The page carries a nonce and names the files of this version: it is never kept.
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(bytes.ReplaceAll(c.page, []byte(nonceWord), []byte(nonce))) // a client that went away is no error of ours
}

// policy allows our own files, what carries the nonce, our own API and pictures; nothing inline.
func (c *Console) policy(nonce string) string {
	own := "'self' 'nonce-" + nonce + "'"
	return strings.Join([]string{
		"default-src 'none'", "script-src " + own, "style-src " + own, "connect-src 'self'", "img-src " + c.images,
		"form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
	}, "; ")
}

func newNonce() string {
	raw := make([]byte, 18)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	return base64.StdEncoding.EncodeToString(raw)
}

// encodings are the forms in which a file may lie beside itself, best first.
var encodings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// mediaTypes are the kinds of files that the console is built into: a machine's own table may know others.
var mediaTypes = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json", ".map": "application/json",
	".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp", ".ico": "image/x-icon", ".woff": "font/woff", ".woff2": "font/woff2",
	".txt": "text/plain; charset=utf-8", ".html": "text/html; charset=utf-8", ".wasm": "application/wasm",
}

// ServeAsset answers with a built file. Its name holds a hash of its content, so that browsers keep
// it for good.
func (c *Console) ServeAsset(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = "console asset"
	name := strings.TrimPrefix(r.URL.Path, "/")
	media := mediaTypes[path.Ext(name)]
	if !fs.ValidPath(name) || media == "" {
		notFound(w, r)
		return
	}
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	for _, e := range encodings {
		if !edge.Accepts(r.Header.Get("Accept-Encoding"), e.name) {
			continue
		}
		if content, err := fs.ReadFile(c.files, name+e.suffix); err == nil {
			h.Set("Content-Encoding", e.name)
			send(w, r, media, content)
			return
		}
	}
	content, err := fs.ReadFile(c.files, name)
	if err != nil {
		notFound(w, r)
		return
	}
	send(w, r, media, content)
}

func send(w http.ResponseWriter, r *http.Request, media string, content []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Length", fmt.Sprint(len(content)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(content) // a client that went away is no error of ours
}

// notFound is never kept: the next version of the console may have the file.
func notFound(w http.ResponseWriter, r *http.Request) {
	edge.Fail(w, r, apierr.New(apierr.ReasonNotFound, "There is no such file. Reload the page: the console may have been updated."))
}
