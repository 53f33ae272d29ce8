package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// playedProduct is a product with a scenario, as a process.
type playedProduct struct {
	*daemon
	t       *testing.T
	dir     string
	address string
	bucket  string
}

const storyEnd = "2026-03-16T09:00:00Z"

func playProduct(t *testing.T, env ...string) *playedProduct {
	t.Helper()
	p := &playedProduct{t: t, dir: filepath.Join(t.TempDir(), "data"), bucket: "localhost:" + port(t)}
	p.daemon, p.address = startDaemon(t, p.dir, append([]string{
		"DEVPILOT_EMULATOR=true", "DEVPILOT_SCENARIO=team", "DEVPILOT_SCENARIO_TIME=" + storyEnd, "DEVPILOT_EMULATOR_LISTEN=" + p.bucket, "DEVPILOT_WORKERS=4",
	}, env...)...)
	return p
}

func port(t *testing.T) string {
	t.Helper()
	_, port, _ := strings.Cut(loopback(t), ":")
	return port
}

// told waits until the story was told.
func (p *playedProduct) told() {
	p.t.Helper()
	testkit.Eventually(p.t, 4*timeout, func() error {
		select {
		case err := <-p.done:
			p.done <- err // for who stops it
			p.t.Fatalf("it ended: %v", err)
		default:
		}
		resp, err := http.Get("http://" + p.bucket + "/_scenario")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the scenario says %d", resp.StatusCode)
		}
		return nil
	})
}

func (p *playedProduct) owner() *api {
	p.t.Helper()
	token, err := allinone.ReadAdminToken(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	a := newBrowser(p.t, p.address)
	a.bearer = token.Reveal()
	return a
}

// as signs somebody of the story in.
func (p *playedProduct) as(person string) *api {
	p.t.Helper()
	a := newBrowser(p.t, p.address)
	begun := a.must("POST", "/sign-in/team", object{"next": "/v1/me"})
	a.open(fmt.Sprint(begun["authorizeUrl"]) + "&as=" + person)
	return a
}

// want are the apps of the story: need, how each stands to its branch, its webhook, and its deployments, oldest first.
// How one stands whose git does not answer is unknown after some minutes.
var want = map[string]struct {
	need, sync, webhook string
	deployments         []string
}{
	"api":      {"FAILING", "BEHIND", "ACTIVE", []string{"MANUAL COMPLETED", "PUSH FAILED"}},
	"blog":     {"ROLLED_BACK", "ROLLED_BACK", "", []string{"MANUAL COMPLETED", "PUSH COMPLETED", "ROLLBACK COMPLETED"}},
	"handbook": {"IN_SYNC", "IN_SYNC", "NOT_REGISTERED", []string{"MANUAL COMPLETED"}},
	"landing":  {"BEHIND", "BEHIND", "ACTIVE", nil},
	"mobile":   {"ROLLED_BACK", "CHOSEN", "ACTIVE", []string{"MANUAL COMPLETED", "MANUAL COMPLETED"}},
	"reports":  {"WAITING", "IN_SYNC or UNKNOWN", "ACTIVE", []string{"MANUAL COMPLETED", "MANUAL PENDING"}},
	"search":   {"IN_SYNC", "IN_SYNC", "ACTIVE", []string{"MANUAL COMPLETED", "REDEPLOY COMPLETED"}},
	"shop":     {"IN_SYNC", "IN_SYNC", "ACTIVE", []string{"MANUAL CANCELLED", "PUSH SUPERSEDED", "PUSH COMPLETED"}},
	"staging":  {"BEHIND", "BEHIND", "", []string{"MANUAL COMPLETED"}},
	"video":    {"DEPLOYING", "IN_SYNC", "ACTIVE", []string{"MANUAL COMPLETED", "MANUAL PROCESSING"}},
	"web":      {"IN_SYNC", "IN_SYNC", "ACTIVE", []string{"MANUAL COMPLETED", "PUSH COMPLETED", "PUSH COMPLETED", "PUSH SUPERSEDED"}},
}

// isWhole holds what is there against the story.
func (p *playedProduct) isWhole() {
	p.t.Helper()
	n := &tenant{t: p.t, api: p.owner(), workspace: "default"}
	var apps []string
	for _, app := range objects(n.api.get(n.path("/apps?pageSize=100"))["apps"]) {
		id := fmt.Sprint(app["id"])
		apps = append(apps, id)
		w, ok := want[id]
		if !ok {
			p.t.Errorf("there is an app %s", id)
			continue
		}
		testkit.Eventually(p.t, timeout, func() error { // after a start, the held ones are on their way back to where they were
			app := n.api.get(n.path("/apps/%s", id))
			hook, _ := dig(app, "webhook", "state").(string)
			if app["need"] != w.need || !slices.Contains(strings.Split(w.sync, " or "), fmt.Sprint(dig(app, "sync", "state"))) || hook != w.webhook {
				return fmt.Errorf("%s is %v, %v, its webhook %q", id, app["need"], dig(app, "sync", "state"), hook)
			}
			var got []string
			for _, d := range slices.Backward(n.deployments(id)) {
				got = append(got, fmt.Sprint(d["trigger"], " ", d["state"]))
			}
			if !slices.Equal(got, w.deployments) {
				return fmt.Errorf("%s has the deployments %q", id, got)
			}
			return nil
		})
	}
	if len(apps) != len(want) {
		p.t.Errorf("the apps are %v", apps)
	}
	outcomes := map[string]int{}
	for _, d := range objects(n.api.get(n.path("/apps/web/deliveries"))["deliveries"]) {
		for _, o := range objects(d["outcomes"]) {
			outcomes[strings.TrimSpace(fmt.Sprint(o["kind"], " ", or(o["reason"], "")))]++
		}
	}
	for _, kind := range []string{"DEPLOYMENT", "IGNORED BRANCH_NOT_WATCHED", "IGNORED TAG_NOT_WATCHED"} {
		if outcomes[kind] == 0 {
			p.t.Errorf("no delivery came to %s: %v", kind, outcomes)
		}
	}
	for list, many := range map[string]int{"apiKeys": 3, "invitations": 1, "notificationTargets": 2, "members": 4} {
		for _, all := range n.api.get(n.path("/%s", list)) {
			if all, ok := all.([]any); ok && len(all) != many {
				p.t.Errorf("%s has %d entries, not %d", list, len(all), many)
			}
		}
	}
}

func or(v, otherwise any) any {
	if v == nil {
		return otherwise
	}
	return v
}

func TestScenario_hasEveryStateAndRoleAndIsKept(t *testing.T) {
	t.Parallel()
	p := playProduct(t)
	p.told()
	p.isWhole()
	log := p.log.String()
	for _, said := range []string{"14/14", `The scenario "team" is ready.`, p.address + "/w/default/apps/reports", "Mia Member"} {
		if !strings.Contains(log, said) {
			t.Errorf("the terminal does not show %q", said)
		}
	}
	if out := fetchText(t, p.owner(), "/v1/workspaces/default/apps/api/deployments/2/log?format=text"); !strings.Contains(out, "not ok 2 - counts: 41 is not 42") {
		t.Errorf("the log of what a hook failed: %s", out)
	}
	for person, role := range map[string]string{"olga": "OWNER", "adam": "ADMIN", "mia": "MEMBER"} {
		if got := p.as(person).get("/v1/workspaces/default")["role"]; got != role {
			t.Errorf("%s is %v", person, got)
		}
	}
	if problem := p.as("ines").do("GET", "/v1/workspaces/default", nil, nil); problem == nil || problem.Status != http.StatusUnauthorized {
		t.Errorf("who was invited and did not accept: %+v", problem)
	}
	before := len(objects(p.owner().get("/v1/workspaces/default/activity?pageSize=200")["activity"]))

	p.terminate()
	p.start()
	p.told()
	p.isWhole()
	if strings.Count(p.log.String(), " 1/14 ") != 1 {
		t.Error("the story was told twice")
	}
	if after := len(objects(p.owner().get("/v1/workspaces/default/activity?pageSize=200")["activity"])); after < before || before == 0 {
		t.Errorf("%d entries of activity, %d before", after, before)
	}

	p.terminate() // and without the scenario nobody of it can sign in
	p.env = append(p.env, "DEVPILOT_SCENARIO=", "DEVPILOT_SCENARIO_TIME=")
	p.start()
	newBrowser(t, p.address).refused("POST", "/sign-in/team", object{"next": "/"}, "NOT_FOUND")
	resp, err := http.Get("http://" + p.bucket + "/_scenario/people/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the identity provider answers %d", resp.StatusCode)
	}
}

func fetchText(t *testing.T, a *api, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.base+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.bearer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestScenario_killedWhileItIsToldIsWholeAfterTheNextStart(t *testing.T) {
	t.Parallel()
	p := playProduct(t)
	testkit.Eventually(t, timeout, func() error {
		if !strings.Contains(p.log.String(), " 7/14 ") {
			return fmt.Errorf("it is not that far")
		}
		return nil
	})
	p.kill()
	p.start()
	p.told()
	p.isWhole()
}

func TestScenario_refusedWhereItDoesNotBelong(t *testing.T) {
	t.Parallel()
	used := t.TempDir()
	if err := exec.Command("mkdir", filepath.Join(used, "nats")).Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, said string
		args      []string
	}{
		{"", "add --emulator", []string{"--scenario", "team"}},
		{"", "must be one of: team", []string{"--emulator", "--scenario", "crew"}},
		{"", "add --scenario", []string{"--emulator", "--scenario-time", storyEnd}},
		{"", "must be like 2026-03-16T09:00:00Z", []string{"--emulator", "--scenario", "team", "--scenario-time", "monday"}},
		{"", "leave --emulator-scenario out", []string{"--emulator", "--scenario", "team", "--emulator-scenario", "not-admin"}},
		{"", "leave --identity-providers-file out", []string{"--emulator", "--scenario", "team", "--identity-providers-file", "people.yaml"}},
		{"", "must be one of this machine alone", []string{"--emulator", "--scenario", "team", "--emulator-listen", "0.0.0.0:0"}},
		{used, "needs a data directory of its own", []string{"--emulator", "--scenario", "team"}},
	} {
		if c.dir == "" {
			c.dir = t.TempDir()
		}
		args := append([]string{"--data-dir", c.dir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--live-listen", "127.0.0.1:0"}, c.args...)
		if !slices.Contains(args, "--emulator-listen") {
			args = append(args, "--emulator-listen", "localhost:0")
		}
		cmd := exec.CommandContext(t.Context(), program(t, "devpilot"), args...)
		cmd.Env = cleanEnviron()
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.said) {
			t.Errorf("%v: %v: %s", c.args, err, out)
		}
	}
}

// notFixed are the fields that differ from start to start, as the client's README says: ids and secrets that are
// random, versions, and what is counted from now.
var notFixed = []string{
	"badgePath", "bitbucketUuid", "connectionId", "delivery.webhook", "deliveries.webhook", "diskFreeMib", "etag", "expireTime", "fetchTime",
	"foundWithin", "host", "apiKeys.id", "invitations.id", "targets.id", "webhook.id", "webhooks.id", "workers.id", "lastSeenTime", "manualSteps", "prefix", "progressPercent", "requestId", "requestUuid",
	"retryTime", "tokenExpireTime", "webhook.url", "webhooks.url", "lastUsedTime", "attempt", "lastEventId", "repositories.updateTime", "stale", "workers.busy",
}

// everything reads what the API answers, without what is not fixed.
func (p *playedProduct) everything() map[string]any {
	p.t.Helper()
	a, all := p.owner(), map[string]any{}
	read := func(path string) object {
		got := a.get(path)
		clean(got, "")
		if path == "/v1/info" {
			delete(got, "time")
		}
		all[path] = got
		return got
	}
	const w = "/v1/workspaces/default"
	for _, path := range []string{
		"/v1/me", "/v1/info", "/v1/workspaces", "/v1/servers", w, w + "/deployments?pageSize=100", w + "/webhooks", w + "/members", w + "/invitations",
		w + "/apiKeys", w + "/notificationTargets", w + "/activity?pageSize=200", w + "/integrations", w + "/repositories?pageSize=100",
	} {
		read(path)
	}
	for _, app := range objects(read(w + "/apps?pageSize=100")["apps"]) {
		of := w + "/apps/" + fmt.Sprint(app["id"])
		read(of)
		read(of + "/deliveries")
		for _, d := range objects(read(of + "/deployments")["deployments"]) {
			read(fmt.Sprintf("%s/deployments/%v", of, d["number"]))
			if d["state"] == "COMPLETED" || d["state"] == "FAILED" {
				path := fmt.Sprintf("%s/deployments/%v/log?format=text", of, d["number"])
				all[path] = lasted.ReplaceAllString(fetchText(p.t, a, path), "…")
			}
		}
		read(fmt.Sprintf("%s/repositories/%s/branches", w, app["repository"]))
	}
	return all
}

// lasted is how long something took, in a line of a log, and how much of a mirror was there.
var lasted = regexp.MustCompile(`\d+(\.\d+)?(ms|µs|s)\b`)

// clean drops what is not fixed from an answer.
func clean(v any, parent string) {
	switch v := v.(type) {
	case object:
		for name, value := range v {
			if slices.Contains(notFixed, name) || slices.Contains(notFixed, parent+"."+name) {
				delete(v, name)
				continue
			}
			if name == "resource" { // an id that is not fixed may be in it
				v[name] = regexp.MustCompile(`^(webhooks|apiKeys|invitations|notificationTargets)/[^/]+`).ReplaceAllString(fmt.Sprint(value), "$1/…")
			}
			clean(value, name)
		}
	case []any:
		for _, one := range v {
			clean(one, parent)
		}
	}
}

func TestScenario_twoFreshStartsAnswerTheSame(t *testing.T) {
	t.Parallel()
	listen, bucket := loopback(t), "localhost:"+port(t) // in addresses that are answered
	var first map[string]any
	for round := range 2 {
		p := playProduct(t, "DEVPILOT_LISTEN="+listen, "DEVPILOT_EMULATOR_LISTEN="+bucket)
		p.address, p.bucket = "http://"+listen, bucket
		p.told()
		all := p.everything()
		p.terminate()
		if round == 0 {
			first = all
			continue
		}
		if len(first) < 60 || len(all) != len(first) {
			t.Errorf("%d answers, then %d", len(first), len(all))
		}
		for path, one := range first {
			if !reflect.DeepEqual(one, all[path]) {
				t.Errorf("%s:\n%s\n%s", path, indented(t, one), indented(t, all[path]))
			}
		}
	}
}

func indented(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
