// Package activityexport serves the activity list as a file: CSV for spreadsheets, JSON lines for
// programs. It reads the list page by page, as the API gives it, and holds one page at a time.
//
// It depends on internal/rest, internal/routes, internal/edge and internal/live.
package activityexport

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/live"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

const (
	// maxPages bounds a file: it is 20,000 records at most. The rest is behind the trailer's token.
	maxPages    = 100
	pageTimeout = 30 * time.Second // of one page of the list
	// NextPageTrailer has the token to go on with, when there is more than one file takes.
	NextPageTrailer = "Next-Page-Token"
	formatParameter = "format"
)

// Handler serves the export.
type Handler struct {
	Gateway gatewayv1.GatewayServiceClient
	Streams *live.Streams
	Now     func() time.Time
}

// Serve implements rest.Stream.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, params map[string]string) {
	req, format, err := parse(r, params)
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	c, _ := caller.From(r.Context())
	leave, err := h.Streams.Enter(c.Subject)
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	defer leave()
	page, err := h.page(r.Context(), req)
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	name := fmt.Sprintf("activity-%s-%s.%s", req.GetWorkspace(), h.Now().UTC().Format(time.DateOnly), format)
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	w.Header().Set("Trailer", NextPageTrailer)
	out := live.Begin(w, format.contentType())
	for pages, first := 1, true; ; pages, first = pages+1, false {
		part, err := format.encode(page.GetActivity(), first)
		if err == nil {
			_, err = out.Write(part)
		}
		req.PageToken = page.GetNextPageToken()
		if err == nil && req.GetPageToken() != "" && pages < maxPages {
			if page, err = h.page(r.Context(), req); err == nil {
				continue
			}
		}
		if err != nil {
			panic(http.ErrAbortHandler) // a file that is cut must not look like a whole one
		}
		w.Header().Set(NextPageTrailer, req.GetPageToken())
		return
	}
}

func (h *Handler) page(ctx context.Context, req *gatewayv1.ListActivityRequest) (*gatewayv1.ListActivityResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return h.Gateway.ListActivity(ctx, req)
}

// parse reads the query: the list's filters, and the format.
func parse(r *http.Request, params map[string]string) (*gatewayv1.ListActivityRequest, format, error) {
	var faults apierr.Faults
	query, err := rest.ParseQuery(r.URL.RawQuery, &faults)
	if err != nil {
		return nil, "", err
	}
	asked := formatCSV
	if values, ok := query[formatParameter]; ok {
		asked = format(values[0])
		if len(values) > 1 {
			faults.Add(formatParameter, "must be given once")
		}
		if !slices.Contains(formats, asked) {
			faults.Add(formatParameter, "must be csv or jsonl")
		}
		query.Del(formatParameter)
	}
	if query.Has("pageSize") {
		faults.Add("pageSize", "the export has no pages; narrow it with after and before")
		query.Del("pageSize")
	}
	req := &gatewayv1.ListActivityRequest{}
	rest.CheckQuery(query, routes.Route{Template: routes.ActivityExportTemplate, Input: req.ProtoReflect().Descriptor()}, &faults)
	if err := faults.Err(); err != nil {
		return nil, "", err
	}
	if err := populate(req, query); err != nil {
		return nil, "", err
	}
	req.Workspace, req.PageSize = params["workspace"], pagetoken.MaxPage
	return req, asked, nil
}

func populate(req *gatewayv1.ListActivityRequest, query url.Values) error {
	if err := runtime.PopulateQueryParameters(req, query, utilities.NewDoubleArray(nil)); err != nil {
		return apierr.New(apierr.ReasonInvalidArgument, "The query cannot be read.")
	}
	return nil
}
