package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// mainPath is what the product is for: connect, choose, push, live.
func mainPath(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "main-path", "site")
	n := s.unconnected(t, "main-path")
	before := n.api.get(n.path("/integrations/bitbucket"))
	if before["state"] != "NOT_CONNECTED" || dig(before, "setup", "callbackUrl") != s.url()+"/oauth/bitbucket/callback" {
		t.Fatalf("before connecting: %v", before)
	}
	if at := n.api.connect(n.workspace, "grant"); at.Path != "/v1/info" || at.Query().Get("bitbucket") != "connected" {
		t.Fatalf("connecting ended at %s", at)
	}
	connected := n.api.get(n.path("/integrations/bitbucket"))
	if connected["state"] != "CONNECTED" || dig(connected, "account", "label") != jane {
		t.Fatalf("after connecting: %v", connected)
	}
	choose(t, n, repo)

	app := n.app("web", repo, "main")
	hook := onlyHook(t, site, repo)
	if err := site.SetHistory(t.Context(), hook, true); err != nil {
		t.Fatal(err)
	}
	clone := site.clone(t, repo)
	hash := clone.commit("index.html", "<h1>Pushed</h1>\n")
	asked := restCalls(t, site, 0)
	clone.git("push", "--quiet", "origin", "HEAD:main")
	pushed := time.Now()
	d := n.live("web", hash)
	onlyStatuses(t, s, repo, asked)
	t.Logf("from the end of git push to live, as the API shows it: %v", time.Since(pushed).Round(time.Millisecond))

	if d["trigger"] != "PUSH" || d["number"] != 1.0 || dig(d, "commit", "message") != "Change index.html\n" && dig(d, "commit", "message") != "Change index.html" {
		t.Errorf("the deployment: %v", d)
	}
	if dig(d, "delivery", "webhook") != dig(app, "webhook", "id") || dig(d, "delivery", "number") != 1.0 {
		t.Errorf("the deployment does not name its delivery: %v", d["delivery"])
	}
	current := filepath.Join(s.releases(), "apps", n.workspace, "web", "current", "index.html")
	if got, err := os.ReadFile(current); err != nil || string(got) != "<h1>Pushed</h1>\n" {
		t.Errorf("the release holds %q, %v", got, err)
	}
	if got := n.api.get(n.path("/apps/web")); dig(got, "live", "number") != 1.0 || dig(got, "live", "commit", "hash") != hash {
		t.Errorf("the app's live deployment: %v", got["live"])
	}
	wholeLog(t, n, "web", 1)
	requestLog(t, n, hook, fmt.Sprint(dig(app, "webhook", "id")))
}

// restCalls are the calls of Bitbucket's REST API after one of its requests.
func restCalls(t *testing.T, s *site, after int64) (calls []emulator.RequestRecord) {
	t.Helper()
	list, err := s.Requests(t.Context(), after, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if strings.HasPrefix(r.Path, "/2.0/") {
			calls = append(calls, r)
		}
	}
	return calls
}

// onlyStatuses makes sure that a push to the repository costs no call of the REST API but its deployment's
// commit status, since the calls that are asked were made. Where other stories run at the same time, what
// does not name the repository is theirs.
func onlyStatuses(t *testing.T, s *shared, repo repository, asked []emulator.RequestRecord) {
	t.Helper()
	if len(asked) == 0 {
		t.Fatal("the emulator remembers no call of its REST API")
	}
	for _, r := range restCalls(t, s.site(), asked[len(asked)-1].ID) {
		theirs := s.atOnce && !strings.Contains(r.Path, repo.id) && !strings.Contains(r.Path, repo.name)
		if !theirs && !strings.HasSuffix(r.Route, "/commit/{commit}/statuses/build") {
			t.Errorf("between the push and live Bitbucket was asked %s %s", r.Method, r.Path)
		}
	}
}

// choose finds the repository and its branches as the deployment form does.
func choose(t *testing.T, n *tenant, repo repository) {
	t.Helper()
	list := n.api.get(n.path("/repositories?query=main-path"))
	found := objects(list["repositories"])
	if len(found) != 1 || found[0]["id"] != repo.id || found[0]["fullName"] != repo.name || len(asList(list["partialFailures"])) != 0 {
		t.Fatalf("the list of repositories: %v", list)
	}
	all := objects(n.api.get(n.path("/repositories?pageSize=1000"))["repositories"])
	if len(all) < 8 {
		t.Errorf("the whole list has %d repositories, want those of both Bitbucket workspaces", len(all))
	}
	branches := objects(n.api.get(n.path("/repositories/%s/branches", repo.id))["branches"])
	if len(branches) != 4 || branches[0]["name"] != "main" || branches[0]["default"] != true {
		t.Errorf("the branches: %v", branches)
	}
}

// onlyHook is the one webhook of a repository.
func onlyHook(t *testing.T, s *site, repo repository) string {
	t.Helper()
	hooks, err := s.Hooks(t.Context(), repo.name)
	if err != nil || len(hooks) != 1 {
		t.Fatalf("the webhooks of %s: %d, %v; want one", repo.name, len(hooks), err)
	}
	return hooks[0].UUID
}

// wholeLog reads a log: lines counted from 1 without a gap, and an end.
func wholeLog(t *testing.T, n *tenant, app string, number int) []object {
	t.Helper()
	records, end := n.api.log(n.workspace, app, number)
	if len(records) == 0 || end["state"] != "COMPLETED" {
		t.Fatalf("the log has %d records and ends with %v", len(records), end)
	}
	for i, rec := range records {
		if rec["line"] != float64(i+1) || rec["text"] == nil || rec["stage"] == nil || rec["time"] == nil {
			t.Fatalf("record %d of the log is %v", i+1, rec)
		}
	}
	return records
}

// requestLog reads the delivery from both sides.
func requestLog(t *testing.T, n *tenant, hook, webhook string) {
	t.Helper()
	if err := n.site().WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	attempts, err := n.site().Deliveries(t.Context(), hook, 0)
	if err != nil || len(attempts) != 1 {
		t.Fatalf("Bitbucket's requests: %v, %v; want one", attempts, err)
	}
	if a := attempts[0]; a.Status != http.StatusAccepted || !a.History || !strings.Contains(a.Response, "main") {
		t.Errorf("Bitbucket shows status %d, history %v, answer %s", a.Status, a.History, a.Response)
	}
	d := n.delivery(webhook, 1, 1)
	if d["answerStatus"] != 202.0 || d["requestUuid"] != attempts[0].RequestUUID || objects(d["outcomes"])[0]["kind"] != "DEPLOYMENT" {
		t.Errorf("the delivery: %v", d)
	}
}

// consent tries what goes otherwise than planned on the way through the consent page.
func consent(t *testing.T, s *shared) {
	n := s.unconnected(t, "consent")
	if at := n.api.connect(n.workspace, "cancel"); at.Query().Get("bitbucket") != "failed" || at.Query().Get("reason") != "CONSENT_DENIED" {
		t.Errorf("cancelling ended at %s", at)
	}
	state := func() any { return n.api.get(n.path("/integrations/bitbucket"))["state"] }
	if got := state(); got != "NOT_CONNECTED" {
		t.Errorf("after cancelling the integration is %v", got)
	}

	// The callback's address, taken to another browser of the same person, connects nothing there.
	callback := n.api.callback(n.api.begin(n.workspace))
	stranger := newBrowser(t, s.url()).signIn(s.adminToken())
	page, at := stranger.open(callback.String())
	if !strings.Contains(page+at.String(), "HANDSHAKE_") || state() != "NOT_CONNECTED" {
		t.Errorf("the callback in another browser ended at %s: %s", at, page)
	}
	// Nor does the start page of a browser where nobody is signed in.
	if _, at := newBrowser(t, s.url()).open(n.api.begin(n.workspace)); at.Scheme+"://"+at.Host != s.url() {
		t.Errorf("the start page without a session led to %s", at)
	}

	// Once used, neither the callback nor the start page works again.
	start := n.api.begin(n.workspace)
	callback = n.api.callback(start)
	if _, at := n.api.open(callback.String()); at.Query().Get("bitbucket") != "connected" {
		t.Fatalf("the callback ended at %s", at)
	}
	connection := n.api.get(n.path("/integrations/bitbucket"))["connectionId"]
	for _, again := range []string{callback.String(), start} {
		if page, at := n.api.open(again); !strings.Contains(page+at.String(), "HANDSHAKE_") {
			t.Errorf("%s worked again and ended at %s", strings.SplitN(again, "?", 2)[0], at)
		}
	}
	if got := n.api.get(n.path("/integrations/bitbucket"))["connectionId"]; got != connection {
		t.Errorf("replaying made connection %v of %v", got, connection)
	}
	// A state that nobody gave out is nobody's.
	forged := s.url() + "/oauth/bitbucket/callback?" + url.Values{"state": {"forged-state-0000000000000000000000000000"}, "code": {"x"}}.Encode()
	if page, at := n.api.open(forged); !strings.Contains(page+at.String(), "HANDSHAKE_") {
		t.Errorf("a forged state ended at %s", at)
	}
	testkit.Eventually(t, timeout, func() error {
		if got := n.api.get(n.path("/integrations/bitbucket")); got["state"] != "CONNECTED" {
			return fmt.Errorf("the integration is %v", got["state"])
		}
		return nil
	})
}
