// Package logstream serves a deployment's log over HTTP: as NDJSON, as server-sent events that
// resume by Last-Event-ID, or as plain text, from deployer's ReadLog.
//
// A log that ended ends with {"end":{"state":…}}, so that a cut differs from an end. Trouble after
// the first byte is a last {"error":…} in place of it. A browser that comes back (Last-Event-ID) after
// the end of a log that has ended gets 204, by which it stops.
//
// It depends on the client of deployer and internal/live.
package logstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/live"
)

// firstWait is how long an error may take to arrive as a proper answer; then the stream begins.
const firstWait = time.Second

// resumeWait is how long a browser that comes back waits to hear whether there is anything left.
const resumeWait = 5 * time.Second

// Handler serves logs.
type Handler struct {
	Deployer deployerv1.DeployerServiceClient
	Streams  *live.Streams
	Now      func() time.Time
}

type part struct {
	msg *deployerv1.ReadLogResponse
	err error
}

// Serve answers one request for a log. The caller and its identity are in the context.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, params map[string]string) {
	req, err := parse(r, params)
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
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	parts, err := h.read(ctx, req.ReadLogRequest)
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	first := begin(ctx, parts, req.resumes)
	switch {
	case ctx.Err() != nil:
		return
	case first != nil && first.err != nil && !errors.Is(first.err, io.EOF):
		edge.Fail(w, r, first.err)
		return
	case first != nil && req.resumes && isOver(first.msg):
		w.WriteHeader(http.StatusNoContent) // by which an EventSource stops coming back
		return
	}
	out := &writer{out: live.Begin(w, req.format.contentType()), format: req.format, last: req.GetAfter()}
	h.follow(r, out, first, parts, req.GetWorkspace())
}

// begin waits for the first part, so that an error that comes at once (no such deployment, not
// allowed) is answered as one, and so is a log that a browser has had to its end. nil when nothing
// comes for a while.
func begin(ctx context.Context, parts <-chan part, resumes bool) *part {
	limit := firstWait
	if resumes {
		limit = resumeWait
	}
	wait := time.NewTimer(limit)
	defer wait.Stop()
	for {
		select {
		case p := <-parts:
			if p.err == nil && p.msg.GetEnd() == nil && len(p.msg.GetRecords()) == 0 {
				continue // a heartbeat of the deployer
			}
			return &p
		case <-wait.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// isOver tells that nothing is left to be said of a log: the deployment has ended, and the client
// has every line.
func isOver(msg *deployerv1.ReadLogResponse) bool {
	if msg.GetEnd() == nil || len(msg.GetRecords()) > 0 {
		return false
	}
	switch msg.GetEnd().GetState() {
	case deployerv1.Deployment_COMPLETED, deployerv1.Deployment_FAILED, deployerv1.Deployment_CANCELLED, deployerv1.Deployment_SUPERSEDED:
		return true
	case deployerv1.Deployment_STATE_UNSPECIFIED, deployerv1.Deployment_PENDING, deployerv1.Deployment_PROCESSING:
	}
	return false
}

// read receives in the background until ctx is done; the channel then has no more parts.
func (h *Handler) read(ctx context.Context, req *deployerv1.ReadLogRequest) (<-chan part, error) {
	s, err := h.Deployer.ReadLog(ctx, req)
	if err != nil {
		return nil, err
	}
	parts := make(chan part)
	go func() {
		for {
			msg, err := s.Recv()
			select {
			case parts <- part{msg, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return parts, nil
}

func (h *Handler) follow(r *http.Request, out *writer, first *part, parts <-chan part, workspace string) {
	beat := time.NewTicker(h.Streams.Heartbeat)
	defer beat.Stop()
	if first != nil && h.hand(r, out, *first) {
		return
	}
	changed := h.Streams.Changed()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-h.Streams.Stopped():
			return
		case p := <-parts:
			if h.hand(r, out, p) {
				return
			}
		case <-changed:
			changed = h.Streams.Changed()
			if err := h.Streams.Check(r.Context(), workspace); err != nil {
				out.fail(r, err)
				return
			}
		case <-beat.C:
			if err := h.Streams.Check(r.Context(), workspace); err != nil {
				out.fail(r, err)
				return
			}
			if out.heartbeat(h.Now()) != nil {
				return
			}
		}
	}
}

// hand writes one part and says whether the stream is over.
func (h *Handler) hand(r *http.Request, out *writer, p part) (over bool) {
	switch {
	case errors.Is(p.err, io.EOF):
		out.fail(r, apierr.New(apierr.ReasonServiceUnavailable, "The log was cut before its end. Read on after the last line that you have."))
		return true
	case p.err != nil:
		if r.Context().Err() == nil {
			out.fail(r, p.err)
		}
		return true
	case p.msg.GetEnd() != nil:
		if out.records(p.msg.GetRecords()) == nil {
			_ = out.end(p.msg.GetEnd()) // the stream is over either way
		}
		return true
	default:
		return out.records(p.msg.GetRecords()) != nil
	}
}
