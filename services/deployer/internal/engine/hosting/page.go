package hosting

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
)

// page is the plain page of our own: for what no site has a page for.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
</html>
`))

// writePage answers with our own page. What was decided for the site's file is taken back.
func writePage(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	var body bytes.Buffer
	// The template is constant and the buffer takes everything: nothing can fail here.
	_ = page.Execute(&body, struct{ Title, Text string }{title, text})
	h := w.Header()
	for _, name := range []string{"Etag", "Last-Modified", "Content-Encoding", "Content-Disposition", "Accept-Ranges"} {
		h.Del(name)
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // a visitor who left needs no answer
	}
}

func (s *Server) unknownHost(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusNotFound, "No site has this address",
		fmt.Sprintf("An address has the form app.workspace.%s for the live release, or number--app.workspace.%s for a kept one.", s.host, s.host))
}

func notServed(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusNotFound, "Nothing is served here",
		"No app of this name is served. If it is yours: set its serve.directory, and deploy it once.")
}

func gone(w http.ResponseWriter, r *http.Request, name Name) {
	writePage(w, r, http.StatusGone, "This release is gone",
		fmt.Sprintf("Release %d of %s is not kept any more. Newer releases took its place.", name.Number, name.App))
}

func noDirectory(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusNotFound, "Nothing to serve in this release",
		"The release has no directory of the name that the app's serve.directory says. Links do not count.")
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusNotFound, "Page not found", "This release has no such page.")
}

func malformed(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusBadRequest, "Malformed address", "The path of this address cannot name a page.")
}

func unavailable(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "2")
	writePage(w, r, http.StatusServiceUnavailable, "Not available right now", "The page cannot be read at the moment. Try again in a few seconds.")
}

// The pages about releases of another server name neither it nor its address: who visits a site must not
// learn how the installation is built.

func serverAway(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "10")
	writePage(w, r, http.StatusServiceUnavailable, "Not available right now",
		"The server that holds this site does not answer. Try again in a minute; if it stays so, tell whoever runs this installation.")
}

func serverStrange(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "10")
	writePage(w, r, http.StatusBadGateway, "Not available right now",
		"Where the server that holds this site should answer, something else does. Tell whoever runs this installation.")
}

func siteMoving(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "2")
	writePage(w, r, http.StatusServiceUnavailable, "Not available right now",
		"This site is moving to another server at the moment. Try again in a few seconds.")
}

// misdirected is for another worker; visitors get siteMoving instead.
func misdirected(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusMisdirectedRequest, "Not served here", "Another server has this site, or none.")
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", "GET, HEAD")
	writePage(w, r, http.StatusMethodNotAllowed, "Method not allowed", "Releases are served read-only: GET and HEAD.")
}
