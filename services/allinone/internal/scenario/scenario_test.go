package scenario

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var end = time.Date(2026, 3, 16, 9, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, end time.Time) *Record {
	t.Helper()
	r, err := Open(dir, "team", end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func put(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen_refusesWhatItDidNotMakeAndLeavesIt(t *testing.T) {
	for _, store := range []string{"nats", "emulator", "apps"} {
		dir := t.TempDir()
		kept := put(t, dir, store+"/data")
		if _, err := Open(dir, "team", time.Time{}); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %v", store, err)
		}
		if _, err := os.Stat(kept); err != nil || Holds(dir) {
			t.Errorf("%s: it was touched: %v", store, err)
		}
	}
	if _, err := Open(t.TempDir(), "other", time.Time{}); err == nil {
		t.Error("a scenario that there is not was opened")
	}
}

func TestOpen_beginsAnUnfinishedPlayAnewAndKeepsAFinishedOne(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, end)
	if _, err := Open(dir, "team", end); !errors.Is(err, ErrInUse) {
		t.Fatalf("opened twice: %v", err)
	}
	left, own := put(t, dir, "nats/data"), put(t, dir, "notes.txt")
	r.Close()

	r = open(t, dir, end)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("what is not the play's is gone: %v", err)
	}
	left = put(t, dir, "nats/data")
	r.beat(time.Hour)
	r.beat(0)
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	r.Close()

	if _, err := Open(dir, "team", end.Add(time.Hour)); !errors.Is(err, ErrOther) {
		t.Errorf("another time: %v", err)
	}
	r = open(t, dir, time.Time{})
	if _, err := os.Stat(left); err != nil || !r.Finished() || !r.End().Equal(end) || len(r.Beats) != 2 {
		t.Errorf("a finished play: %v %v %v", err, r.Finished(), r.Beats)
	}
}

// played is a record of two beats, an hour of the story apart and a minute of the true time.
func played(t *testing.T) (*Record, time.Time) {
	t.Helper()
	r := open(t, t.TempDir(), end)
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	r.Beats = []Beat{{began, end.Add(-time.Hour)}, {began.Add(time.Minute), end}}
	r.Done = true
	return r, began
}

func TestClock_standsWithinABeatAndRunsAfterTheLast(t *testing.T) {
	r, began := played(t)
	c := NewClock(r)
	for _, at := range []struct{ real, story time.Time }{
		{began.Add(-time.Second), end.Add(-time.Hour)}, // the product stored it while it started
		{began, end.Add(-time.Hour)},
		{began.Add(59 * time.Second), end.Add(-time.Hour)},
		{began.Add(time.Minute), end},
		{began.Add(time.Minute + 5*time.Second), end.Add(5 * time.Second)},
		{began.Add(-2 * time.Hour), began.Add(-2 * time.Hour)}, // the date of a commit
	} {
		if got := c.Story(at.real); !got.Equal(at.story) {
			t.Errorf("%v is %v, not %v", at.real, got, at.story)
		}
	}
	for _, story := range []time.Time{end.Add(-time.Hour), end, end.Add(5 * time.Second)} {
		if got := c.Story(c.real(story)); !got.Equal(story) {
			t.Errorf("%v and back is %v", story, got)
		}
	}
}

func TestClock_mapsTimesHoweverAnAnswerIsCut(t *testing.T) {
	r, began := played(t)
	text := `{"a":"` + began.Add(30*time.Second+123456789).Format(time.RFC3339Nano) + `","b":"2026-03-02T09:00:00Z","c":"1.2-3:4T"}` + "\n" + `{"a":"` + began.Add(time.Minute).Format(time.RFC3339) + `"}`
	want := `{"a":"2026-03-16T08:00:00Z","b":"2026-03-02T09:00:00Z","c":"1.2-3:4T"}` + "\n" + `{"a":"2026-03-16T09:00:00Z"}`
	for cut := range len(text) {
		h := NewClock(r).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			for _, part := range []string{text[:cut], text[cut:]} {
				_, _ = io.WriteString(w, part)
			}
		}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		if w.Body.String() != want {
			t.Fatalf("cut at %d: %s", cut, w.Body)
		}
	}
}

func TestClock_leavesWhatIsNoTextAloneAndReadsTimesOfQueries(t *testing.T) {
	r, began := played(t)
	raw := began.Format(time.RFC3339)
	h := NewClock(r).Handler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if got := req.URL.Query().Get("after"); got != began.Add(time.Minute).Format(time.RFC3339Nano) || req.URL.Query().Get("app") != "web" {
			t.Errorf("the query is %v", req.URL.Query())
		}
		w.Header().Set("Content-Type", "application/javascript")
		_, _ = io.WriteString(w, raw)
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?app=web&after="+url.QueryEscape(end.Format(time.RFC3339)), http.NoBody))
	if w.Body.String() != raw {
		t.Errorf("a script was changed: %s", w.Body)
	}
}

func TestDoor_isForThisMachineOnly(t *testing.T) {
	r := open(t, t.TempDir(), time.Time{})
	if _, err := NewDoor(r, "http://0.0.0.0:8081", "http://127.0.0.1:8080"); err == nil {
		t.Error("a door for everybody was made")
	}
	d, err := NewDoor(r, "http://localhost:8081", "http://127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	h := d.Beside(http.NotFoundHandler())
	for _, c := range []struct {
		peer, host, forwarded string
		want                  int
	}{
		{"127.0.0.1:5", "localhost:8081", "", http.StatusOK},
		{"[::1]:5", "127.0.0.1:8081", "", http.StatusOK},
		{"192.0.2.1:5", "localhost:8081", "", http.StatusForbidden},
		{"127.0.0.1:5", "rebound.example:8081", "", http.StatusForbidden},
		{"127.0.0.1:5", "localhost:8081", "192.0.2.1", http.StatusForbidden},
	} {
		req := httptest.NewRequest(http.MethodGet, issuerPath+"/keys", http.NoBody)
		req.RemoteAddr, req.Host = c.peer, c.host
		if c.forwarded != "" {
			req.Header.Set("X-Forwarded-For", c.forwarded)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}

func TestDoor_takesACodeOnceAndOfItsProductOnly(t *testing.T) {
	d, err := NewDoor(open(t, t.TempDir(), time.Time{}), "http://localhost:8081", "http://127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	h := d.Beside(http.NotFoundHandler())
	serve := func(method, target, body string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, target, strings.NewReader(body))
		req.RemoteAddr, req.Host = "127.0.0.1:5", "localhost:8081"
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w
	}
	proof := sha256.Sum256([]byte("verifier"))
	ask := url.Values{"client_id": {clientID}, "redirect_uri": {d.callback}, "code_challenge_method": {"S256"}, "code_challenge": {encoded(proof[:])}, "state": {"s"}, "nonce": {"n"}, "as": {"mia"}}
	to, err := url.Parse(serve(http.MethodGet, issuerPath+"/authorize?"+ask.Encode(), "").Header().Get("Location"))
	if err != nil || to.Query().Get("state") != "s" {
		t.Fatalf("sent to %v: %v", to, err)
	}
	ask.Set("redirect_uri", "https://elsewhere.example/")
	if w := serve(http.MethodGet, issuerPath+"/authorize?"+ask.Encode(), ""); w.Code != http.StatusBadRequest {
		t.Errorf("a code for another address: %d", w.Code)
	}
	form := url.Values{"code": {to.Query().Get("code")}, "code_verifier": {"verifier"}, "redirect_uri": {d.callback}}
	w := serve(http.MethodPost, issuerPath+"/token", form.Encode())
	var got struct {
		IDToken string `json:"id_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || strings.Count(got.IDToken, ".") != 2 {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	if w := serve(http.MethodPost, issuerPath+"/token", form.Encode()); w.Code != http.StatusBadRequest {
		t.Errorf("the code again: %d", w.Code)
	}
	code := d.issue(grant{challenge: encoded(proof[:])})
	form.Set("code", code)
	form.Set("code_verifier", "another")
	if w := serve(http.MethodPost, issuerPath+"/token", form.Encode()); w.Code != http.StatusBadRequest {
		t.Errorf("without the verifier: %d", w.Code)
	}
}
