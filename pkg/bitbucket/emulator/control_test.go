package emulator_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

func TestControl_refusesWhatIsNotLoopback(t *testing.T) {
	t.Parallel()
	f := start(t)
	for name, change := range map[string]func(*http.Request){
		"other address":  func(r *http.Request) { r.RemoteAddr = "192.0.2.7:4711" },
		"no address":     func(r *http.Request) { r.RemoteAddr = "" },
		"through proxy":  func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") },
		"rebound name":   func(r *http.Request) { r.Host = "evil.example.test" },
		"another's page": func(r *http.Request) { r.Method = "POST"; r.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		request := httptest.NewRequest(http.MethodGet, f.server.SiteURL()+"/_emulator/state", nil)
		request.RemoteAddr = "127.0.0.1:4711"
		change(request)
		recorder := httptest.NewRecorder()
		f.server.Handler().ServeHTTP(recorder, request)
		if recorder.Code != http.StatusForbidden {
			t.Errorf("%s: %d", name, recorder.Code)
		}
	}
	// The same client works in process and over the network.
	for _, control := range []*emulator.Control{f.control, emulator.NewControl(f.server.SiteURL())} {
		state := must(control.State(t.Context()))(t)
		if state.Scenario != "sample" || state.Repositories != 8 || !slices.Contains(state.Commands, "POST /_emulator/faults") {
			t.Errorf("got %+v", state)
		}
		if control != f.control {
			control.CloseIdleConnections()
		}
	}
}

func TestControl_worldForPeopleWithCurl(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *emulator.Options) { o.Scenario = "" })
	request := func(method, path, body string) *answer {
		r, err := http.NewRequestWithContext(t.Context(), method, f.server.SiteURL()+"/_emulator/"+path, strings.NewReader(body))
		f.must(err)
		return f.send(r)
	}
	request("PUT", "accounts/sam", `{"display_name":"Sam"}`).want(t, 200)
	request("PUT", "workspaces/lab", `{"name":"Lab","members":{"sam":"owner"}}`).want(t, 200)
	request("PUT", "repositories/lab/one", `{"seed":"site"}`).want(t, 200)
	request("PATCH", "switches", `{"latency":"1ms","tokens":{"grace":"10m"}}`).want(t, 200)
	request("POST", "clock", `{"by":"1h"}`).want(t, 204)
	request("POST", "repositories/lab/one/pushes", `{"account":"sam","changes":[{"branch":"main","commits":[{"message":"Hi","files":{"a":"b"}}]}]}`).want(t, 200)
	state := must(f.control.State(t.Context()))(t)
	if state.Switches.Latency != time.Millisecond || state.Switches.Tokens.Grace != 10*time.Minute || !state.Switches.Tokens.Rotate {
		t.Errorf("switches %+v", state.Switches)
	}
	if ahead := time.Until(state.Now); ahead < 59*time.Minute || ahead > 61*time.Minute {
		t.Errorf("the clock is ahead by %s", ahead)
	}
	for path, body := range map[string]string{
		"switches": `{"latncy":"1ms"}`, "faults": `{"delay":"soon"}`, "repositories/lab/none/pushes": `{}`, "nothing": `{}`,
	} {
		method := map[bool]string{true: "PATCH", false: "POST"}[path == "switches"]
		if a := request(method, path, body); a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %d", path, body, a.StatusCode)
		}
	}
	token := f.tokens("sam").AccessToken
	if got := f.call("GET", "/repositories/lab?role=admin", token, nil).names("slug"); !slices.Equal(got, []string{"one"}) {
		t.Errorf("got %v", got)
	}
}

func TestControl_requestsAndCounters(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	f.call("GET", "/user", token, nil)
	f.call("GET", "/user", "garbage", nil)
	f.call("GET", "/repositories/acme?pagelen=2", token, nil)
	counters := must(f.control.Counters(t.Context()))(t)
	if counters.Routes["GET /2.0/user"] != 2 || counters.Statuses["GET /2.0/user 401"] != 1 || counters.MostParallel != 1 {
		t.Errorf("got %+v", counters)
	}
	records := must(f.control.Requests(t.Context(), 0, "GET /2.0/repositories/{workspace}"))(t)
	if len(records) != 1 || records[0].Query != "pagelen=2" || records[0].Account != "jane-dev" || records[0].Status != 200 {
		t.Errorf("got %+v", records)
	}
	f.must(f.control.ResetCounters(t.Context()))
	if counters := must(f.control.Counters(t.Context()))(t); len(counters.Routes) != 0 {
		t.Errorf("got %+v", counters)
	}
}

func TestPages_webhooksAndRequestLog(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, func(_ int, w http.ResponseWriter) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(`{"message":"main is <watched>"}`))
	})
	site := f.server.SiteURL()
	post := func(path, form string) *answer {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, site+path, strings.NewReader(form))
		f.must(err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return f.send(request)
	}
	get := func(path string) string {
		return string(f.call("GET", site+path, "", nil).want(t, 200).raw)
	}
	post("/acme/web/admin/webhooks", "description=By+hand&url="+r.URL+"&secret=s&active=true").want(t, 303)
	post("/acme/web/admin/webhooks", "url=nonsense").want(t, 400)
	hooks := must(f.control.Hooks(t.Context(), "acme/web"))(t)
	if len(hooks) != 1 || !hooks[0].SecretSet || hooks[0].Description != "By hand" {
		t.Fatalf("hooks %+v", hooks)
	}
	requests := "/acme/web/admin/webhooks/" + hooks[0].UUID + "/requests"
	f.push("acme/web", commitOn("main", "before"))
	r.wait(t, 1)
	eventually(t, "the record", func() bool { return len(f.deliveries(hooks[0].UUID)) == 1 })
	if page := get(requests); !strings.Contains(page, "Enable history") || strings.Contains(page, "is &lt;watched&gt;") {
		t.Error("without history the request is shown")
	}
	post("/acme/web/admin/webhooks/"+hooks[0].UUID, "action=enable-history").want(t, 303)
	f.push("acme/web", commitOn("main", "after"))
	r.wait(t, 2)
	eventually(t, "the record", func() bool { return len(f.deliveries(hooks[0].UUID)) == 2 })
	page := get(requests)
	if strings.Count(page, "main is &lt;watched&gt;") != 1 || !strings.Contains(page, "<strong>202</strong>") || !strings.Contains(page, "X-Hub-Signature") {
		t.Errorf("request log: %s", page)
	}
	if get("/acme/web/admin/webhooks") == "" || !strings.Contains(get("/acme/web"), "feature/login") || !strings.Contains(get("/"), "jane-dev-password") {
		t.Error("pages lack what they are for")
	}
	if !strings.Contains(get("/acme/empty"), "This repository is empty") {
		t.Error("the empty repository's page")
	}
	refs := must(f.control.Refs(t.Context(), "acme/web"))(t)
	if !strings.Contains(get("/acme/web/commits/"+refs["refs/heads/main"]), "acme/web/commits/") {
		t.Error("the commit's page has no parent")
	}
	f.call("GET", site+"/acme/web/commits/"+strings.Repeat("0", 40), "", nil).want(t, 404)
	f.call("GET", site+"/acme/", "", nil).want(t, 302)
	f.call("GET", site+"/nobody/", "", nil).want(t, 404)
	pair := f.tokens("jane-dev")
	if !strings.Contains(get("/account/settings/app-authorizations/"), pair.GrantID) {
		t.Error("the grant is not listed")
	}
	post("/account/settings/app-authorizations/", "grant="+pair.GrantID).want(t, 303)
	f.call("GET", "/user", pair.AccessToken, nil).want(t, 401)
	post("/acme/web/admin/webhooks/"+hooks[0].UUID, "action=delete").want(t, 303)
	f.call("GET", site+requests, "", nil).want(t, 404)
	f.call("GET", site+"/nothing/here/at/all", "", nil).want(t, 404)
	f.call("GET", site+"/account/jane-dev/avatar/", "", nil).want(t, 200)
}

func TestState_survivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	options := emulator.Options{SiteURL: "http://127.0.0.1:1", DataDir: dir, Scenario: "sample"}
	options.Consumer.CallbackURL = callbackURL
	first := must(emulator.New(options))(t)
	control := first.Control()
	pair := must(control.IssueTokens(t.Context(), "jane-dev"))(t)
	const secret = "a planted webhook secret"
	hook := must(control.AddHook(t.Context(), "acme/web", emulator.Hook{URL: "https://hooks.example.test/x", Secret: secret, HistoryEnabled: true}))(t)
	hash := must(control.Commit(t.Context(), "acme/web", "main", "Kept", map[string]string{"a": "b"}))(t)
	if err := control.SetPermission(t.Context(), "acme/payroll", "jane-dev", "read"); err != nil {
		t.Fatal(err)
	}
	if _, err := emulator.New(options); err == nil {
		t.Error("two emulators opened one directory")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// Neither tokens nor webhook secrets lie in the clear.
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, planted := range []string{pair.AccessToken, pair.RefreshToken, secret} {
			if strings.Contains(string(raw), planted) {
				t.Errorf("a secret is in %s", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	f := start(t, func(o *emulator.Options) { o.DataDir = dir })
	f.call("GET", "/repositories/acme/payroll", pair.AccessToken, nil).want(t, 200)
	if a := f.call("GET", "/repositories/acme/web/refs/branches/main", pair.AccessToken, nil).want(t, 200); a.at("target", "hash") != hash {
		t.Errorf("main is at %v", a.at("target", "hash"))
	}
	hooks := must(f.control.Hooks(t.Context(), "acme/web"))(t)
	if len(hooks) != 1 || hooks[0].UUID != hook.UUID || !hooks[0].SecretSet || !hooks[0].HistoryEnabled {
		t.Errorf("hooks %+v", hooks)
	}
	f.refresh(pair.RefreshToken).want(t, 200)
	f.refresh(pair.RefreshToken).want(t, 400)
	f.must(f.control.DeleteRepository(t.Context(), "acme/web"))
	f.call("GET", "/repositories/acme/web", pair.AccessToken, nil).want(t, 404)
}

func TestScenario_tenThousandSeedsLazilyAndListsCompletely(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, func(o *emulator.Options) { o.DataDir, o.Scenario = dir, "ten-thousand" })
	// What makes seeding fast: no git directory is made before someone asks for it.
	if made := must(os.ReadDir(filepath.Join(dir, "git")))(t); len(made) != 0 {
		t.Errorf("%d git directories were made", len(made))
	}
	token := f.tokens("jane-dev").AccessToken
	workspaces := f.call("GET", "/user/workspaces?pagelen=100", token, nil).want(t, 200).names("workspace", "slug")
	if len(workspaces) != 20 {
		t.Fatalf("%d workspaces", len(workspaces))
	}
	seen := map[string]bool{}
	for _, workspace := range workspaces {
		next := "/repositories/" + workspace + "?role=member&pagelen=100&fields=next,values.uuid"
		for next != "" {
			a := f.call("GET", next, token, nil).want(t, 200)
			for _, uuid := range a.names("uuid") {
				seen[uuid] = true
			}
			next, _ = a.json["next"].(string)
		}
	}
	if len(seen) != 10_000 {
		t.Errorf("%d repositories", len(seen))
	}
	if a := f.call("GET", "/repositories/team-07/service-07-123/refs/branches", token, nil).want(t, 200); len(a.values()) != 4 {
		t.Errorf("got %s", a.raw)
	}
	if made := must(os.ReadDir(filepath.Join(dir, "git")))(t); len(made) != 1 {
		t.Errorf("%d git directories were made for one repository", len(made))
	}
}

func TestScenario_anotherOneIsAnotherWorldForTheSameGrants(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	options := emulator.Options{SiteURL: "http://127.0.0.1:1", DataDir: dir, Scenario: "sample"}
	first := must(emulator.New(options))(t)
	pair := must(first.Control().IssueTokens(t.Context(), "jane-dev"))(t)
	hash := must(first.Control().Commit(t.Context(), "acme/web", "main", "Kept", nil))(t)
	must(first.Control().AddHook(t.Context(), "acme/payroll", emulator.Hook{URL: "https://hooks.example.test/x"}))(t)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	f := start(t, func(o *emulator.Options) { o.DataDir, o.Scenario = dir, "not-admin" })
	if a := f.call("GET", "/repositories/acme/web/refs/branches/main", pair.AccessToken, nil).want(t, 200); a.at("target", "hash") != hash {
		t.Errorf("main is at %v", a.at("target", "hash"))
	}
	f.call("GET", "/repositories/jane-dev", pair.AccessToken, nil).want(t, 404)
	if a := f.call("GET", "/repositories/acme?role=admin", pair.AccessToken, nil); len(a.values()) != 0 {
		t.Errorf("still admin of %v", a.names("slug"))
	}
	for _, repo := range must(f.control.Repositories(t.Context()))(t) {
		if repo.FullName == "acme/payroll" {
			t.Error("a repository of the other scenario is left")
		}
	}
}

func TestScenarios_doWhatTheySay(t *testing.T) {
	t.Parallel()
	t.Run("not-admin", func(t *testing.T) {
		f := start(t, func(o *emulator.Options) { o.Scenario = "not-admin" })
		token := f.tokens("jane-dev").AccessToken
		if a := f.call("GET", "/repositories/acme?role=admin", token, nil); len(a.values()) != 0 {
			t.Errorf("admin of %v", a.names("slug"))
		}
		f.call("POST", hooksPath, token, hookBody()).want(t, 403)
	})
	t.Run("expired", func(t *testing.T) {
		f := start(t, func(o *emulator.Options) { o.Scenario = "expired" })
		pair := f.tokens("jane-dev")
		f.must(f.control.AdvanceClock(t.Context(), time.Minute))
		f.call("GET", "/user", pair.AccessToken, nil).want(t, 401)
		next := f.refresh(pair.RefreshToken).want(t, 200)
		f.must(f.control.AdvanceClock(t.Context(), 2*time.Minute))
		f.refresh(next.json["refresh_token"].(string)).want(t, 400)
	})
	t.Run("rate-limited", func(t *testing.T) {
		f := start(t, func(o *emulator.Options) { o.Scenario = "rate-limited" })
		token := f.tokens("jane-dev").AccessToken
		for range 30 {
			f.call("GET", "/repositories/acme", token, nil).want(t, 200)
		}
		f.call("GET", "/repositories/acme", token, nil).want(t, 429)
	})
	t.Run("unknown", func(t *testing.T) {
		if _, err := emulator.New(emulator.Options{SiteURL: "http://127.0.0.1:1", DataDir: t.TempDir(), Scenario: "magic"}); err == nil {
			t.Error("an unknown scenario was accepted")
		}
	})
}

func TestOptions_whatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*emulator.Options){
		"no site":        func(o *emulator.Options) { o.SiteURL = "" },
		"site with path": func(o *emulator.Options) { o.SiteURL = "http://127.0.0.1/x" },
		"no secret":      func(o *emulator.Options) { o.Consumer.Key = "key" },
		"short tokens":   func(o *emulator.Options) { o.Tokens.Length = 5 },
		"scope field":    func(o *emulator.Options) { o.Tokens.ScopeField = "rights" },
	} {
		options := emulator.Options{SiteURL: "http://127.0.0.1:1"}
		change(&options)
		if e, err := emulator.New(options); err == nil {
			t.Errorf("%s was accepted", name)
			_ = e.Close()
		}
	}
}

func TestClose_leavesNothingBehind(t *testing.T) {
	ignored := goleak.IgnoreCurrent()
	e := must(emulator.New(emulator.Options{SiteURL: "http://127.0.0.1:1", Scenario: "sample"}))(t)
	block := make(chan struct{})
	r := newReceiver(t, func(int, http.ResponseWriter) { <-block })
	must(e.Control().AddHook(t.Context(), "acme/web", emulator.Hook{URL: r.URL}))(t)
	must(e.Control().Commit(t.Context(), "acme/web", "main", "x", nil))(t)
	eventually(t, "the delivery", func() bool { return len(r.got()) == 1 })
	state := must(e.Control().State(t.Context()))(t)
	if state.Idle {
		t.Error("idle with a delivery under way")
	}
	if err := errors.Join(e.Close()); err != nil {
		t.Error(err)
	}
	close(block)
	r.Close()
	testkit.Eventually(t, 10*time.Second, func() error { return goleak.Find(ignored) })
}
