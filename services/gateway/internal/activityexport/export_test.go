package activityexport

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/live"
)

// endless is a list that has a page after every page.
type endless struct {
	gatewayv1.GatewayServiceClient
	pages, failAt int
}

func (e *endless) ListActivity(context.Context, *gatewayv1.ListActivityRequest, ...grpc.CallOption) (*gatewayv1.ListActivityResponse, error) {
	if e.pages++; e.pages == e.failAt {
		return nil, errors.New("storage is away")
	}
	return &gatewayv1.ListActivityResponse{Activity: []*gatewayv1.ActivityRecord{{Action: "app.create"}}, NextPageToken: "more"}, nil
}

func get(t *testing.T, list *endless) (*http.Response, []byte, error) {
	t.Helper()
	h := &Handler{Gateway: list, Streams: live.NewStreams(time.Hour), Now: time.Now}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Serve(w, r, map[string]string{"workspace": "acme"})
	}))
	t.Cleanup(s.Close)
	resp, err := http.Get(s.URL + "/v1/workspaces/acme/activity:export?format=jsonl")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return resp, body, err
}

// A file is bounded, and says where the next one begins.
func TestServe_isBounded(t *testing.T) {
	list := &endless{}
	resp, body, err := get(t, list)
	if err != nil || strings.Count(string(body), "\n") != maxPages || list.pages != maxPages {
		t.Fatalf("%v, %d pages", err, list.pages)
	}
	if got := resp.Trailer.Get(NextPageTrailer); got != "more" {
		t.Errorf("trailer %q", got)
	}
}

// A list that cannot be read on does not end as if it were whole.
func TestServe_breaksOff(t *testing.T) {
	if _, _, err := get(t, &endless{failAt: 3}); err == nil {
		t.Error("a file that was cut ended as a whole one")
	}
}

// No cell of another's words is a formula to a spreadsheet, and none is lost.
func TestCSV_guardsFormulas(t *testing.T) {
	for _, hostile := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"} {
		raw, err := formatCSV.encode([]*gatewayv1.ActivityRecord{{
			ActorLabel: hostile, Target: hostile, Message: hostile, Address: hostile,
			Changes: []*gatewayv1.ActivityChange{{Field: hostile}},
		}}, false)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(strings.NewReader(string(raw))).ReadAll()
		if err != nil || len(rows) != 1 {
			t.Fatalf("%q: %v", raw, err)
		}
		for _, i := range []int{2, 5, 8, 9, 11} {
			if !strings.HasPrefix(rows[0][i], "'"+hostile[:1]) {
				t.Errorf("cell %d of %q is %q", i, hostile, rows[0][i])
			}
		}
	}
	if asText("a=b") != "a=b" || asText("") != "" {
		t.Error("a harmless cell was changed")
	}
}
