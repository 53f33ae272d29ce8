package logstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
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

// parse reads path, query and headers.
func parse(r *http.Request, params map[string]string) (*deployerv1.ReadLogRequest, format, error) {
	number, err := strconv.ParseInt(params["number"], 10, 32)
	if err != nil || number < 1 {
		return nil, "", apierr.InvalidArgument("number", "must be a deployment's number, from 1")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, "", apierr.New(apierr.ReasonInvalidArgument, "The query cannot be read.")
	}
	req := &deployerv1.ReadLogRequest{Workspace: params["workspace"], App: params["app"], Number: int32(number)}
	f := accepted(r.Header.Get("Accept"))
	for name, values := range query {
		v := values[len(values)-1]
		switch name {
		case "after":
			req.After, err = count(name, v)
		case "tail":
			req.Tail, err = count(name, v)
		case "follow":
			req.Follow, err = flag(name, v)
		case "format":
			f, err = named(v)
		default:
			err = apierr.New(apierr.ReasonInvalidArgument, fmt.Sprintf("There is no parameter %q; known are: after, follow, format, tail.", name), apierr.WithField(name, "unknown parameter"))
		}
		if err != nil {
			return nil, "", err
		}
	}
	// What the browser sends when it comes back counts more than what the page asked for at first.
	if id := r.Header.Get("Last-Event-ID"); id != "" && f == formatSSE {
		if req.After, err = count("Last-Event-ID", id); err != nil {
			return nil, "", err
		}
		req.Tail = 0
	}
	return req, f, nil
}

func count(name, v string) (int32, error) {
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil || n < 0 {
		return 0, apierr.InvalidArgument(name, "must be a whole number, 0 or more")
	}
	return int32(n), nil
}

// flag takes ?follow too, as people type it.
func flag(name, v string) (bool, error) {
	switch v {
	case "true", "1", "":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, apierr.InvalidArgument(name, "must be true or false")
}

func named(v string) (format, error) {
	switch f := format(v); f {
	case formatNDJSON, formatSSE, formatText:
		return f, nil
	}
	return "", apierr.InvalidArgument("format", "must be ndjson, sse or text")
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
	return w.object("end", "end", inner)
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
		_ = w.object("error", "problem", inner) // it ends either way
	}
}

// heartbeat says that the stream lives. Plain text has no place for that.
func (w *writer) heartbeat(now time.Time) error {
	switch w.format {
	case formatSSE:
		_, err := w.out.Write([]byte(live.HeartbeatComment))
		return err
	case formatNDJSON:
		return w.object("heartbeat", "", fmt.Appendf(nil, `{"time":%q}`, now.UTC().Format(time.RFC3339)))
	case formatText:
	}
	return nil
}

// object writes {"name":inner}; event is its name among server-sent events, where "error" is taken by
// the browser itself.
func (w *writer) object(name, event string, inner []byte) error {
	line := fmt.Appendf(nil, `{%q:%s}`, name, inner)
	if w.format == formatSSE {
		line = live.Event("", event, line)
	} else {
		line = append(line, '\n')
	}
	_, err := w.out.Write(line)
	return err
}
