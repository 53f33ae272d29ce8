// Package events serves /v1/workspaces/{workspace}/events: what changed, for live pages.
//
// The services publish change events to one JetStream stream; a [Hub] reads it once per process and
// hands each event to the subscribers of its workspace. An event only means "look again", and brings
// what there is to see along for whoever asks for that ([Objects]). Its id is
// its place in the stream, by which a client resumes after a break: what it missed is read from the
// stream, and where that is not possible any more the client is told to load everything again.
//
// A subscriber that does not keep up is dropped, not waited for: its client comes back and resumes.
//
// It depends on pkg/stream, internal/rest and internal/live.
package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

const (
	// buffer is how far a subscriber may be behind.
	buffer = 256
	// maxReplay bounds what is read for a client that resumes.
	maxReplay = 1000
)

// Change is one event as clients get it.
type Change struct {
	Sequence  uint64 `json:"-"`
	workspace string

	Kind    string    `json:"kind"`
	ID      string    `json:"id"`
	Service string    `json:"service"`
	Deleted bool      `json:"deleted"`
	Time    time.Time `json:"time"`

	// What the client asked for beside it, as GET answers it, and the tag of that; empty where it is not brought.
	Object  json.RawMessage `json:"object,omitempty"`
	ETag    string          `json:"etag,omitempty"`
	App     json.RawMessage `json:"app,omitempty"`
	AppETag string          `json:"appEtag,omitempty"`
}

// Hub reads the stream of change events for all subscribers of a process. It is safe for
// concurrent use.
type Hub struct {
	js     jetstream.JetStream
	logger *slog.Logger

	mu     sync.Mutex
	stream jetstream.Stream
	last   uint64 // place of the last event that was handed out
	ready  bool
	subs   map[string]map[*Subscription]struct{}
}

// NewHub makes a hub; Run fills it.
func NewHub(js jetstream.JetStream, logger *slog.Logger) *Hub {
	return &Hub{js: js, logger: logger, subs: map[string]map[*Subscription]struct{}{}}
}

// Subscription gets the changes of one workspace.
type Subscription struct {
	// C yields changes; it is closed when the subscriber did not keep up, or the place in the
	// stream was lost.
	C         chan Change
	hub       *Hub
	workspace string
	closed    bool
}

// Subscribe begins at the place that is returned: C yields what comes after it.
func (h *Hub) Subscribe(workspace string) (*Subscription, uint64) {
	s := &Subscription{C: make(chan Change, buffer), hub: h, workspace: workspace}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[workspace] == nil {
		h.subs[workspace] = map[*Subscription]struct{}{}
	}
	h.subs[workspace][s] = struct{}{}
	return s, h.last
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.drop(s)
}

// drop needs the lock.
func (h *Hub) drop(s *Subscription) {
	if s.closed {
		return
	}
	s.closed = true
	close(s.C)
	delete(h.subs[s.workspace], s)
	if len(h.subs[s.workspace]) == 0 {
		delete(h.subs, s.workspace)
	}
}

func (h *Hub) dispatch(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = c.Sequence
	for s := range h.subs[c.workspace] {
		select {
		case s.C <- c:
		default:
			h.drop(s)
		}
	}
}

// Last is the id of the newest event that this process knows; empty before it follows the stream.
func (h *Hub) Last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ready {
		return ""
	}
	return eventID(h.last)
}

// Ready is nil once the hub knows its place in the stream.
func (h *Hub) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ready {
		return errors.New("events: not following the stream of changes yet")
	}
	return nil
}

// How often changes are followed again, and after what time of following the pauses begin anew.
const (
	followFirst  = 100 * time.Millisecond
	followMost   = 5 * time.Second
	followedWell = 10 * time.Second
)

// Run follows the stream until ctx is done, and again after any trouble.
func (h *Hub) Run(ctx context.Context) error {
	pauses := stream.Pauses(followFirst, followMost)
	for {
		start := time.Now()
		err := h.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to end
		}
		if time.Since(start) > followedWell {
			pauses.Reset()
		}
		wait := pauses.NextBackOff()
		h.logger.WarnContext(ctx, "following change events again", logs.Err(err), slog.Int64(logs.KeyRetryIn, wait.Milliseconds()))
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

func (h *Hub) follow(ctx context.Context) error {
	st, err := stream.Ensure(ctx, h.js, stream.Events, stream.Options{Logger: h.logger})
	if err != nil {
		return err
	}
	info, err := st.Info(ctx)
	if err != nil {
		return fmt.Errorf("events: ask for the place in the stream: %w", err)
	}
	names := stream.InstallationOf(h.js)
	from := h.place(st, info.State.LastSeq)
	cons, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from})
	if err != nil {
		return fmt.Errorf("events: follow the stream: %w", err)
	}
	it, err := cons.Messages(jetstream.PullHeartbeat(5 * time.Second))
	if err != nil {
		return fmt.Errorf("events: follow the stream: %w", err)
	}
	defer context.AfterFunc(ctx, it.Stop)()
	defer it.Stop()
	for {
		m, err := it.Next()
		if err != nil {
			return fmt.Errorf("events: read the stream: %w", err)
		}
		md, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("events: a message without metadata: %w", err)
		}
		h.dispatch(decode(names.Bare(m.Subject()), m.Data(), md.Sequence.Stream, md.Timestamp))
	}
}

// place is where to go on: after the last event that was handed out, at first after the newest. A
// stream that is shorter than what was seen of it is another one: subscribers must start afresh.
func (h *Hub) place(st jetstream.Stream, newest uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ready || newest < h.last {
		h.last = newest
		for _, of := range h.subs {
			for s := range of {
				h.drop(s)
			}
		}
	}
	h.stream, h.ready = st, true
	return h.last + 1
}

// decode trusts the subject and takes from the message what it says beyond that.
func decode(subject string, data []byte, sequence uint64, stored time.Time) Change {
	c := Change{Sequence: sequence, Time: stored.UTC()}
	service, workspace, kind, err := stream.ParseEventSubject(subject)
	if err != nil {
		return c // of no workspace: nobody gets it
	}
	c.workspace, c.Service, c.Kind = workspace, service, kind
	var e eventsv1.ChangeEvent
	if proto.Unmarshal(data, &e) == nil {
		c.ID, c.Deleted = e.GetId(), e.GetDeleted()
		if e.GetTime() != nil {
			c.Time = e.GetTime().AsTime()
		}
	}
	return c
}

// shownTo tells whether somebody who is limited to some apps hears of it: of these apps and their deployments.
func (c Change) shownTo(apps identity.Apps) bool {
	if !apps.Limited() {
		return true
	}
	app, _, _ := strings.Cut(c.ID, "/") // a deployment is <app>/<number>
	return (c.Kind == "app" || c.Kind == "deployment") && apps.Has(app)
}

func (c Change) json() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)              // an object is to stay as it is, byte for byte
	if err := e.Encode(c); err != nil { // strings, a flag, a time of this century and JSON
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// errTooFar says that a client cannot be brought up to date event by event.
var errTooFar = errors.New("events: too much happened since")

// between reads the workspace's changes after one place, up to and with another. errTooFar when they
// are too many or not all there any more.
func (h *Hub) between(ctx context.Context, workspace string, after, upTo uint64) ([]Change, error) {
	h.mu.Lock()
	st := h.stream
	h.mu.Unlock()
	if after > upTo {
		return nil, errTooFar // of another stream
	}
	if after == upTo {
		return nil, nil
	}
	info, err := st.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("events: ask for the place in the stream: %w", err)
	}
	if info.State.FirstSeq > after+1 {
		return nil, errTooFar
	}
	filter, err := stream.EventsOfWorkspace(workspace)
	if err != nil {
		return nil, err
	}
	names := stream.InstallationOf(h.js)
	var list []Change
	for seq := after + 1; seq <= upTo; {
		m, err := st.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(names.Subject(filter)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("events: read the stream: %w", err)
		}
		if m.Sequence > upTo {
			break
		}
		if len(list) == maxReplay {
			return nil, errTooFar
		}
		list = append(list, decode(names.Bare(m.Subject), m.Data, m.Sequence, m.Time))
		seq = m.Sequence + 1
	}
	return list, nil
}
