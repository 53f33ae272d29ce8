package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// why asks until the answer has a reason, and returns it.
func (n *tenant) why(question, reason string) object {
	n.t.Helper()
	return n.await(n.path("/why?%s", question), func(e object) error {
		if got, _ := e["reason"].(string); got != reason {
			return fmt.Errorf("why %s: %q %v, want %q", question, got, e["message"], reason)
		}
		return nil
	})
}

// says holds an answer to its sentence and its remedy.
func says(t *testing.T, e object, message, remedy string) {
	t.Helper()
	kind, _ := dig(e, "remedy", "kind").(string)
	if e["message"] != message || kind != remedy {
		t.Errorf("the answer is %q with remedy %q, want %q with %q", e["message"], kind, message, remedy)
	}
	if _, name, sub := strings.Cut(t.Name(), "/"); sub && e["reason"] != nil {
		recorded(t, strings.ReplaceAll(name, "_", " "), e)
	}
}

// links are the links of an answer's timeline with their states.
func links(e object) string {
	var out []string
	for _, s := range objects(e["steps"]) {
		out = append(out, fmt.Sprintf("%v %v", s["link"], s["state"]))
	}
	return strings.Join(out, ", ")
}

// TestWhy makes causes for which a push does not deploy, and holds each answer to its sentence and
// what mends it.
func TestWhy(t *testing.T) {
	t.Parallel()
	s := &shared{stack: startInProcess(t), planted: map[string]string{}}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	site := s.site()
	repo := site.repository(t, "why", "site")
	n, other := s.tenant(t, "why"), s.unconnected(t, "why-not")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))

	one := site.commit(t, repo, "main", "one")
	n.live("web", one)
	e := n.why("commit="+one[:8], "")
	says(t, e, "It is live since deployment #1.", "")
	if e["commit"] != one || !strings.HasPrefix(links(e), "PUSH DONE, DELIVERY DONE, VERDICT DONE, DECISION DONE, RUN DONE, STAGE DONE") || !strings.Contains(links(e), "LIVE DONE, STATUS") {
		t.Errorf("the timeline of %v: %s", e["commit"], links(e))
	}
	for _, question := range []string{"delivery=1&app=web", "deployment=1&app=web", "branch=main"} {
		says(t, n.why(question, ""), "It is live since deployment #1.", "")
	}
	request := ""
	for _, d := range objects(n.api.get(n.path("/apps/web/deliveries"))["deliveries"]) {
		request = fmt.Sprint(d["requestUuid"])
	}
	says(t, n.why("delivery="+request, ""), "It is live since deployment #1.", "")
	t.Run("request not seen", func(t *testing.T) {
		says(t, n.with(t).why("delivery=00000000-0000-4000-8000-000000000000", "REQUEST_NOT_SEEN"),
			"Devpilot keeps no request with this id: it never came, came before the last 1,000 of its webhook, or went to another address.", "")
	})
	t.Run("another workspace", func(t *testing.T) {
		e := other.with(t).why("commit="+one, "NOT_CONNECTED")
		if len(objects(e["apps"])) != 0 || e["repository"] != nil || strings.Contains(fmt.Sprint(e), "acme/") {
			t.Errorf("it is told of another workspace: %v", e)
		}
		for question, reason := range map[string]string{
			"delivery=" + webhook + "/1": "WEBHOOK_NOT_FOUND", "deployment=1&app=web": "APP_NOT_FOUND", "commit=" + one + "&app=web": "APP_NOT_FOUND",
			"branch=main&repository=" + repo.id: "REPOSITORY_NOT_FOUND",
		} {
			other.api.with(t).refused("GET", other.path("/why?%s", question), nil, reason)
		}
		if e := other.with(t).why("delivery="+request, "NOT_CONNECTED"); strings.Contains(fmt.Sprint(e["steps"]), "webhook:") {
			t.Errorf("it is told of another workspace's delivery: %v", e)
		}
	})
	t.Run("roles", func(t *testing.T) {
		says(t, n.with(t).key("MEMBER").get(n.path("/why?commit=%s", one)), "It is live since deployment #1.", "")
		other.with(t).key("OWNER").refused("GET", n.path("/why?commit=%s", one), nil, "WORKSPACE_NOT_FOUND")
	})
	t.Run("not one question", func(t *testing.T) {
		for question, field := range map[string]string{
			"": "commit", "commit=" + one + "&branch=main": "branch", "commit=xyz": "commit", "deployment=1": "app", "deployment=-1&app=web": "deployment",
			"delivery=1": "delivery", "delivery=none": "delivery", "branch=a*": "branch", "commit=" + one + "&app=web&repository=00000000-0000-4000-8000-000000000000": "repository",
		} {
			p := n.api.with(t).refused("GET", n.path("/why?%s", question), nil, "INVALID_ARGUMENT")
			if p != nil && (len(p.Fields) == 0 || p.Fields[0].Name != field) {
				t.Errorf("%q names %v, want %s", question, p.Fields, field)
			}
		}
	})
	t.Run("a commit that nobody has seen", func(t *testing.T) {
		e := n.with(t).why("commit="+nowhere, "COMMIT_NOT_SEEN")
		said, _ := e["message"].(string)
		// How often is this repository's own: the test's short interval, or what relying on its webhook makes of it.
		every := regexp.MustCompile(`, which is at least every \d+ seconds\.$`).FindString(said)
		if every == "" {
			t.Errorf("how often Bitbucket is asked is not told: %q", said)
		}
		says(t, e, fmt.Sprintf(
			"Devpilot has not seen commit %s: no delivery told of it, and no watched branch had it when Bitbucket was last asked%s", nowhere[:7], every), "")
	})
	t.Run("wrong branch", func(t *testing.T) {
		site.push(t, repo, onBranch("unwatched", "elsewhere"))
		hash := site.head(t, repo, "unwatched")
		e := n.with(t).why("commit="+hash, "NO_APP_WATCHES")
		says(t, e, "No app watches branch unwatched of "+repo.name+": web watches main.", "EDIT_RULES")
		n.with(t).why("branch=unwatched&app=web", "BRANCH_NOT_WATCHED")
	})
	t.Run("replayed", func(t *testing.T) {
		n.api.with(t).must("POST", n.path("/webhooks/%s/deliveries/2:replay", webhook), object{})
		n.with(t).await(n.path("/why?delivery=2&app=web"), func(e object) error {
			if !strings.Contains(fmt.Sprint(e["steps"]), "; it was considered again once.") || e["reason"] != "BRANCH_NOT_WATCHED" {
				return fmt.Errorf("%v: %v", e["reason"], e["steps"])
			}
			return nil
		})
	})
	t.Run("two commits that begin alike", func(t *testing.T) {
		hash := site.head(t, repo, "unwatched")
		attempts, err := site.Deliveries(t.Context(), onlyHook(t, site, repo), 0)
		if err != nil {
			t.Fatal(err)
		}
		twin := hash[:8] + nowhere[:32]
		if _, err := site.Deliver(t.Context(), repo.name, "repo:push", []byte(strings.ReplaceAll(attempts[len(attempts)-1].Body, hash, twin))); err != nil {
			t.Fatal(err)
		}
		n.with(t).delivery(webhook, 3, 1)
		p := n.api.with(t).refused("GET", n.path("/why?commit=%s", hash[:8]), nil, "INVALID_ARGUMENT")
		if p == nil || !strings.Contains(p.Detail, "2 commits begin with "+hash[:8]) || len(p.Fields) != 1 || p.Fields[0].Name != "commit" {
			t.Errorf("two commits that begin alike: %+v", p)
		}
		for _, one := range []string{hash, twin} {
			if e := n.with(t).why("commit="+one, "NO_APP_WATCHES"); e["commit"] != one {
				t.Errorf("the answer is about %v, want %s", e["commit"], one)
			}
		}
	})
	t.Run("tag", func(t *testing.T) {
		site.push(t, repo, emulator.RefChange{Tag: "v1", From: "unwatched"})
		n.with(t).delivery(webhook, 4, 1)
		says(t, n.with(t).why("delivery=4&app=web", "TAG_NOT_WATCHED"), "Tag v1 does not deploy web: its rules name no such tag.", "EDIT_RULES")
	})
	t.Run("skip phrase", func(t *testing.T) {
		hash := site.commit(t, repo, "main", "words [skip ci]")
		says(t, n.with(t).why("commit="+hash, "SKIP_PHRASE"), "The commit's message has [skip ci].", "DEPLOY")
	})
	t.Run("failed hook", func(t *testing.T) {
		n.api.must("PATCH", n.path("/apps/web?updateMask=hooks"), object{"hooks": []object{{"name": "build", "stage": "POST_SOURCE_CONTROL", "command": "exit 3"}}})
		hash := site.commit(t, repo, "main", "bad")
		e := n.with(t).why("commit="+hash, "DEPLOYMENT_FAILED")
		if !strings.HasPrefix(fmt.Sprint(e["message"]), "Deployment #2 of it failed: ") || dig(e, "remedy", "kind") != "REDEPLOY" || dig(e, "remedy", "deployment") != 2.0 {
			t.Errorf("%v, %v", e["message"], e["remedy"])
		}
		recorded(t, "failed hook", e)
		if app := n.api.get(n.path("/apps/web")); dig(app, "sync", "message") != e["message"] {
			t.Errorf("the app says %v, why says %v", dig(app, "sync", "message"), e["message"])
		}
	})
	t.Run("auto-deploy off", func(t *testing.T) {
		n.api.must("PATCH", n.path("/apps/web?updateMask=autoDeploy"), object{"autoDeploy": false})
		hash := site.commit(t, repo, "main", "off")
		e := n.with(t).why("commit="+hash, "AUTO_DEPLOY_OFF")
		says(t, e, "Auto-deploy is off: Local owner switched it off. Deploy the latest commit, or switch auto-deploy on.", "SWITCH_AUTO_DEPLOY_ON")
	})
	t.Run("app deleted", func(t *testing.T) {
		n.api.must("DELETE", n.path("/apps/web"), nil)
		const gone = "App web, which watched it, was deleted since."
		says(t, n.with(t).why("commit="+one, "APP_DELETED"), gone, "CREATE_APP")
		e := n.with(t).why("deployment=1&app=web", "APP_DELETED")
		says(t, e, gone, "CREATE_APP")
		if e["commit"] != one || !strings.Contains(fmt.Sprint(e["steps"]), "App web made deployment #1 of it; the app was deleted since.") {
			t.Errorf("a deployment of an app that is gone: %v, %v", e["commit"], e["steps"])
		}
		n.api.with(t).refused("GET", n.path("/why?deployment=99&app=web"), nil, "APP_NOT_FOUND")
	})
}

// with is the tenant for a subtest.
func (n *tenant) with(t *testing.T) *tenant {
	return &tenant{shared: n.shared, t: t, api: n.api.with(t), workspace: n.workspace}
}
