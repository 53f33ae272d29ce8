package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// variableSecret is the value of a secret variable that hooks do all they can to spill.
const variableSecret = "e2eVariableSecret/3f9c+71d2a08b4e65"

// variable is what planted secret variables are called.
const variable = "variable"

// variableOwner is the workspace whose hooks have them.
const variableOwner = "in-depth"

const spill = `echo "plain: $API_TOKEN"
echo "base64: $(printf 'user:%s' "$API_TOKEN" | base64 -w0)"
printf %s "in two: ${API_TOKEN%%71d2a08b4e65}"; sleep 0.3; echo 71d2a08b4e65
echo "length: ${#API_TOKEN}"`

// visit asks the live listener for a page of a host, as a browser does that resolves *.localhost.
func (s *shared) visit(t *testing.T, address string) (status int, body string, header http.Header) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return request(t, "http://127.0.0.1:"+u.Port()+u.Path, u.Host)
}

// request asks an address for the page of a host.
func request(t *testing.T, address, host string) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// ended waits until a deployment is in a state.
func (n *tenant) ended(app string, number any, state string) object {
	n.t.Helper()
	return n.await(n.path("/apps/%s/deployments/%v", app, number), func(d object) error {
		if d["state"] != state {
			return fmt.Errorf("deployment %v of %s is %v: %v", number, app, d["state"], d["error"])
		}
		return nil
	})
}

// inDepth deploys with hooks and a secret, opens the releases under their own hosts, rolls back and
// cancels.
func inDepth(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "in-depth", "site")
	n := s.tenant(t, variableOwner)
	s.plant(variable, variableSecret)
	n.api.must("POST", n.path("/apps"), object{"appId": "web", "app": object{
		"repository": repo.id, "branch": "main", "autoDeploy": true, "serve": object{"directory": "."},
		"variables": []any{object{"name": "API_TOKEN", "value": variableSecret, "secret": true}, object{"name": "COLOR", "value": "blue"}},
		"hooks": []any{
			object{"name": "build", "stage": "POST_SETUP", "command": `echo "$DEVPILOT_COMMIT $COLOR" > built.txt`},
			object{"name": "spill", "stage": "POST_SETUP", "command": spill},
		},
	}})
	n.await(n.path("/apps/web"), func(app object) error {
		if dig(app, "webhook", "state") != "ACTIVE" {
			return fmt.Errorf("the webhook is %v", app["webhook"])
		}
		return nil
	})
	first := site.commit(t, repo, "main", "first page")
	d := n.live("web", first)
	number := d["number"]
	masked(t, n, number)

	app := n.api.get(n.path("/apps/web"))
	live, pinned := fmt.Sprint(app["liveUrl"]), fmt.Sprint(d["releaseUrl"])
	base, _ := url.Parse(s.liveURL())
	if u, err := url.Parse(live); err != nil || u.Host != "web.in-depth."+base.Host {
		t.Errorf("the live release is at %q", live)
	}
	if u, err := url.Parse(pinned); err != nil || u.Host != fmt.Sprintf("%v--web.in-depth.%s", number, base.Host) {
		t.Errorf("release %v is at %q", number, pinned)
	}
	page := func(address, want string) {
		t.Helper()
		if status, body, _ := s.visit(t, address); status != http.StatusOK || body != want+"\n" {
			t.Errorf("%s answers %d %q, want %q", address, status, body, want)
		}
	}
	page(live, "first page")
	page(pinned, "first page")
	if status, body, _ := s.visit(t, strings.TrimSuffix(live, "/")+"/built.txt"); status != http.StatusOK || body != first+" blue\n" {
		t.Errorf("what a hook built: %d %q", status, body)
	}
	second := site.commit(t, repo, "main", "second page")
	n.live("web", second)
	page(live, "second page")
	page(pinned, "first page")
	notOnTheConsole(t, s, live)

	began := time.Now()
	back := n.api.must("POST", n.path("/apps/web:rollback"), object{})
	if back["trigger"] != "ROLLBACK" || back["sourceNumber"] != number {
		t.Errorf("the rollback: %v", back)
	}
	n.ended("web", back["number"], "COMPLETED")
	page(live, "first page")
	t.Logf("rolled back and seen under the live URL after %v", time.Since(began).Round(time.Millisecond))
	cancelled(t, n)
	page(live, "first page")
}

// masked checks what a hook that spills its secret left in the log.
func masked(t *testing.T, n *tenant, number any) {
	t.Helper()
	count, ok := number.(float64)
	if !ok {
		t.Fatalf("the number is %v", number)
	}
	var text strings.Builder
	for _, r := range wholeLog(t, n, "web", int(count)) {
		if r["hook"] == "spill" && r["stream"] == "STDOUT" {
			fmt.Fprintln(&text, r["text"])
		}
	}
	encoded := base64.StdEncoding.EncodeToString([]byte("user:" + variableSecret))
	for _, leak := range []string{variableSecret, encoded, encoded[8 : len(encoded)-8]} {
		if strings.Contains(text.String(), leak) {
			t.Errorf("the log has the secret: %q", text.String())
		}
	}
	if !strings.Contains(text.String(), fmt.Sprintf("length: %d\n", len(variableSecret))) || strings.Count(text.String(), "\n") != 4 {
		t.Errorf("the hook printed %q", text.String())
	}
}

// notOnTheConsole makes sure that the two never answer for each other, whatever a request says.
func notOnTheConsole(t *testing.T, s *shared, live string) {
	t.Helper()
	u, err := url.Parse(live)
	if err != nil {
		t.Fatal(err)
	}
	if _, body, _ := request(t, s.url()+"/", u.Host); strings.Contains(body, "second page") {
		t.Error("the console's listener serves a release")
	}
	console := strings.TrimPrefix(s.url(), "http://")
	for _, path := range []string{"/", "/v1/info", "/index.html"} {
		status, body, header := request(t, "http://127.0.0.1:"+u.Port()+path, console)
		if status != http.StatusNotFound || strings.Contains(body, "second page") || header.Get("Set-Cookie") != "" {
			t.Errorf("the live listener answers for the console's host at %s: %d %q", path, status, body)
		}
	}
	if status, body, _ := s.visit(t, strings.TrimSuffix(live, "/")+"/v1/info"); status != http.StatusNotFound || strings.Contains(body, "publicUrl") {
		t.Errorf("a release's host answers as the API: %d %q", status, body)
	}
}

// cancelled cancels a deployment while its hook runs, and lists the hook's processes before.
func cancelled(t *testing.T, n *tenant) {
	t.Helper()
	// The processes of a product in its own processes are descendants of this one too: each product's
	// hook sleeps for a time of its own.
	sleep := fmt.Sprintf("sleep 97.%09d", rand.IntN(1e9))
	n.api.must("PATCH", n.path("/apps/web"), object{"hooks": []any{
		object{"name": "slow", "stage": "POST_SETUP", "command": "trap '' TERM; " + sleep + " & " + sleep + "; " + sleep},
	}})
	made := n.api.must("POST", n.path("/apps/web/deployments"), object{})
	look := newSearch(t, map[string]string{"the variable": variableSecret})
	hooks := func() (count int) {
		for _, p := range family(t, n.pids()) {
			look.in("the arguments of "+p.name, p.arguments)
			if strings.Contains(string(p.arguments), strings.ReplaceAll(sleep, " ", "\x00")) {
				count++
			}
		}
		return count
	}
	testkit.Eventually(t, timeout, func() error {
		if hooks() < 2 {
			return fmt.Errorf("the hook does not run: %v", n.api.get(n.path("/apps/web/deployments/%v", made["number"]))["stages"])
		}
		return nil
	})
	began := time.Now()
	n.api.must("POST", n.path("/apps/web/deployments/%v:cancel", made["number"]), object{})
	d := n.ended("web", made["number"], "CANCELLED")
	if left := hooks(); left > 0 {
		t.Errorf("%d processes of the cancelled hook are left", left)
	}
	look.nothing()
	if d["state"] != "CANCELLED" || d["error"] != nil || dig(d, "cancelledBy", "label") == nil || d["live"] == true {
		t.Errorf("the cancelled deployment: %v", d)
	}
	t.Logf("cancelled after %v", time.Since(began).Round(time.Millisecond))
	n.api.refused("POST", n.path("/apps/web/deployments/1:cancel"), object{}, "NOT_CANCELLABLE")
	n.api.must("PATCH", n.path("/apps/web"), object{"hooks": []any{}})
}

// rulesOfPushes pushes tags and paths that an app deploys and some that it does not.
func rulesOfPushes(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "rules", "site")
	n := s.tenant(t, "rules")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))
	n.api.must("PATCH", n.path("/apps/web"), object{"rules": object{"tags": []any{"v*"}, "paths": []any{"site/**"}}})

	outcome := func(delivery int) object {
		t.Helper()
		list := objects(n.delivery(webhook, delivery, 1)["outcomes"])
		if len(list) != 1 {
			t.Fatalf("the outcomes of delivery %d: %v", delivery, list)
		}
		return list[0]
	}
	change := func(path, text string) string {
		t.Helper()
		hash, err := site.Commit(t.Context(), repo.name, "main", text, map[string]string{path: text + "\n"})
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	docs := change("docs/readme.md", "docs only")
	if o := outcome(1); o["kind"] != "IGNORED" || o["reason"] != "PATHS_UNCHANGED" || o["app"] != "web" || !strings.Contains(fmt.Sprint(o["message"]), "docs/readme.md") {
		t.Errorf("a push beside the watched paths: %v", o)
	}
	page := change("site/page.html", "the site")
	n.live("web", page)
	if o := outcome(2); o["kind"] != "DEPLOYMENT" || o["deployment"] != 1.0 {
		t.Errorf("a push of a watched path: %v", o)
	}
	site.push(t, repo, emulator.RefChange{Tag: "v1.0", From: docs})
	if d := n.live("web", docs); d["tag"] != "v1.0" || d["trigger"] != "PUSH" {
		t.Errorf("the deployment of a tag: %v", d)
	}
	site.push(t, repo, emulator.RefChange{Tag: "nightly", From: docs})
	if o := outcome(4); o["reason"] != "TAG_NOT_WATCHED" {
		t.Errorf("a tag that nobody watches: %v", o)
	}
	check := n.api.must("POST", n.path("/apps/web:checkPush"), object{"branch": "main", "oldCommit": page, "newCommit": docs})
	if check["deploys"] != true || len(objects(check["checks"])) == 0 {
		t.Errorf("a dry run of going back: %v", check)
	}
	if list := n.settled("web"); len(list) != 2 {
		t.Errorf("deployments: %s", brief(list))
	}
}
