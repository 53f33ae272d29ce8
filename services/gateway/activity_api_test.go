package gateway_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// activityOf makes three records: a key with a hostile name, a deployment of web, a change of docs.
func activityOf(t *testing.T, g *gate) *client {
	t.Helper()
	g.workspace("acme")
	c := g.key("acme", "OWNER")
	c.post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "=HYPERLINK(1)", "role": "MEMBER"}).want(http.StatusOK)
	c.send(http.MethodPost, "/v1/workspaces/acme/apps/web/deployments", `{}`)
	c.send(http.MethodDelete, "/v1/workspaces/acme/apps/docs", "")
	waitActivity(t, c, "acme", func(r record) bool { return r.Action == "app.delete" })
	return c
}

func TestActivity_filters(t *testing.T) {
	g := start(t)
	c := activityOf(t, g)
	now := time.Now()
	hour := func(n time.Duration) string {
		return url.QueryEscape(now.Add(n * time.Hour).UTC().Format(time.RFC3339))
	}
	all := actionsOf(t, c, "")
	for query, want := range map[string]string{
		"app=web":             "[deployment.create]",
		"app=docs":            "[app.delete]",
		"app=we":              "[]",
		"action=deployment":   "[deployment.create]",
		"action=app.delete":   "[app.delete]",
		"action=app":          "[app.delete]",
		"actor=nobody":        "[]",
		"after=" + hour(2):    "[]",
		"before=" + hour(-48): "[]",
		"after=" + hour(-48) + "&before=" + hour(48): all,
		"app=web&action=app":                         "[]",
	} {
		if got := actionsOf(t, c, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	var first struct{ Activity []struct{ ActorLabel string } }
	c.get("/v1/workspaces/acme/activity").want(http.StatusOK).into(&first)
	part := url.QueryEscape(strings.ToUpper(first.Activity[0].ActorLabel))
	if got := actionsOf(t, c, "actor="+part+"&app=docs"); got != "[app.delete]" {
		t.Errorf("actor=%s: %s", part, got)
	}
}

func actionsOf(t *testing.T, c *client, query string) string {
	t.Helper()
	var page struct{ Activity []record }
	c.get("/v1/workspaces/acme/activity?" + query).want(http.StatusOK).into(&page)
	names := []string{}
	for _, r := range page.Activity {
		names = append(names, r.Action)
	}
	return fmt.Sprint(names)
}

// The list and its export refuse what they cannot filter by, and name the parameter.
func TestActivity_filtersAreChecked(t *testing.T) {
	g := start(t)
	c := activityOf(t, g)
	long := strings.Repeat("x", 201)
	for query, field := range map[string]string{
		"action=app.creat": "action", "action=ap": "action", "actor=" + long: "actor", "app=" + long: "app", "after=yesterday": "after", "before=1": "before",
		"after=2026-11-22T14:00:00Z&before=2026-11-22T14:00:00Z": "before", "who=me": "who", "app=a&app=b": "app",
	} {
		for _, path := range []string{"/v1/workspaces/acme/activity?", "/v1/workspaces/acme/activity:export?"} {
			if body := string(c.get(path + query).want(http.StatusBadRequest).body); !strings.Contains(body, `"name":"`+field+`"`) {
				t.Errorf("%s%s: %s", path, query, body)
			}
		}
	}
	for query, field := range map[string]string{"format=xml": "format", "format=csv&format=jsonl": "format", "pageSize=5": "pageSize"} {
		if body := string(c.get("/v1/workspaces/acme/activity:export?" + query).want(http.StatusBadRequest).body); !strings.Contains(body, `"name":"`+field+`"`) {
			t.Errorf("%s: %s", query, body)
		}
	}
	var page struct{ NextPageToken string }
	c.get("/v1/workspaces/acme/activity?pageSize=1").want(http.StatusOK).into(&page)
	c.get("/v1/workspaces/acme/activity?app=web&pageToken="+page.NextPageToken).problem(http.StatusBadRequest, "PAGE_TOKEN_INVALID")
	c.get("/v1/workspaces/acme/activity:export?pageToken=" + page.NextPageToken).want(http.StatusOK)
}

func TestActivity_export(t *testing.T) {
	g := start(t)
	c := activityOf(t, g)
	want := activity(t, c, "acme")

	a := c.get("/v1/workspaces/acme/activity:export").want(http.StatusOK)
	rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(want)+1 || rows[0][0] != "time" {
		t.Fatalf("%d rows for %d records: %q", len(rows), len(want), rows)
	}
	for i, r := range want {
		if row := rows[i+1]; row[1] != fmt.Sprint(r.Number) || row[4] != r.Action || row[8] != r.Message {
			t.Errorf("row %q, record %+v", row, r)
		}
	}
	if got := a.header.Get("Content-Type"); got != "text/csv; charset=utf-8" {
		t.Error(got)
	}
	if got := a.header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="activity-acme-`) || !strings.HasSuffix(got, `.csv"`) {
		t.Error(got)
	}

	a = c.get("/v1/workspaces/acme/activity:export?format=jsonl&app=web").want(http.StatusOK)
	var only record
	if err := json.Unmarshal(a.body, &only); err != nil || only.Action != "deployment.create" || strings.Count(string(a.body), "\n") != 1 {
		t.Errorf("%v: %s", err, a.body)
	}

	g.workspace("other")
	g.key("other", "OWNER").get("/v1/workspaces/acme/activity:export").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
}
