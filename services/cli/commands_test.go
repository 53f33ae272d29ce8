package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// told is a server that answers by method and path and keeps what it was asked.
type told struct {
	mu      sync.Mutex
	answers map[string]string
	asked   []string // method, path and body without the request's id
	queries []string // what they asked for beside the path
}

func (s *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	body := map[string]any{}
	if len(raw) > 0 && json.Unmarshal(raw, &body) == nil {
		delete(body, "requestId")
		raw, _ = json.Marshal(body)
	}
	s.mu.Lock()
	s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(raw)))
	s.queries = append(s.queries, r.URL.RawQuery)
	answer, ok := s.answers[r.Method+" "+r.URL.Path]
	s.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		answer = `{"detail":"There is no such thing.","reason":"NOT_FOUND","status":404}`
	}
	var refused struct{ Status int }
	if _ = json.Unmarshal([]byte(answer), &refused); ok && refused.Status >= 400 {
		w.WriteHeader(refused.Status)
	}
	_, _ = io.WriteString(w, answer)
}

// talking is a machine whose program talks with a server of the test's own.
func talking(t *testing.T, answers map[string]string) (*machine, *told) {
	t.Helper()
	s := &told{answers: answers}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	m := newMachine(t)
	m.env = map[string]string{"DEVPILOT_URL": server.URL, "DEVPILOT_KEY": "dp_good", "DEVPILOT_WORKSPACE": "shop"}
	return m, s
}

const (
	olga     = `{"id":"person-1","label":"Olga","email":"olga@example.com","role":"OWNER"}`
	hook     = `{"id":"wh1","repositoryFullName":"acme/web","state":"ACTIVE","health":"REGISTERED"}`
	delivery = `{"webhook":"wh1","number":7,"answerStatus":202,"answerMessage":"Stored.","outcomes":[{"kind":"DEPLOYED","message":"Deployed as #3."}]}`
)

// Each command asks for just what it says, shows what came, and asks first where something is lost.
func TestCommands_ofMembersWebhooksAndReplay(t *testing.T) {
	t.Parallel()
	const at = "/v1/workspaces/shop"
	answers := map[string]string{
		"GET " + at + "/members":                           `{"members":[` + olga + `],"nextPageToken":""}`,
		"POST " + at + "/invitations":                      `{"url":"https://devpilot.test/sign-in#invitation=x"}`,
		"POST " + at + "/members/person-1:setRole":         strings.Replace(olga, "OWNER", "ADMIN", 1),
		"DELETE " + at + "/members/person-1":               `{"member":` + olga + `}`,
		"GET " + at + "/webhooks":                          `{"webhooks":[` + hook + `],"nextPageToken":""}`,
		"POST " + at + "/webhooks/wh1:register":            hook,
		"POST " + at + "/webhooks/wh1:repair":              strings.Replace(hook, "ACTIVE", "DRIFTED", 1),
		"POST " + at + "/webhooks/wh1/deliveries/7:replay": delivery,
	}
	answers["PATCH "+at] = `{"id":"shop","displayName":"The","role":"OWNER","state":"ACTIVE"}`
	answers["GET "+at+"/deletion"] = `{"workspace":"shop","etag":"e7","appsCount":3,"webhooks":[{"repositoryFullName":"acme/docs","stays":"Not an admin."}]}`
	answers["DELETE "+at] = `{"id":"shop","state":"DELETING"}`
	for _, c := range []struct {
		words, want, asked string
		code               int
	}{
		{words: "members list", want: "Olga", asked: "GET " + at + "/members"},
		{words: "members list -o json", want: `"email": "olga@example.com"`, asked: "GET " + at + "/members"},
		{words: "members invite jane@example.com --role admin", want: "https://devpilot.test/sign-in#invitation=x", asked: "POST " + at + `/invitations {"email":"jane@example.com","role":"ADMIN"}`},
		{words: "members set-role person-1 admin", want: "ADMIN", asked: "POST " + at + `/members/person-1:setRole {"role":"ADMIN"}`},
		{words: "members remove person-1", want: "needs --yes", code: CodeUsage},
		{words: "members remove person-1 --yes", want: "is no member of workspace shop any more", asked: "DELETE " + at + "/members/person-1"},
		{words: "webhooks list", want: "acme/web", asked: "GET " + at + "/webhooks"},
		{words: "webhooks list -o yaml", want: "repositoryFullName: acme/web", asked: "GET " + at + "/webhooks"},
		{words: "webhooks register wh1", want: "ACTIVE", asked: "POST " + at + "/webhooks/wh1:register {}"},
		{words: "webhooks repair wh1", want: "DRIFTED", asked: "POST " + at + "/webhooks/wh1:repair {}"},
		{words: "webhooks repair wh2", want: "no such thing", asked: "POST " + at + "/webhooks/wh2:repair {}", code: CodeNotFound},
		{words: "workspaces rename shop The", want: "The", asked: "PATCH " + at + ` {"displayName":"The"}`},
		{words: "workspaces delete shop", want: "needs --yes", asked: "GET " + at + "/deletion", code: CodeUsage},
		{words: "workspaces delete shop --yes", want: "webhook of acme/docs will stay", asked: "GET " + at + "/deletion DELETE " + at},
		{words: "replay wh1 7", want: "Deployed as #3.", asked: "POST " + at + "/webhooks/wh1/deliveries/7:replay {}"},
		{words: "replay wh1 seven", want: `"seven"`, code: CodeUsage},
		{words: "replay wh1", want: "devpilot replay WEBHOOK NUMBER", code: CodeUsage},
	} {
		m, s := talking(t, answers)
		code, out, said := m.run("", strings.Fields(c.words)...)
		if code != c.code || !strings.Contains(out+said, c.want) {
			t.Errorf("devpilot %s: %d %q %q", c.words, code, out, said)
		}
		if got := strings.Join(s.asked, " "); got != c.asked {
			t.Errorf("devpilot %s asked %q, not %q", c.words, got, c.asked)
		}
	}
}

// What is deployed can be named; commits, tags and apps are listed as the flags say.
func TestCommands_ofWhatCanBeChosen(t *testing.T) {
	t.Parallel()
	const at = "/v1/workspaces/shop"
	const commit = `{"hash":"5b3c9f0e8a1d47c2b6e9f013a8d7c54e21f60b9d","message":"Say who we are\n\nAt length","authorName":"Olga","time":"2026-03-02T09:00:00Z"}`
	answers := map[string]string{
		"POST " + at + "/apps/web/deployments":   `{"app":"web","number":7,"state":"PENDING","trigger":"MANUAL","chosen":true}`,
		"POST " + at + "/apps/api/deployments":   `{"detail":"The commit 5b3c9f0 is not in the history of main.","reason":"COMMIT_NOT_IN_BRANCH","status":409}`,
		"GET " + at + "/repositories/r1/commits": `{"commits":[` + commit + `,` + commit + `,` + commit + `],"branch":"main","nextPageToken":"more"}`,
		"GET " + at + "/repositories/r1/tags":    `{"tags":[{"name":"v1.0","commit":` + commit + `}],"nextPageToken":"","totalSize":1}`,
		"GET " + at + "/apps":                    `{"apps":[{"id":"web","branch":"main"}],"nextPageToken":""}`,
		"GET " + at + "/why":                     `{"message":"Nobody can say.","steps":[],"remedy":{"kind":"RECONNECT","obstacle":"Only an owner or admin can connect Bitbucket."}}`,
	}
	for _, c := range []struct {
		words, want, asked, query string
		code                      int
	}{
		{words: "deploy web --commit 5b3c9f0 --detach", want: "MANUAL", asked: "POST " + at + `/apps/web/deployments {"commit":"5b3c9f0"}`},
		{words: "deploy web --tag v1.0 --pause-auto-deploy --detach", want: "MANUAL", asked: "POST " + at + `/apps/web/deployments {"pauseAutoDeploy":true,"tag":"v1.0"}`},
		{words: "deploy api --commit 5b3c9f0", want: "Next: devpilot commits REPOSITORY BRANCH", asked: "POST " + at + `/apps/api/deployments {"commit":"5b3c9f0"}`, code: CodeConflict},
		{words: "commits r1", want: "5b3c9f0", asked: "GET " + at + "/repositories/r1/commits", query: "pageSize=3"},
		{words: "commits r1 feature/login", want: "Say who we are\n", asked: "GET " + at + "/repositories/r1/commits", query: "branch=feature%2Flogin&pageSize=3"},
		{words: "tags r1 v1", want: "v1.0", asked: "GET " + at + "/repositories/r1/tags", query: "query=v1"},
		{words: "apps list --query web --order-by need --state failed,pending --auto-deploy=false --view basic", want: "web", asked: "GET " + at + "/apps",
			query: "autoDeploy=false&latestStates=FAILED&latestStates=PENDING&orderBy=need&pageSize=200&query=web&view=BASIC"},
		{words: "apps list", want: "web", asked: "GET " + at + "/apps", query: "pageSize=200"},
		{words: "why web --branch main", want: "Next: devpilot integration connect\nOnly an owner or admin can connect Bitbucket.\n", asked: "GET " + at + "/why", query: "app=web&branch=main"},
		{words: "commits r1 --limit 0", want: "--limit", code: CodeUsage},
	} {
		words := strings.Fields(c.words)
		if words[0] == "commits" && c.code == 0 {
			words = append(words, "--limit", "3")
		}
		m, s := talking(t, answers)
		code, out, said := m.run("", words...)
		if code != c.code || !strings.Contains(out+said, c.want) {
			t.Errorf("devpilot %s: %d %q %q", c.words, code, out, said)
		}
		if got := strings.Join(s.asked, " "); got != c.asked {
			t.Errorf("devpilot %s asked %q, not %q", c.words, got, c.asked)
		}
		if len(s.queries) == 1 && s.queries[0] != c.query {
			t.Errorf("devpilot %s asked for %q, not %q", c.words, s.queries[0], c.query)
		}
	}
}

// What is watched is shown at first and after each change of its kind, and until the session ends.
func TestWatch_showsItAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	change := func(kind string) string {
		return fmt.Sprintf("id: 1\nevent: change\ndata: {\"kind\":%q,\"id\":\"x\"}\n\n", kind)
	}
	m, s := talking(t, map[string]string{
		"GET /v1/workspaces/shop/webhooks": `{"webhooks":[` + hook + `],"nextPageToken":""}`,
		"GET /v1/workspaces/shop/events":   "id: 0\nevent: ready\ndata: {}\n\n" + change("app") + change("webhook") + change("webhook") + "event: end\ndata: {\"reason\":\"UNAUTHENTICATED\"}\n\n",
	})
	code, out, said := m.run("", "webhooks", "list", "--watch")
	if code != CodeNotSignedIn || !strings.Contains(said, "devpilot login") {
		t.Errorf("at the end of the session: %d %q", code, said)
	}
	if n := strings.Count(out, "acme/web"); n != 3 {
		t.Errorf("shown %d times, not at first and after two changes of a webhook:\n%s", n, out)
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("where there is no terminal, it is commanded: %q", out)
	}
	if want := []string{"GET /v1/workspaces/shop/events", "GET /v1/workspaces/shop/webhooks", "GET /v1/workspaces/shop/webhooks", "GET /v1/workspaces/shop/webhooks"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %q", s.asked)
	}
}
