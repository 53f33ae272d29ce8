package emulator_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

type object = map[string]any

func hookBody(change ...func(object)) object {
	body := object{
		"description": "Acme deploy", "url": "https://hooks.example.test/bitbucket/6c1f", "active": true,
		"events": []string{"repo:push"}, "secret": "It's a Secret to Everybody",
	}
	for _, c := range change {
		c(body)
	}
	return body
}

func without(name string) func(object)    { return func(o object) { delete(o, name) } }
func set(name string, v any) func(object) { return func(o object) { o[name] = v } }

const hooksPath = "/repositories/acme/web/hooks"

func TestHooks_lifeOfOne(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	created := f.call("POST", hooksPath, token, hookBody()).want(t, 201)
	uuid, _ := created.json["uuid"].(string)
	self := f.server.APIURL() + hooksPath + "/" + url.PathEscape(uuid)
	if created.Header.Get("Location") != self || created.at("links", "self", "href") != self {
		t.Errorf("Location %q, want %q", created.Header.Get("Location"), self)
	}
	if created.json["type"] != "webhook_subscription" || created.json["secret_set"] != true || created.json["history_enabled"] != false ||
		has(created.json, "secret") || created.at("subject", "full_name") != "acme/web" || created.json["read_only"] != false ||
		!strings.HasSuffix(created.json["created_at"].(string), "Z") || strings.Contains(string(created.raw), "Everybody") {
		t.Errorf("got %s", created.raw)
	}
	f.call("GET", self, token, nil).want(t, 200)
	if list := f.call("GET", hooksPath, token, nil).want(t, 200); list.json["size"] != 1.0 || list.json["pagelen"] != 10.0 {
		t.Errorf("list: %s", list.raw)
	}

	// PUT replaces all but the secret, which stays unless it is given.
	updated := f.call("PUT", self, token, hookBody(without("secret"), without("description"), set("active", false))).want(t, 200)
	if updated.json["secret_set"] != true || updated.json["active"] != false || updated.json["description"] != "" {
		t.Errorf("got %s", updated.raw)
	}
	for _, nothing := range []any{nil, ""} {
		f.call("PUT", self, token, hookBody(set("secret", "again"))).want(t, 200)
		if a := f.call("PUT", self, token, hookBody(set("secret", nothing))).want(t, 200); a.json["secret_set"] != false {
			t.Errorf("secret %v did not remove it: %s", nothing, a.raw)
		}
	}
	if a := f.call("DELETE", self, token, nil).want(t, 204); len(a.raw) != 0 {
		t.Errorf("204 with a body: %s", a.raw)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		a := f.call(method, self, token, hookBody()).want(t, 404)
		if message, _ := a.at("error", "message").(string); !strings.Contains(message, "is not a valid hook") {
			t.Errorf("%s: %s", method, a.raw)
		}
	}
}

func TestHooks_sameURLTwiceMakesTwo(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for range 12 {
		f.call("POST", hooksPath, token, hookBody()).want(t, 201)
	}
	first := f.call("GET", hooksPath, token, nil).want(t, 200)
	if len(first.values()) != 10 || first.json["next"] == nil {
		t.Errorf("first page has %d", len(first.values()))
	}
	f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.MaxHooks = 12 }))
	f.call("POST", hooksPath, token, hookBody()).want(t, 400, "A repository can have at most 12 webhooks.")
	f.call("PUT", hooksPath+"/"+url.PathEscape(first.values()[0].(map[string]any)["uuid"].(string)), token, hookBody()).want(t, 200)
}

func TestHooks_onlyAdministratorsAndOnlyWithScopes(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for _, repository := range []string{"acme/docs", "acme/legacy"} {
		path := "/repositories/" + repository + "/hooks"
		refused := f.call("POST", path, token, hookBody()).want(t, 403)
		if want := `{"data":{"key":"INSUFFICIENT_RIGHTS"},"error":{"data":{"key":"INSUFFICIENT_RIGHTS"},"message":"Access denied. You must have write or admin access."},"type":"error"}`; string(refused.raw) != want {
			t.Errorf("got %s", refused.raw)
		}
		f.call("GET", path, token, nil).want(t, 403)
	}
	f.call("GET", "/repositories/acme/payroll/hooks", token, nil).want(t, 404, noRepository)
	f.call("POST", hooksPath, "", hookBody()).want(t, 401)

	onlyHooks := f.tokens("jane-dev", "webhook").AccessToken
	f.call("GET", hooksPath, onlyHooks, nil).want(t, 200)
	a := f.call("POST", hooksPath, onlyHooks, hookBody()).want(t, 403)
	if fmt.Sprint(a.at("error", "detail", "required")) != "[webhook repository]" {
		t.Errorf("got %s", a.raw)
	}
	f.must(f.control.SetPermission(t.Context(), "acme/docs", "jane-dev", "admin"))
	f.call("POST", "/repositories/acme/docs/hooks", token, hookBody()).want(t, 201)
}

func TestHooks_validationInBothStyles(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	self := f.call("POST", hooksPath, token, hookBody()).want(t, 201).Header.Get("Location")
	for _, tc := range []struct {
		name, field string
		change      func(object)
	}{
		{"no url", "url", without("url")},
		{"relative url", "url", set("url", "/webhooks/1")},
		{"other scheme", "url", set("url", "ftp://example.test/")},
		{"private address", "url", set("url", "http://10.1.2.3/hook")},
		{"link-local address", "url", set("url", "http://169.254.1.1/hook")},
		{"internal name", "url", set("url", "https://devpilot.internal/hook")},
		{"bare name", "url", set("url", "https://devpilot/hook")},
		{"no events", "events", set("events", []string{})},
		{"unknown event", "events", set("events", []string{"repo:shove"})},
		{"event twice", "events", set("events", []string{"repo:push", "repo:push"})},
		{"long secret", "secret", set("secret", strings.Repeat("s", 129))},
		{"long description", "description", set("description", strings.Repeat("d", 256))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.ObjectHookErrors = false }))
			for method, path := range map[string]string{"POST": hooksPath, "PUT": self} {
				a := f.call(method, path, token, hookBody(tc.change)).want(t, 400, "Bad request")
				if text, _ := a.at("error", "fields", 0).(string); !strings.HasPrefix(text, "Field: {"+tc.field+"} Error: {") {
					t.Errorf("%s: %s", method, a.raw)
				}
			}
			f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.ObjectHookErrors = true }))
			if a := f.call("POST", hooksPath, token, hookBody(tc.change)).want(t, 400); a.at("error", "fields", tc.field, 0) == nil {
				t.Errorf("older style: %s", a.raw)
			}
		})
	}
	for _, contentType := range []string{"text/plain", "application/json"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.APIURL()+hooksPath, strings.NewReader("{not json"))
		f.must(err)
		request.Header.Set("Content-Type", contentType)
		request.Header.Set("Authorization", "Bearer "+token)
		if a := f.send(request).want(t, 400); string(a.raw) != "Bad Request" {
			t.Errorf("%s: %s", contentType, a.raw)
		}
	}
}

func TestHooks_loopbackURLsOnlyWhereTheSwitchSaysSo(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for policy, status := range map[string]int{"loopback": 201, "public": 400, "any": 201} {
		f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.HookURLs = policy }))
		for _, target := range []string{"http://127.0.0.1:8080/webhooks/bitbucket/x", "http://localhost:8080/x", "http://[::1]:8080/x"} {
			f.call("POST", hooksPath, token, hookBody(set("url", target))).want(t, status)
		}
	}
	remote := start(t, func(o *emulator.Options) { o.SiteURL = "https://bitbucket.example.test" })
	state, err := remote.control.State(t.Context())
	f.must(err)
	if state.Switches.HookURLs != "public" {
		t.Errorf("default policy away from loopback is %q", state.Switches.HookURLs)
	}
}
