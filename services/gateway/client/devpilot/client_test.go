package devpilot

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// scripted is a Devpilot whose answers are these, in turn; what was asked is kept.
type scripted struct {
	mu      sync.Mutex
	answers []func(w http.ResponseWriter)
	asked   []asked
}

type asked struct {
	path, key, last string
	body            map[string]any
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	a := asked{path: r.Method + " " + r.URL.RequestURI(), key: r.Header.Get("Authorization"), last: r.Header.Get("Last-Event-ID")}
	_ = json.Unmarshal(raw, &a.body)
	s.mu.Lock()
	s.asked = append(s.asked, a)
	if len(s.answers) == 0 {
		s.mu.Unlock()
		http.Error(w, "nothing more was expected", http.StatusTeapot)
		return
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	s.mu.Unlock()
	answer(w)
}

func text(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
}

func problem(status int, reason, more string) func(http.ResponseWriter) {
	return text(status, `{"type":"t","title":"t","detail":"what to do","reason":"`+reason+`","fields":[],"requestId":"r"`+more+`}`)
}

// cut ends a connection in the middle of an answer.
func cut(body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, body)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func start(t *testing.T, answers ...func(http.ResponseWriter)) (*Client, *scripted) {
	t.Helper()
	s := &scripted{answers: answers}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, err := New(server.URL+"/", WithKey("the-key"))
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestError_carriesTheReason(t *testing.T) {
	t.Parallel()
	c, s := start(t, problem(404, "APP_NOT_FOUND", ""))
	_, err := c.GetApp(t.Context(), "default", "web/../x", nil)
	if !Is(err, ReasonAppNotFound) || err.Error() != "what to do" {
		t.Fatalf("got %v", err)
	}
	if len(s.asked) != 1 || s.asked[0].path != "GET /v1/workspaces/default/apps/web%2F..%2Fx" || s.asked[0].key != "Bearer the-key" {
		t.Fatalf("asked %+v", s.asked)
	}
}

func TestRepeat_readsWhereTheTableOfReasonsSaysSo(t *testing.T) {
	t.Parallel()
	c, s := start(t, problem(503, "SERVICE_UNAVAILABLE", ""), cut(`{"apps"`), text(502, "<html>"), text(200, `{"apps":[],"nextPageToken":""}`))
	if _, err := c.ListApps(t.Context(), "default", nil); err != nil || len(s.asked) != 4 {
		t.Fatalf("%d calls, %v", len(s.asked), err)
	}
	for _, answer := range []func(http.ResponseWriter){
		problem(403, "PERMISSION_DENIED", ""), problem(429, "RATE_LIMITED", `,"retryAfterSeconds":3600`), problem(429, "RATE_LIMITED", ""), problem(409, "LATER_THAN_THIS", ""),
	} {
		c, s := start(t, answer)
		if _, err := c.ListApps(t.Context(), "default", nil); err == nil || len(s.asked) != 1 {
			t.Errorf("%d calls, %v", len(s.asked), err)
		}
	}
}

func TestRepeat_creates(t *testing.T) {
	t.Parallel()
	c, s := start(t, problem(503, "STORAGE_UNAVAILABLE", ""), text(200, `{}`), text(200, `{}`))
	body := CreateAppJSONRequestBody{AppID: "web", App: AppInput{Repository: "r", Branch: "main"}}
	if _, err := c.CreateApp(t.Context(), "default", body); err != nil {
		t.Fatal(err)
	}
	id, _ := s.asked[0].body["requestId"].(string)
	if len(id) != 32 || s.asked[1].body["requestId"] != id {
		t.Errorf("request ids %v, then %v", id, s.asked[1].body["requestId"])
	}
	body.RequestID = ptr("mine")
	if _, err := c.CreateApp(t.Context(), "default", body); err != nil || s.asked[2].body["requestId"] != "mine" {
		t.Errorf("a request id that was given became %v: %v", s.asked[2].body["requestId"], err)
	}
}

// What a requestId does not protect is sent once, as it is.
func TestRepeat_neverWhatMayHarm(t *testing.T) {
	t.Parallel()
	c, s := start(t, problem(503, "SERVICE_UNAVAILABLE", ""), cut(""), problem(503, "SERVICE_UNAVAILABLE", ""))
	_, first := c.CreateSession(t.Context(), CreateSessionJSONRequestBody{Token: "t"})
	_, second := c.UpdateApp(t.Context(), "default", "web", nil, AppPatch{Branch: ptr("main")})
	_, third := c.DeleteApp(t.Context(), "default", "web", nil)
	if first == nil || !Unanswered(second) || third == nil || len(s.asked) != 3 || s.asked[0].body["requestId"] != nil {
		t.Fatalf("%v, %v, %v after %+v", first, second, third, s.asked)
	}
}

func record(line string) string {
	return `{"line":` + line + `,"stream":"STDOUT","text":"line ` + line + `","time":"2026-01-01T00:00:00Z"}` + "\n"
}

func TestFollowLog_goesOnAfterItsLastWholeLine(t *testing.T) {
	t.Parallel()
	c, s := start(t, cut(record("1")+record("2")+record("3")[:20]), problem(503, "SERVICE_UNAVAILABLE", ""),
		text(200, record("2")+record("3")+`{"heartbeat":{"time":"2026-01-01T00:00:00Z"}}`+"\n"+`{"end":{"state":"FAILED"}}`+"\n"))
	var got []string
	var state DeploymentState
	for r, err := range c.FollowLog(t.Context(), LogOf{Workspace: "default", App: "web", Number: 7, End: func(s DeploymentState) { state = s }}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Text)
	}
	if !slices.Equal(got, []string{"line 1", "line 2", "line 3"}) || state != DeploymentStateFAILED {
		t.Errorf("got %q, then %s", got, state)
	}
	for i, after := range []string{"after=0", "after=2", "after=2"} {
		if !strings.Contains(s.asked[i].path, after+"&") {
			t.Errorf("call %d is %s, want %s", i, s.asked[i].path, after)
		}
	}
}

func TestFollowLog_endsWithARefusalThatStays(t *testing.T) {
	t.Parallel()
	c, _ := start(t, problem(404, "DEPLOYMENT_NOT_FOUND", ""))
	for _, err := range c.FollowLog(t.Context(), LogOf{Workspace: "default", App: "web", Number: 7}) {
		if !Is(err, ReasonDeploymentNotFound) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestFollowEvents_goesOnAfterTheLastOne(t *testing.T) {
	t.Parallel()
	c, s := start(t,
		cut(": beat\n\nid: 4\nevent: ready\ndata: {}\n\nid: 5\nevent: change\ndata: {\"kind\":\"app\",\"id\":\"web\"}\n\nid: 6\nevent: change\nda"),
		text(200, "id: 6\nevent: change\ndata: {\"kind\":\"app\",\"id\":\"api\"}\n\nevent: end\ndata: {\"reason\":\"UNAUTHENTICATED\"}\n\n"))
	var got []string
	for e, err := range c.FollowEvents(t.Context(), "default", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Kind+" "+e.Change.ID+string(e.Reason))
	}
	if want := []string{"ready ", "change web", "change api", "end UNAUTHENTICATED"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if s.asked[0].last != "" || s.asked[1].last != "5" {
		t.Errorf("resumed after %q", s.asked[1].last)
	}
}

func TestFollowEventsOf_someWithWhatTheyBring(t *testing.T) {
	t.Parallel()
	c, s := start(t,
		cut("id: 5\nevent: change\ndata: {\"kind\":\"deployment\",\"id\":\"web/7\",\"object\":{\"number\":7,\"state\":\"FAILED\"},\"etag\":\"\\\"r1.d\\\"\",\"app\":{\"id\":\"web\"}}\n\n"),
		text(200, "id: 6\nevent: change\ndata: {\"kind\":\"deployment\",\"id\":\"web/8\"}\n\nevent: end\ndata: {}\n\n"))
	of := EventsOf{Workspace: "default", Kinds: []string{"deployment", "app"}, App: "web", Include: []string{"object", "app"}}
	var got []Event
	for e, err := range c.FollowEventsOf(t.Context(), of) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	var d Deployment
	if err := got[0].Change.Object.Into(&d); err != nil || d.Number != 7 || d.State != "FAILED" || *got[0].Change.Etag != `"r1.d"` || got[0].Change.App.ID != "web" {
		t.Errorf("%+v, %v in %+v", d, err, got[0])
	}
	if err := got[1].Change.Object.Into(&d); err == nil || got[1].Change.Object != nil {
		t.Errorf("it brought %s", *got[1].Change.Object)
	}
	for i, a := range s.asked {
		if a.path != "GET /v1/workspaces/default/events?app=web&include=object&include=app&kind=deployment&kind=app" {
			t.Errorf("call %d was %s", i, a.path)
		}
	}
	if s.asked[1].last != "5" {
		t.Errorf("resumed after %q", s.asked[1].last)
	}
}

func TestFollow_stopsWithItsContext(t *testing.T) {
	t.Parallel()
	c, _ := start(t, problem(503, "SERVICE_UNAVAILABLE", `,"retryAfterSeconds":3600`))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.FollowEvents(ctx, "default", "") {
		if err == nil {
			t.Fatal("an event came")
		}
	}
}

func TestPages_oneAfterTheOther(t *testing.T) {
	t.Parallel()
	c, s := start(t, text(200, `{"workspaces":[{"id":"a"}],"nextPageToken":"n"}`), text(200, `{"workspaces":[{"id":"b"}],"nextPageToken":""}`))
	var got []string
	for w, err := range Pages(func(token *string) ([]Workspace, string, error) {
		p, err := c.ListWorkspaces(t.Context(), &ListWorkspacesParams{PageToken: token})
		if err != nil {
			return nil, "", err
		}
		return p.Workspaces, p.NextPageToken, nil
	}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, w.ID)
	}
	if !slices.Equal(got, []string{"a", "b"}) || s.asked[1].path != "GET /v1/workspaces?pageToken=n" {
		t.Errorf("got %q by %+v", got, s.asked)
	}
}

// A redirect could take the key to another host.
func TestClient_followsNoRedirect(t *testing.T) {
	t.Parallel()
	c, s := start(t, func(w http.ResponseWriter) { w.Header().Set("Location", "/v1/info"); w.WriteHeader(http.StatusFound) })
	if _, err := c.GetMe(t.Context(), nil); err == nil || len(s.asked) != 1 {
		t.Errorf("%d calls, %v", len(s.asked), err)
	}
}

func TestNew_refusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "devpilot.example.com", "ftp://x", "https://user:secret@x", "https://x?key=1"} {
		if _, err := New(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestTexts_ofParameters(t *testing.T) {
	t.Parallel()
	states := []DeploymentState{DeploymentStateFAILED, DeploymentStatePENDING}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var none *string
	for _, c := range []struct {
		in   any
		want []string
	}{{none, nil}, {&states, []string{"FAILED", "PENDING"}}, {&at, []string{"2026-01-02T03:04:05.000000006Z"}}, {ptr(int32(7)), []string{"7"}}} {
		if got := texts(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%v gives %q", c.in, got)
		}
	}
}

func ptr[T any](v T) *T { return &v }
