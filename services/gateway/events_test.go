package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// sse is an open stream of server-sent events.
type sse struct {
	t      *testing.T
	resp   *http.Response
	events chan sseEvent
	cancel context.CancelFunc
}

type sseEvent struct{ id, name, data, comment string }

func (c *client) stream(path string, changes ...change) *sse {
	c.g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		c.g.t.Fatal(err)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	for _, f := range changes {
		f(req)
	}
	forever := *c.http
	forever.Timeout = 0
	resp, err := forever.Do(req)
	if err != nil {
		c.g.t.Fatal(err)
	}
	s := &sse{t: c.g.t, resp: resp, events: make(chan sseEvent, 10_000), cancel: cancel}
	c.g.t.Cleanup(s.close)
	if resp.StatusCode == http.StatusOK {
		go s.read()
	}
	return s
}

func (s *sse) close() {
	s.cancel()
	_ = s.resp.Body.Close()
}

func (s *sse) read() {
	defer close(s.events)
	var e sseEvent
	scan := bufio.NewScanner(s.resp.Body)
	for scan.Scan() {
		name, value, _ := strings.Cut(scan.Text(), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if value != "" {
				e.comment = value
			} else if e != (sseEvent{}) {
				s.events <- e
				e = sseEvent{}
			}
		}
	}
}

// next is the next event that is no comment; ok is false at the end.
func (s *sse) next() (sseEvent, bool) {
	s.t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e, ok := <-s.events:
			if ok && e.name == "" && e.data == "" {
				continue
			}
			return e, ok
		case <-timeout:
			s.t.Fatal("no event")
		}
	}
}

func (s *sse) want(name string) sseEvent {
	s.t.Helper()
	e, ok := s.next()
	if !ok || e.name != name {
		s.t.Fatalf("event %+v (%v), not %s", e, ok, name)
	}
	return e
}

// until skips the changes before an event of the name: what was changed before a stream began may be told late.
func (s *sse) until(name string) sseEvent {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok || e.name != name && e.name != "change" {
			s.t.Fatalf("event %+v (%v), not %s", e, ok, name)
		}
		if e.name == name {
			return e
		}
	}
}

// happen publishes a change.
func (g *gate) happen(service, workspace, kind, id string) {
	g.t.Helper()
	subject, err := stream.EventSubject(service, workspace, kind)
	if err != nil {
		g.t.Fatal(err)
	}
	data, err := proto.Marshal(&eventsv1.ChangeEvent{Service: service, Workspace: workspace, Kind: kind, Id: id, Time: timestamppb.Now()})
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := (stream.Publisher{JS: g.js, Timeout: time.Minute}).Publish(g.t.Context(), &nats.Msg{Subject: subject, Data: data}); err != nil {
		g.t.Fatal(err)
	}
}

func TestEvents_areTheWorkspacesOwn(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	s := g.key("acme", "MEMBER").stream("/v1/workspaces/acme/events")
	if ct := s.resp.Header.Get("Content-Type"); ct != "text/event-stream" || s.resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", s.resp.Header)
	}
	if ready := s.want("ready"); ready.id == "" {
		t.Error("no place to resume from")
	}
	g.happen("deployer", "default", "app", "foreign")
	g.happen("deployer", "acme", "deployment", "web/12")
	e := nextOf(s, "deployment")
	var c struct {
		Kind, ID, Service string
		Deleted           bool
		Time              time.Time
	}
	if err := json.Unmarshal([]byte(e.data), &c); err != nil {
		t.Fatal(err)
	}
	if c.ID != "web/12" || c.Service != "deployer" || c.Deleted || c.Time.IsZero() || e.id == "" {
		t.Errorf("change %+v in %+v", c, e)
	}
	// What the gateway itself owns is told too.
	w := g.signedIn().stream("/v1/workspaces/late/events")
	if w.resp.StatusCode != http.StatusNotFound {
		t.Errorf("events of a workspace that is not there: %d", w.resp.StatusCode)
	}
	g.workspace("late")
	l := g.signedIn().stream("/v1/workspaces/late/events?lastEventId=1")
	if e := nextOf(l, "workspace"); !strings.Contains(e.data, `"late"`) {
		t.Errorf("%+v", e)
	}
	g.signedIn().get("/v1/workspaces/acme/events?lastEventId=soon").problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	g.signedIn().get("/v1/workspaces/acme/events?since=1").problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	g.anybody().get("/v1/workspaces/acme/events").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

// A client that wants to hear of some kinds, or of one app, hears of nothing else, also of what it missed.
func TestEvents_filteredByKindAndApp(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	all := c.stream("/v1/workspaces/default/events")
	from := all.want("ready").id
	const events = "/v1/workspaces/default/events?"
	heard := map[string]*sse{}
	wants := map[string]string{
		"kind=deployment":                      "web/1 api/1 web/2",
		"kind=app&kind=webhook":                "web wh1",
		"app=web":                              "web web/1 web/2",
		"app=web&kind=deployment":              "web/1 web/2",
		"app=web&kind=webhook":                 "",
		"kind=integration&lastEventId=" + from: "bitbucket",
	}
	for query := range wants {
		heard[query] = c.stream(events + query)
		if !strings.Contains(query, "lastEventId") {
			heard[query].want("ready")
		}
	}
	for _, e := range [][2]string{{"app", "web"}, {"deployment", "web/1"}, {"deployment", "api/1"}, {"webhook", "wh1"}, {"integration", "bitbucket"}, {"deployment", "web/2"}} {
		g.happen("deployer", "default", e[0], e[1])
	}
	g.happen("deployer", "default", "workspace", "last")
	nextOf(all, "workspace") // all of them were handed out
	for query, want := range wants {
		// The last one that each hears of is of its own making.
		missed := c.stream(events + query + map[bool]string{false: "&lastEventId=" + from}[strings.Contains(query, "lastEventId")])
		var ids []string
		for e, ok := missed.next(); ok && e.name == "change"; e, ok = missed.next() {
			ids = append(ids, idOf(t, e))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("missed, %s: %q, not %q", query, got, want)
		}
		for _, id := range strings.Fields(want) {
			e, ok := heard[query].next()
			for ok && e.name == "ready" {
				e, ok = heard[query].next()
			}
			if !ok || idOf(t, e) != id {
				t.Errorf("live, %s: %+v, not %s", query, e, id)
			}
		}
	}
	c.get(events+"kind=aps").problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	c.get(events+"app=web&app=api").problem(http.StatusBadRequest, "INVALID_ARGUMENT")
}

func idOf(t *testing.T, e sseEvent) string {
	t.Helper()
	var c struct{ ID string }
	if err := json.Unmarshal([]byte(e.data), &c); err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	return c.ID
}

// nextOf skips to the next change of a kind.
func nextOf(s *sse, kind string) sseEvent {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			s.t.Fatalf("ended before a change of %s", kind)
		}
		if strings.Contains(e.data, `"kind":"`+kind+`"`) {
			return e
		}
	}
}

func TestEvents_resumeWithoutGapOrRepeat(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	s := c.stream("/v1/workspaces/default/events")
	s.want("ready")
	for i := range 3 {
		g.happen("deployer", "default", "app", fmt.Sprint("a", i))
	}
	var last sseEvent
	for range 3 {
		last = nextOf(s, "app")
	}
	s.close()
	for i := 3; i < 50; i++ {
		g.happen("deployer", "default", "app", fmt.Sprint("a", i))
		g.happen("deployer", "elsewhere", "app", "noise")
	}
	back := c.stream("/v1/workspaces/default/events", with("Last-Event-ID", last.id))
	ready := false // once what the gateway knew of is told; what it learns later comes after
	for i := 3; i < 50; {
		e, ok := back.next()
		switch {
		case !ok:
			t.Fatalf("ended before event %d", i)
		case e.name == "ready":
			ready = true
		case !strings.Contains(e.data, `"kind":"app"`):
		case strings.Contains(e.data, fmt.Sprintf(`"a%d"`, i)):
			i++
		default:
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	if !ready {
		back.want("ready")
	}
	g.happen("deployer", "default", "app", "live")
	if e := nextOf(back, "app"); !strings.Contains(e.data, `"live"`) {
		t.Errorf("after it: %+v", e)
	}
	// A place that the stream never reached is another stream's.
	c.stream("/v1/workspaces/default/events", with("Last-Event-ID", "999999")).want("reset")
	// What is not there any more cannot be told.
	st, err := g.js.Stream(t.Context(), stream.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.happen("deployer", "default", "app", "after")
	nextOf(back, "app")
	c.stream("/v1/workspaces/default/events", with("Last-Event-ID", last.id)).want("reset")
}

// A page asks who it is, reads what it shows, and follows from the event that it was told at first: what
// happened meanwhile comes, and what it has read already is not told to be read again.
func TestEvents_beginAfterTheAnswerToGetMe(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	s := c.stream("/v1/workspaces/default/events")
	s.want("ready")
	g.happen("deployer", "default", "app", "before")
	nextOf(s, "app")
	var me struct{ LastEventID string }
	c.get("/v1/me").into(&me)
	if me.LastEventID == "" {
		t.Fatal("GET /v1/me names no event")
	}
	quiet := c.stream("/v1/workspaces/default/events?lastEventId=" + me.LastEventID)
	if e := quiet.want("ready"); e.id != me.LastEventID {
		t.Errorf("with nothing new the stream is at %s, not %s", e.id, me.LastEventID)
	}
	g.happen("deployer", "default", "app", "meanwhile")
	nextOf(s, "app")
	if e := nextOf(c.stream("/v1/workspaces/default/events?lastEventId="+me.LastEventID), "app"); !strings.Contains(e.data, `"meanwhile"`) {
		t.Errorf("the first change is %+v", e)
	}
}

func TestEvents_goOnAfterTheStoreWasAway(t *testing.T) {
	g := start(t)
	s := g.signedIn().stream("/v1/workspaces/default/events")
	s.want("ready")
	g.nats.Restart()
	testkit.Eventually(t, 20*time.Second, func() error {
		_, err := g.js.AccountInfo(t.Context()) // an answer of the store that has begun anew
		return errors.Join(err, g.svc.Ready(t.Context()))
	})
	g.happen("deployer", "default", "app", "back")
	if e := nextOf(s, "app"); !strings.Contains(e.data, `"back"`) {
		t.Errorf("%+v", e)
	}
}

func TestEvents_endWithTheSession(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	s := c.stream("/v1/workspaces/default/events")
	s.want("ready")
	var key struct {
		Secret string
		APIKey struct{ ID string }
	}
	c.post("/v1/workspaces/default/apiKeys", map[string]any{"label": "x"}).want(http.StatusOK).into(&key)
	k := g.withToken(key.Secret).stream("/v1/workspaces/default/events")
	k.want("ready")
	c.send(http.MethodDelete, "/v1/workspaces/default/apiKeys/"+key.APIKey.ID, "").want(http.StatusOK)
	if e := k.until("end"); !strings.Contains(e.data, "UNAUTHENTICATED") {
		t.Errorf("%+v", e)
	}
	c.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
	if e := s.until("end"); !strings.Contains(e.data, "UNAUTHENTICATED") {
		t.Errorf("%+v", e)
	}
	if _, ok := s.next(); ok {
		t.Error("it goes on after its end")
	}
}

func TestEvents_endWhenTheProcessStops(t *testing.T) {
	g := start(t)
	s := g.signedIn().stream("/v1/workspaces/default/events")
	s.want("ready")
	g.svc.Drain()
	for e, ok := s.next(); ok; e, ok = s.next() {
		if e.name != "change" { // told late
			t.Errorf("goes on with %+v", e)
		}
	}
}
