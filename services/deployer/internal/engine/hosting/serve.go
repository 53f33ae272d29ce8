package hosting

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	indexFile    = "index.html"
	notFoundFile = "404.html"
	// revalidate lets every cache keep a copy and makes it ask each time: a rollback is visible at once,
	// and the ETag makes asking cheap.
	revalidate = "public, max-age=0, must-revalidate"
)

// serveSite answers from a release. Errors are trouble with the volume, before anything was written.
func (s *Server) serveSite(w *recorder, r *http.Request, site *Site, top *tree, path string, slash bool) error {
	rules, err := s.rules(r.Context(), top)
	if err != nil {
		return err
	}
	setHeaders(w.Header(), site, rules, r.URL.Path)
	file, redirect, err := locate(top, path, slash)
	switch {
	case err == nil && redirect:
		file.close()
		redirectToSlash(w, r)
		return nil
	case err == nil:
		defer file.close()
		return s.serveFile(w, r, site, file)
	case !errors.Is(err, errAbsent):
		return err
	}
	// Of the file that is missing nothing holds for what stands in for it.
	as := http.Header{}
	if site.Fallback != "" {
		w.Header().Add("Vary", "Accept, Sec-Fetch-Mode")
		setHeaders(as, site, rules, "/"+site.Fallback)
	}
	for _, name := range ofFile {
		w.Header().Del(name)
	}
	if site.Fallback != "" && navigates(r.Header, path) {
		file, err := top.file(site.Fallback)
		if err == nil {
			defer file.close()
			for _, name := range ofFile {
				if v := as.Values(name); len(v) > 0 {
					w.Header()[name] = v
				}
			}
			return s.serveFile(w, r, site, file)
		}
		if !errors.Is(err, errAbsent) {
			return err
		}
	}
	return s.serveNotFound(w, r, top)
}

// ofFile are the headers that say something of a file, not of a path.
var ofFile = []string{
	"Cache-Control", "Expires", "Pragma", "Cdn-Cache-Control", "Surrogate-Control", "Content-Type", "Content-Disposition", "Content-Language",
}

// navigates tells whether a path at which there is no file is asked for as a page. Browsers say so (Fetch
// Metadata); on plain http, and older ones, by what they accept. Of programs that take anything, the path
// has to tell: one that is named like a file of a kind that we know is meant to be that file.
func navigates(h http.Header, path string) bool {
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	any := len(h.Values("Accept")) == 0
	for member := range strings.SplitSeq(strings.Join(h.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(member, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "text/html", "application/xhtml+xml":
			return true
		case "*/*", "text/*", "":
			any = true
		}
	}
	return any && byExtension(path) == ""
}

// setHeaders sets what does not depend on the file: defaults, then what the site wants, then what it
// cannot change.
func setHeaders(h http.Header, site *Site, rules []rule, path string) {
	h.Set("Cache-Control", revalidate)
	h.Set("X-Frame-Options", "SAMEORIGIN")
	if len(rules) > 0 {
		if path == "" {
			path = "/"
		}
		apply(rules, path, h)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	if !site.Live {
		h.Set("X-Robots-Tag", "noindex")
	}
	if site.Number > 0 {
		h.Set("X-Devpilot-Release", strconv.Itoa(int(site.Number)))
	}
}

// file finds a regular file; errAbsent else.
func (t *tree) file(path string) (node, error) {
	n, err := t.walk(path)
	if err == nil && n.dir {
		n.close()
		return node{}, errAbsent
	}
	return n, err
}

// locate finds the file for a request's path: the path itself, or the index of the directory it names.
// redirect tells that the directory's name lacks its slash, without which the page's relative links
// would lead astray.
func locate(top *tree, path string, slash bool) (file node, redirect bool, err error) {
	n, err := top.walk(path)
	if err != nil {
		return node{}, false, err
	}
	if !n.dir {
		if slash {
			n.close()
			return node{}, false, errAbsent
		}
		return n, false, nil
	}
	n.close()
	n, err = top.file(path + "/" + indexFile)
	return n, err == nil && !slash, err
}

// redirectToSlash sends the visitor to the same path with a slash. The target is relative and begins
// with "./", so that no path can lead to another host.
func redirectToSlash(w *recorder, r *http.Request) {
	for _, name := range ofFile { // whatever the site says of its files
		w.Header().Del(name)
	}
	target := "./" + url.PathEscape(path.Base(r.URL.Path)) + "/"
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", target)
	w.Header().Set("Cache-Control", revalidate)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusMovedPermanently)
}

// serveFile answers with a file that was found, plain or compressed. Conditions, ranges and HEAD are
// http.ServeContent's. http.ServeFileFS is not used: it lists directories, follows links to hidden files, and knows
// neither an ETag nor what stands in for a missing page.
func (s *Server) serveFile(w *recorder, r *http.Request, site *Site, at node) error {
	file, err := at.open(at.base)
	if err != nil {
		return errGoneMeanwhile(err)
	}
	defer file.close()
	h := w.Header()
	kind := h.Get("Content-Type") // from _headers
	if kind == "" {
		if kind, err = mediaType(at.base, file); err != nil {
			return err
		}
		h.Set("Content-Type", kind)
	}
	settled, version := file.settled(s.now()), site.Version
	if file.shared {
		if !settled {
			return serveUnsettled(w, r, file, kind)
		}
		version = "" // it is the same file in all releases
	}
	sum, full, err := s.digests.of(r.Context(), file, version, at.path, settled)
	if err != nil {
		return err
	}
	tag := sum.tag()
	r = onlyExact(r, file.modTime())
	if full && compressible(kind) {
		h.Add("Vary", "Accept-Encoding")
		if r.Header.Get("Range") == "" {
			done, err := s.serveCoded(w, r, &at, file, sum)
			if done || err != nil {
				return err
			}
		}
	}
	h.Set("Etag", `"`+tag+`"`)
	http.ServeContent(w, r, "", file.modTime(), file)
	return nil
}

// serveUnsettled answers with a shared file that was written a moment ago, and may be written still,
// without the file's time being another. A small one is held in memory, so that its ETag is that of the
// bytes sent; a larger one gets no ETag, and nobody is to keep it.
func serveUnsettled(w *recorder, r *http.Request, file *content, kind string) error {
	if compressible(kind) {
		w.Header().Add("Vary", "Accept-Encoding")
	}
	r = onlyExact(r, time.Time{})
	if file.id.size > maxCompress {
		w.Header().Set("Cache-Control", "no-store")
		http.ServeContent(w, r, "", time.Time{}, file)
		return nil
	}
	bytesNow, err := file.whole()
	if err != nil {
		return err
	}
	w.Header().Set("Etag", `"`+digest(sha256.Sum256(bytesNow)).tag()+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bytesNow))
	return nil
}

// serveCoded answers with the form of the file that the visitor likes best, if it is not the plain one.
func (s *Server) serveCoded(w *recorder, r *http.Request, at *node, file *content, sum digest) (done bool, err error) {
	for _, o := range options(r.Header) {
		if o.ext == "" {
			form, ok, err := s.compressor.form(o.coding, file, sum)
			if err != nil {
				return false, err
			}
			if ok {
				serveForm(w, r, o.coding, sum.tag()+"-"+string(o.coding), file.modTime(), int64(len(form)), bytes.NewReader(form))
				return true, nil
			}
			continue
		}
		name := at.base + o.ext
		if _, ok := at.regular(name); !ok {
			continue
		}
		beside, err := at.open(name)
		if err != nil {
			continue // it is only another form: the plain file is there
		}
		if (!beside.shared || beside.settled(s.now())) && s.compressor.fresh(o.coding, beside, sum, file.id.size) {
			serveForm(w, r, o.coding, sum.tag()+"-"+o.ext[1:], file.modTime(), beside.id.size, beside)
			beside.close()
			return true, nil
		}
		beside.close()
	}
	return false, nil
}

// serveForm answers with a compressed form. Its ETag differs from that of the same coding made
// elsewhere, whose bytes may differ.
func serveForm(w *recorder, r *http.Request, coding coding, tag string, modified time.Time, size int64, form io.ReadSeeker) {
	h := w.Header()
	h.Set("Content-Encoding", string(coding))
	h.Set("Content-Length", strconv.FormatInt(size, 10)) // ServeContent leaves it to us beside a coding
	h.Set("Etag", `"`+tag+`"`)
	http.ServeContent(w, r, "", modified, form)
}

// onlyExact drops an If-Modified-Since that names another time than ours: after a rollback the file is
// older than the visitor's copy, and another one.
func onlyExact(r *http.Request, modified time.Time) *http.Request {
	since := r.Header.Get("If-Modified-Since")
	if since == "" {
		return r
	}
	if t, err := http.ParseTime(since); err == nil && t.Equal(modified.Truncate(time.Second)) {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Del("If-Modified-Since")
	return r
}

// serveNotFound answers with the site's 404.html, else with our own page.
func (s *Server) serveNotFound(w *recorder, r *http.Request, top *tree) error {
	at, err := top.file(notFoundFile)
	if errors.Is(err, errAbsent) {
		notFound(w, r)
		return nil
	}
	if err != nil {
		return err
	}
	defer at.close()
	file, err := at.open(at.base)
	if err != nil {
		return errGoneMeanwhile(err)
	}
	defer file.close()
	h := w.Header()
	h.Set("Cache-Control", revalidate) // "immutable" is for files, not for their absence
	h.Set("Content-Type", byExtension(notFoundFile))
	h.Set("Content-Length", strconv.FormatInt(file.id.size, 10))
	w.WriteHeader(http.StatusNotFound)
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, file) // the recorder notices a file that fails
	}
	return nil
}

// errGoneMeanwhile is for a file that was there a moment ago: to be asked for again, not to be reported.
func errGoneMeanwhile(err error) error {
	if errors.Is(err, errAbsent) {
		return errChanged
	}
	return err
}
