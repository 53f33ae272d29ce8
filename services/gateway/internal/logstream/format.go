package logstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/terminal"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/live"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

type format string

const (
	formatNDJSON format = "ndjson"
	formatSSE    format = "sse"
	formatText   format = "text"
)

func (f format) contentType() string {
	switch f {
	case formatSSE:
		return "text/event-stream"
	case formatText:
		return "text/plain; charset=utf-8"
	case formatNDJSON:
	}
	return "application/x-ndjson"
}

// request is what a client asks for.
type request struct {
	*deployerv1.ReadLogRequest
	format format
	// resumes is set for a browser that comes back by itself: what it has had is not told again.
	resumes bool
}

// parse reads path, query and headers.
func parse(r *http.Request, params map[string]string) (request, error) {
	var faults apierr.Faults
	number, err := strconv.ParseInt(params["number"], 10, 32)
	if err != nil || number < 1 {
		faults.Add("number", "must be a deployment's number, from 1")
	}
	query, err := rest.ParseQuery(r.URL.RawQuery, &faults)
	if err != nil {
		return request{}, err
	}
	req := request{
		ReadLogRequest: &deployerv1.ReadLogRequest{Workspace: params["workspace"], App: params["app"], Number: int32(number)}, // it was read as 32 bits
		format:         accepted(r.Header.Get("Accept")),
	}
	for name, values := range query {
		v := values[len(values)-1]
		if len(values) > 1 {
			faults.Add(name, "must be given once")
		}
		switch name {
		case "after":
			req.After = count(name, v, &faults)
		case "tail":
			req.Tail = count(name, v, &faults)
		case "follow":
			req.Follow = flag(name, v, &faults)
		case "format":
			switch req.format = format(v); req.format {
			case formatNDJSON, formatSSE, formatText:
			default:
				faults.Add(name, "must be ndjson, sse or text")
			}
		default:
			rest.UnknownParameter(name, []string{"after", "follow", "format", "tail"}, &faults)
		}
	}
	// What the browser sends when it comes back counts more than what the page asked for at first.
	if id := r.Header.Get(rest.HeaderLastEventID); id != "" && req.format == formatSSE {
		req.After, req.Tail, req.resumes = count(rest.HeaderLastEventID, id, &faults), 0, true
	}
	return req, faults.Err()
}

func count(name, v string, faults *apierr.Faults) int32 {
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil || n < 0 {
		faults.Add(name, "must be a whole number, 0 or more")
	}
	return int32(n) // it was read as 32 bits
}

// flag takes ?follow too, as people type it.
func flag(name, v string, faults *apierr.Faults) bool {
	switch v {
	case "true", "1", "":
		return true
	case "false", "0":
	default:
		faults.Add(name, "must be true or false")
	}
	return false
}

// accepted takes the first of ours that the Accept header names.
func accepted(accept string) format {
	for entry := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(entry, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "text/event-stream":
			return formatSSE
		case "text/plain":
			return formatText
		case "application/x-ndjson", "application/json":
			return formatNDJSON
		}
	}
	return formatNDJSON
}

// writer writes parts of a log in one of the formats.
type writer struct {
	out    *live.Writer
	format format
	last   int32 // the line that the client has
}

func (w *writer) records(list []*deployerv1.LogRecord) error {
	if len(list) == 0 {
		return nil // deployer's heartbeat; ours go their own way
	}
	var b bytes.Buffer
	for _, rec := range list {
		if w.format == formatText {
			fmt.Fprintf(&b, "%s %-19s %s\n", rec.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000Z"), rec.GetStage(), terminal.Strip(rec.GetText()))
			continue
		}
		line, err := rest.Marshal(rec)
		if err != nil {
			return err
		}
		if w.format == formatSSE {
			b.Write(live.Event(strconv.Itoa(int(rec.GetLine())), "record", line))
		} else {
			b.Write(append(line, '\n'))
		}
	}
	w.last = list[len(list)-1].GetLine()
	_, err := w.out.Write(b.Bytes())
	return err
}

func (w *writer) end(e *deployerv1.LogEnd) error {
	if w.format == formatText {
		_, err := fmt.Fprintf(w.out, "-- end: %s\n", e.GetState())
		return err
	}
	inner, err := rest.Marshal(e)
	if err != nil {
		return err
	}
	return w.object("end", "end", strconv.Itoa(int(w.last)), inner)
}

// fail ends a stream that has begun; the client is told why, in place of the end.
func (w *writer) fail(r *http.Request, err error) {
	e := edge.Typed(err)
	edge.Of(r.Context()).Err = e
	if w.format == formatText {
		_, _ = fmt.Fprintf(w.out, "-- cut: %s\n", e.Message()) // it ends either way
		return
	}
	inner, merr := json.Marshal(e.Problem(rpc.RequestID(r.Context())))
	if merr == nil {
		_ = w.object("error", "problem", "", inner) // it ends either way
	}
}

// heartbeat says that the stream lives. Plain text has no place for that.
func (w *writer) heartbeat(now time.Time) error {
	switch w.format {
	case formatSSE:
		_, err := w.out.Write([]byte(live.HeartbeatComment))
		return err
	case formatNDJSON:
		return w.object("heartbeat", "", "", fmt.Appendf(nil, `{"time":%q}`, now.UTC().Format(time.RFC3339)))
	case formatText:
	}
	return nil
}

// object writes {"name":inner}; event is its name among server-sent events, where "error" is taken by
// the browser itself. The end has an id, the last line's: a browser comes back after it with that, also
// to a log without lines.
func (w *writer) object(name, event, id string, inner []byte) error {
	line := fmt.Appendf(nil, `{%q:%s}`, name, inner)
	if w.format == formatSSE {
		line = live.Event(id, event, line)
	} else {
		line = append(line, '\n')
	}
	_, err := w.out.Write(line)
	return err
}
