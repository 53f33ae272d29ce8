package events

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/live"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

// Handler serves the stream.
type Handler struct {
	Hub     *Hub
	Streams *live.Streams
	// Callers say who a reader is today; Objects read what changes bring along.
	Callers interface {
		Identify(ctx context.Context, c caller.Caller, workspace string) (context.Context, error)
	}
	Objects *Objects
}

// The names of the events.
const (
	nameChange = "change" // something changed: look again
	nameReady  = "ready"  // you are up to date; from here on it is live
	nameReset  = "reset"  // you missed something: load everything again
	nameEnd    = "end"    // your session ended, or your membership
)

// Serve answers one request for the stream. The caller is in the context.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, params map[string]string) {
	workspace := params["workspace"]
	ask, err := asked(r)
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
	sub, at := h.Hub.Subscribe(workspace)
	defer sub.Close()
	var missed []Change
	if ask.resume {
		missed, err = h.Hub.between(r.Context(), workspace, ask.after, at)
		if err != nil && !errors.Is(err, errTooFar) {
			edge.Fail(w, r, apierr.New(apierr.ReasonStorageUnavailable, "The changes that you missed cannot be read now. Try again in a moment.", apierr.WithCause(err)))
			return
		}
	}
	shown := func(change Change) bool { return change.shownTo(c.Apps) && ask.wanted.wants(change) }
	missed = slices.DeleteFunc(missed, func(change Change) bool { return !shown(change) })
	name := nameReady
	if err != nil {
		name = nameReset
	}
	q := &queue{objects: h.Objects, want: ask.include, identify: func() (context.Context, bool) {
		ctx, err := h.Callers.Identify(r.Context(), c, workspace)
		return ctx, err == nil
	}}
	q.missed(missed)
	q.other(live.Event(eventID(at), name, []byte(`{}`)))
	out := live.Begin(w, "text/event-stream")
	if _, err := out.Write([]byte("retry: 2000\n\n")); err != nil {
		return
	}
	h.follow(r, out, sub, workspace, q, shown)
}

// follow hands on what comes until the client goes, falls behind, may not read any more, or the
// process stops.
func (h *Handler) follow(r *http.Request, out *live.Writer, sub *Subscription, workspace string, q *queue, shown func(Change) bool) {
	beat := time.NewTicker(h.Streams.Heartbeat)
	defer beat.Stop()
	late := time.NewTimer(0)
	defer late.Stop()
	changed := h.Streams.Changed()
	for {
		if data := q.due(); len(data) > 0 {
			if _, err := out.Write(data); err != nil {
				return
			}
		}
		first, until := q.next()
		var tooLate <-chan time.Time
		if !until.IsZero() {
			late.Reset(time.Until(until))
			tooLate = late.C
		}
		select {
		case <-r.Context().Done():
			return
		case <-h.Streams.Stopped():
			return
		case c, ok := <-sub.C:
			if !ok {
				return
			}
			if shown(c) {
				q.change(c)
			}
		case <-first:
		case <-tooLate:
		case <-changed:
			changed = h.Streams.Changed()
			if h.ended(r, out, workspace) {
				return
			}
		case <-beat.C:
			if h.ended(r, out, workspace) {
				return
			}
			if _, err := out.Write([]byte(live.HeartbeatComment)); err != nil {
				return
			}
		}
	}
}

// ended tells a client that may not read any more.
func (h *Handler) ended(r *http.Request, out *live.Writer, workspace string) bool {
	err := h.Streams.Check(r.Context(), workspace)
	if err != nil {
		_, _ = out.Write(live.Event("", nameEnd, fmt.Appendf(nil, `{"reason":%q}`, apierr.ReasonOf(err)))) // it ends either way
	}
	return err != nil
}

// eventID is the id of the event at a place in the stream.
func eventID(place uint64) string { return strconv.FormatUint(place, 10) }

// asking is what a client asks for: where it resumes, by the header that browsers send by themselves or a parameter for
// the first connection of a page that was loaded earlier, what it wants to hear of, and what that brings along.
type asking struct {
	resume  bool
	after   uint64
	wanted  filter
	include included
}

func asked(r *http.Request) (a asking, err error) {
	var faults apierr.Faults
	query, err := rest.ParseQuery(r.URL.RawQuery, &faults)
	if err != nil {
		return asking{}, err
	}
	known := []string{paramLast, paramKind, paramApp, paramInclude}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name):
			rest.UnknownParameter(name, known, &faults)
		case name != paramKind && name != paramInclude && len(values) > 1:
			faults.Add(name, "must be there once")
		}
	}
	from, text := rest.HeaderLastEventID, r.Header.Get(rest.HeaderLastEventID)
	if text == "" {
		from, text = paramLast, query.Get(paramLast)
	}
	if a.resume = text != ""; a.resume {
		if a.after, err = strconv.ParseUint(text, 10, 64); err != nil {
			faults.Add(from, "must be the id of an event of this stream")
		}
	}
	a.wanted, a.include = newFilter(query, &faults), newIncluded(query, &faults)
	return a, faults.Err()
}
