package emulator

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
)

// exchange is what is known about the request being served.
type exchange struct {
	record RequestRecord
	// faults that apply to the answer itself rather than replace it.
	foreignNext bool
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	if x, ok := r.Context().Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{}
}

// newHandler builds the routing table. Unsafe requests from other sites' pages are refused, because sign-in and consent
// are cookies and forms.
func (e *Emulator) newHandler() http.Handler {
	var table routes
	e.addAPIRoutes(&table)
	e.addOAuthRoutes(&table)
	e.addGitRoutes(&table)
	e.addPageRoutes(&table)
	e.table = table
	control := e.newControlHandler()
	main := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, controlPrefix) {
			control.ServeHTTP(w, r)
			return
		}
		e.serve(table, w, r)
	})
	protection := http.NewCrossOriginProtection()
	if err := protection.AddTrustedOrigin(e.opts.SiteURL); err != nil {
		e.opts.Logger.Error("site URL is no origin", logs.Err(err)) // check() saw to it that it is
	}
	return protection.Handler(main)
}

// serve finds the route, applies faults and latency, answers, and writes the journal.
func (e *Emulator) serve(table routes, w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	path := r.URL.EscapedPath()
	rt, p, allowed := table.match(r.Method, path)
	isAPI := path == "/2.0" || strings.HasPrefix(path, "/2.0/")
	if isAPI && (rt == nil || rt.api == nil) {
		rt, p = nil, nil
	}
	x := &exchange{record: RequestRecord{Time: e.now(), Method: r.Method, Path: path}}
	if isAPI {
		x.record.Query = redactQuery(r.URL.RawQuery)
		e.journal.begin()
		defer e.journal.end()
	}
	if rt != nil {
		x.record.Route = rt.name()
	}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		x.record.Status = sw.status
		x.record.Duration = time.Since(started)
		e.journal.add(x.record, strconv.Itoa(sw.status))
	}()
	if rt == nil {
		e.serveUnknown(sw, isAPI, allowed)
		return
	}
	if rt.delayed && !pause(r.Context(), e.currentSwitches().Latency) {
		return
	}
	e.serveFaulty(sw, r, rt, p)
}

func (e *Emulator) dispatch(w http.ResponseWriter, r *http.Request, rt *route, p params) {
	if rt.api == nil {
		rt.serve(w, r, p)
		return
	}
	e.serveAPI(w, r, rt, p)
}

func (e *Emulator) serveUnknown(w http.ResponseWriter, isAPI bool, allowed []string) {
	if len(allowed) > 0 {
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(slices.Compact(allowed), ", "))
		e.send(w, failure(http.StatusMethodNotAllowed, "Method not allowed"))
		return
	}
	if isAPI {
		e.send(w, response{status: http.StatusNotFound, body: obj{"type": "error", "error": obj{
			"message": "Resource not found", "detail": "There is no API hosted at this URL.",
		}}})
		return
	}
	e.errorPage(w, http.StatusNotFound, "Repository not found", "There is nothing at this address.")
}

func (e *Emulator) send(w http.ResponseWriter, answer response) {
	if err := answer.send(w); err != nil {
		e.opts.Logger.Debug("answer not sent", logs.Err(err))
	}
}

// pause waits d, or returns false when the request ends first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// redactQuery keeps a token that was wrongly put into the query out of the journal.
func redactQuery(query string) string {
	if strings.Contains(strings.ToLower(query), "token") {
		return "[redacted]"
	}
	return query
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (w *statusWriter) WriteHeader(status int) {
	if !w.wrote {
		w.status, w.wrote = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap serves http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// buffer is an http.ResponseWriter that keeps the answer in memory.
type buffer struct {
	header http.Header
	status int
	body   []byte
}

func newBuffer() *buffer { return &buffer{header: http.Header{}} }

func (b *buffer) Header() http.Header { return b.header }

func (b *buffer) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	b.body = append(b.body, p...)
	return len(p), nil
}
