package edge

import (
	"context"
	"log/slog"
	"net/http"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
)

// Request is what the access line says about a request beyond its method and answer. The handlers
// of one request fill it in, one after another.
type Request struct {
	Route     string // the template, or a fixed path; never what the caller sent
	Subject   string
	Workspace string
	Err       error // why it failed
	Client    string
}

type requestKey struct{}

// Of returns the request's notes; never nil.
func Of(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey{}).(*Request); ok {
		return r
	}
	return &Request{}
}

// ClientAddress is the address of the client as far as trusted proxies tell.
func ClientAddress(ctx context.Context) string { return Of(ctx).Client }

// Fail answers with err as problem+json and notes it for the access line. An error that nobody typed
// gets an id that the answer and the line share.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	e := Typed(err)
	Of(r.Context()).Err = e
	apierr.WriteProblem(w, rpc.RequestID(r.Context()), e)
}

// Typed is err in its public form. An INTERNAL error gets an id for the log, if it has none.
func Typed(err error) *apierr.Error {
	e := apierr.From(err)
	if e.Kind() == apierr.Internal && e.Detail(apierr.DetailErrorID) == "" {
		return apierr.InternalWithID(rpc.NewRequestID()[:12], err)
	}
	return e
}

func errorAttrs(err error) []slog.Attr {
	if err == nil {
		return nil
	}
	e := apierr.From(err)
	attrs := []slog.Attr{
		slog.String(logs.KeyReason, string(e.Reason())), slog.String(logs.KeyErrKind, e.Kind().String()), logs.Err(err),
	}
	if id := e.Detail(apierr.DetailErrorID); id != "" {
		attrs = append(attrs, slog.String(logs.KeyErrorID, id))
	}
	return attrs
}
