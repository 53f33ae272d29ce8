package gateway_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// sentences are what a person reads: no bare ids of ours but those that people see elsewhere.
var sentences = regexp.MustCompile(`^[A-Z][^\n]*[a-z][^\n]*\.$`)

// Whatever the API can do that changes something leaves an entry: who, from where, to what, in words. The list of
// what it can do comes from the descriptors.
func TestActivity_everyChangeLeavesAnEntryInWords(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	g.workspace("acme")
	reader := g.withToken(adminToken)
	seen := 0
	for i, r := range routes.All() {
		if r.ReadOnly || strings.HasPrefix(r.Template, "/v1/loginRequests") {
			continue // who asks is in no workspace yet: the approval is an entry, and the key that comes of it
		}
		if strings.HasSuffix(r.RPC, "/RunDoctor") {
			continue // it asks how the installation is, which is in no workspace
		}
		seen++
		workspace, place := "acme", "acme"
		if strings.HasSuffix(r.RPC, "/CreateWorkspace") {
			workspace = "another"
		}
		if strings.HasSuffix(r.RPC, "/DeleteWorkspace") {
			workspace, place = "gone", "gone"
			g.workspace(place)
		}
		c, id := g.signedIn(), fmt.Sprintf("change-%d", i)
		if strings.HasSuffix(r.RPC, "/CreateSignInCode") {
			c = g.withToken(adminToken)
		}
		path := pathOf(r, place)
		if strings.HasSuffix(r.RPC, "/EndSession") { // what is not there belongs to no workspace
			var mine struct{ Sessions []struct{ ID string } }
			c.get("/v1/sessions").want(http.StatusOK).into(&mine)
			path = "/v1/sessions/" + mine.Sessions[0].ID
		}
		c.send(r.Method, path, bodyOf(r), with("X-Request-Id", id), with("X-Forwarded-For", "198.51.100.9"))
		var got *whole
		testkit.Eventually(t, time.Minute, func() error {
			if got = entryOf(reader, workspace, id); got == nil {
				return fmt.Errorf("%s %s leaves no entry", r.Method, r.Template)
			}
			return nil
		})
		if got.Address != "198.51.100.9" || got.ActorLabel == "" || got.Action == "" || got.Target == "" {
			t.Errorf("%s: %+v", r.RPC, got)
		}
		if !sentences.MatchString(got.Message) || got.Succeeded && !strings.HasPrefix(got.Action, "session.") && !strings.Contains(got.Message, got.Target) {
			t.Errorf("%s: no sentence about %s: %q", r.RPC, got.Target, got.Message)
		}
		if kind, _, _ := strings.Cut(got.Action, "."); kind != "session" && kind != "apiKey" && kind != "workspace" && got.Succeeded && !isResource(got.Resource) {
			t.Errorf("%s: %q is not where a resource is", r.RPC, got.Resource)
		}
	}
	if seen < 25 {
		t.Errorf("only %d routes change something", seen)
	}
}

// whole is an entry with all that it says.
type whole struct {
	RequestID, Address, ActorLabel, Action, Target, Message, Resource string
	Succeeded                                                         bool
}

func entryOf(c *client, workspace, requestID string) *whole {
	var page struct{ Activity []whole }
	c.get("/v1/workspaces/" + workspace + "/activity?pageSize=200").want(http.StatusOK).into(&page)
	for _, r := range page.Activity {
		if r.RequestID == requestID {
			return &r
		}
	}
	return nil
}

// isResource tells whether something can be read there: what an entry links to.
func isResource(at string) bool {
	if at == "integrations/bitbucket" {
		return true
	}
	for _, m := range routes.NewTable().Allowed("/v1/workspaces/acme/" + at) {
		if m == http.MethodGet {
			return at != ""
		}
	}
	return false
}

// Where what was changed has a name, the entry has the name and not our id of it.
func TestActivity_namesWhatPeopleCallIt(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	c := g.withToken(adminToken)
	var key struct{ APIKey struct{ ID string } }
	c.post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "ci", "role": "MEMBER"}).want(http.StatusOK).into(&key)
	c.send(http.MethodDelete, "/v1/workspaces/acme/apiKeys/"+key.APIKey.ID, "").want(http.StatusOK)
	c.post("/v1/workspaces/acme/webhooks/wh1:repair", `{}`).want(http.StatusOK)
	got := waitActivity(t, c, "acme", func(r record) bool { return r.Action == "webhook.repair" })
	if !strings.HasPrefix(got.Message, "Repaired the webhook of ") {
		t.Errorf("%q", got.Message)
	}
	if got := waitActivity(t, c, "acme", func(r record) bool { return r.Action == "apiKey.delete" }); got.Message != `Deleted API key "ci".` {
		t.Errorf("%q", got.Message)
	}
}
