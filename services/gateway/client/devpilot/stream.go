package devpilot

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"
)

// Bounds of a stream: the longest line, and for how long nothing may come; Devpilot sends a heartbeat sooner.
const (
	maxLine     = 4 << 20
	silenceEnds = 90 * time.Second
)

// LogOf says which log is followed.
type LogOf struct {
	Workspace, App string
	Number         int32
	After          int32 // only lines after this one
	// Tail, where it is not 0, is how many of the lines that are there already are given.
	Tail int32
	// Once reads what is there and does not stay.
	Once bool
	// End, where it is not nil, hears how the deployment stands at the end of its log.
	End func(DeploymentState)
}

// FollowLog gives a deployment's log until the deployment ends: every line once, in order, however often the
// connection breaks. An error is the last.
func (c *Client) FollowLog(ctx context.Context, of LogOf) iter.Seq2[LogRecord, error] {
	return func(yield func(LogRecord, error) bool) {
		after := of.After
		for failures := 0; ; failures++ {
			ended, stopped, err := c.readLog(ctx, of, &after, func() { failures = 0 }, yield)
			if ended || stopped {
				return
			}
			if err == nil && of.Once {
				return
			}
			if err = resume(ctx, err, failures); err != nil {
				yield(LogRecord{}, err)
				return
			}
		}
	}
}

// readLog reads over one connection. ended says that the log has told its end, stopped that nobody wants more.
func (c *Client) readLog(ctx context.Context, of LogOf, after *int32, alive func(), yield func(LogRecord, error) bool) (ended, stopped bool, err error) {
	r := request{method: http.MethodGet, path: "/v1/workspaces/{workspace}/apps/{app}/deployments/{number}/log"}
	r.inPath("workspace", of.Workspace)
	r.inPath("app", of.App)
	r.inPath("number", of.Number)
	r.inQuery("follow", !of.Once)
	r.inQuery("after", *after)
	if of.Tail > 0 && *after == of.After {
		r.inQuery("tail", of.Tail)
	}
	r.inHeader("Accept", "application/x-ndjson")
	err = c.lines(ctx, r, func(text string) (bool, error) {
		if text == "" {
			return true, nil
		}
		var line struct {
			LogRecord
			End       *LogEnd         `json:"end"`
			Error     *Problem        `json:"error"`
			Heartbeat json.RawMessage `json:"heartbeat"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			return false, errCut
		}
		alive()
		switch {
		case line.End != nil:
			ended = true
			if of.End != nil {
				of.End(line.End.State)
			}
			return false, nil
		case line.Error != nil:
			return false, &Error{Problem: *line.Error}
		case line.Heartbeat != nil || line.Line <= *after:
			return true, nil
		}
		*after = line.Line
		if !yield(line.LogRecord, nil) {
			stopped = true
		}
		return !stopped, nil
	})
	return ended, stopped, err
}

// Event is what a workspace tells.
type Event struct {
	ID string
	// Kind is ready (from here on it is live), change, reset (something was missed: load everything again) or
	// end (the session ended; the last).
	Kind   string
	Change Change // of a change
	Reason Reason // of an end
}

// ChangeObject is what a change brought along, by its kind, as GET answers it; nil where it brought nothing.
type ChangeObject json.RawMessage

// UnmarshalJSON implements json.Unmarshaler.
func (o *ChangeObject) UnmarshalJSON(b []byte) error { return (*json.RawMessage)(o).UnmarshalJSON(b) }

// MarshalJSON implements json.Marshaler.
func (o ChangeObject) MarshalJSON() ([]byte, error) { return json.RawMessage(o).MarshalJSON() }

// Into reads the object: an *App, *Deployment, *Integration or *Webhook, by the kind of the change. It is an error where
// the change brought nothing.
func (o *ChangeObject) Into(v any) error {
	if o == nil {
		return errors.New("devpilot: the change brought no object")
	}
	return json.Unmarshal(*o, v)
}

// EventsOf says which changes are followed, and what they bring along.
type EventsOf struct {
	Workspace   string
	LastEventID string   // go on after this event
	Kinds       []string // only of these kinds, such as deployment; of all when nil
	App         string   // only of this app and its deployments
	// Include is what changes bring along: object (what changed, as GET answers it) and app (of a deployment, its app
	// as well). An event that could not bring it in time comes without: look yourself.
	Include []string
}

// FollowEvents gives what changes in a workspace, and goes on after the last event when the connection breaks.
// It ends with the event end, with an error, or with the context.
func (c *Client) FollowEvents(ctx context.Context, workspace, lastEventID string) iter.Seq2[Event, error] {
	return c.FollowEventsOf(ctx, EventsOf{Workspace: workspace, LastEventID: lastEventID})
}

// FollowEventsOf is FollowEvents of some changes, with what they bring along.
func (c *Client) FollowEventsOf(ctx context.Context, of EventsOf) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for failures := 0; ; failures++ {
			done := false
			err := c.readEvents(ctx, &of, func(e Event) bool {
				failures = 0
				done = !yield(e, nil) || e.Kind == "end"
				return !done
			})
			if done {
				return
			}
			if err = resume(ctx, err, failures); err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

func (c *Client) readEvents(ctx context.Context, of *EventsOf, give func(Event) bool) error {
	r := request{method: http.MethodGet, path: "/v1/workspaces/{workspace}/events"}
	r.inPath("workspace", of.Workspace)
	r.inHeader("Accept", "text/event-stream")
	if of.LastEventID != "" {
		r.inHeader("Last-Event-ID", of.LastEventID)
	}
	for _, kind := range of.Kinds {
		r.inQuery("kind", kind)
	}
	if of.App != "" {
		r.inQuery("app", of.App)
	}
	for _, what := range of.Include {
		r.inQuery("include", what)
	}
	fields := map[string]string{}
	return c.lines(ctx, r, func(text string) (bool, error) {
		if text != "" {
			if name, value, _ := strings.Cut(text, ":"); name != "" {
				fields[name] = strings.TrimPrefix(value, " ")
			}
			return true, nil
		}
		e := Event{ID: fields["id"], Kind: fields["event"]}
		data := fields["data"]
		fields = map[string]string{}
		if e.Kind == "" {
			return true, nil
		}
		var err error
		switch e.Kind {
		case "change":
			err = json.Unmarshal([]byte(data), &e.Change)
		case "end":
			var end StreamEnd
			err = json.Unmarshal([]byte(data), &end)
			e.Reason = end.Reason
		}
		if err != nil {
			return false, errCut
		}
		if e.ID != "" {
			of.LastEventID = e.ID
		}
		return give(e), nil
	})
}

// errCut is a stream that broke in the middle.
var errCut = errors.New("devpilot: the stream was cut")

// lines gives the whole lines of a stream until take wants no more; what stands behind the last line break was
// cut, and is left out. A stream on which nothing comes, not even a heartbeat, is given up.
func (c *Client) lines(ctx context.Context, r request, take func(text string) (more bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceEnds, func() { cancel(errCut) })
	defer silence.Stop()
	resp, err := c.send(ctx, r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for {
		text, err := whole(in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &unanswered{err: err}
		}
		silence.Reset(silenceEnds)
		if more, err := take(text); err != nil || !more {
			return err
		}
	}
}

func whole(in *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimRight(string(line), "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		case len(line) > maxLine:
			return "", fmt.Errorf("a line of the stream is longer than %d bytes", maxLine)
		}
	}
}

// resume waits before a stream goes on, or says why it does not.
func resume(ctx context.Context, err error, failures int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d := backoff(failures)
	if err != nil && !errors.Is(err, errCut) {
		var ok bool
		if d, ok = pause(err, failures); !ok {
			return err
		}
	}
	return wait(ctx, d)
}

// Pages gives the elements of a list, asking for one page after the other.
func Pages[T any](page func(token *string) (elements []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var token *string
		for {
			elements, next, err := page(token)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, e := range elements {
				if !yield(e, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = &next
		}
	}
}
