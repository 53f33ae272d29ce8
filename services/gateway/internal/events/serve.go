package events

import (
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
	resume, after, wanted, err := asked(r)
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
	if resume {
		missed, err = h.Hub.between(r.Context(), workspace, after, at)
		if err != nil && !errors.Is(err, errTooFar) {
			edge.Fail(w, r, apierr.New(apierr.ReasonStorageUnavailable, "The changes that you missed cannot be read now. Try again in a moment.", apierr.WithCause(err)))
			return
		}
	}
	out := live.Begin(w, "text/event-stream")
	first := []byte("retry: 2000\n\n")
	for _, change := range missed {
		if change.shownTo(c.Apps) && wanted.wants(change) {
			first = append(first, event(change)...)
		}
	}
	name := nameReady
	if err != nil {
		name = nameReset
	}
	first = append(first, live.Event(eventID(at), name, []byte(`{}`))...)
	if _, err := out.Write(first); err != nil {
		return
	}
	h.follow(r, out, sub, workspace, func(change Change) bool { return change.shownTo(c.Apps) && wanted.wants(change) })
}

// follow hands on what comes until the client goes, falls behind, may not read any more, or the
// process stops.
func (h *Handler) follow(r *http.Request, out *live.Writer, sub *Subscription, workspace string, shown func(Change) bool) {
	beat := time.NewTicker(h.Streams.Heartbeat)
	defer beat.Stop()
	changed := h.Streams.Changed()
	for {
		var data []byte
		select {
		case <-r.Context().Done():
			return
		case <-h.Streams.Stopped():
			return
		case c, ok := <-sub.C:
			if !ok {
				return
			}
			if !shown(c) {
				continue
			}
			data = event(c)
		case <-changed:
			changed = h.Streams.Changed()
			if h.ended(r, out, workspace) {
				return
			}
			continue
		case <-beat.C:
			if h.ended(r, out, workspace) {
				return
			}
			data = []byte(live.HeartbeatComment)
		}
		if _, err := out.Write(data); err != nil {
			return
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

func event(c Change) []byte {
	return live.Event(eventID(c.Sequence), nameChange, c.json())
}

// asked is where the client resumes, the header that browsers send by themselves or a parameter for the first
// connection of a page that was loaded earlier, and what it wants to hear of.
func asked(r *http.Request) (resume bool, after uint64, wanted filter, err error) {
	var faults apierr.Faults
	query, err := rest.ParseQuery(r.URL.RawQuery, &faults)
	if err != nil {
		return false, 0, filter{}, err
	}
	known := []string{paramLast, paramKind, paramApp}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name):
			rest.UnknownParameter(name, known, &faults)
		case name != paramKind && len(values) > 1:
			faults.Add(name, "must be there once")
		}
	}
	from, text := rest.HeaderLastEventID, r.Header.Get(rest.HeaderLastEventID)
	if text == "" {
		from, text = paramLast, query.Get(paramLast)
	}
	if text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			faults.Add(from, "must be the id of an event of this stream")
		}
	}
	wanted = newFilter(query, &faults)
	return text != "", after, wanted, faults.Err()
}
