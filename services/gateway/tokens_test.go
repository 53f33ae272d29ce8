package gateway_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/gateway/internal/signin"
)

const (
	tokenAudience = "ari:cloud:bitbucket::workspace/1d8b6d0f-0000-4000-8000-000000000001"
	repositoryOf  = "{c7e5b1a8-3f0d-4b5e-9a43-5d2f7f9a1c10}"
)

// pipelineRules are rules for tokens as Bitbucket Pipelines makes them.
const pipelineRules = `      - scope: deploy
        apps: [web]
        claims: {repositoryUuid: "` + repositoryOf + `", branchName: [main, "release/*"]}
      - scope: admin
        claims: {repositoryUuid: "` + repositoryOf + `", deploymentEnvironmentUuid: "{e0}"}
      - scope: read
        claims: {repositoryUuid: "` + repositoryOf + `"}
`

// withTokens has a gateway take the tokens of the issuer for the workspace acme.
func withTokens(t *testing.T, rules string, p *idp) option {
	t.Helper()
	file := filepath.Join(t.TempDir(), "providers.yaml")
	text := fmt.Sprintf("tokens:\n  - id: pipelines\n    name: Bitbucket Pipelines\n    issuer: %s\n    audience: %q\n    workspace: acme\n    labelClaim: branchName\n    rules:\n%s", p.url, tokenAudience, rules)
	return func(c *gateway.Config) {
		var before []byte
		if c.ProvidersFile != "" { // the same file has both
			var err error
			if before, err = os.ReadFile(c.ProvidersFile); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, append(before, text...), 0o600); err != nil {
			t.Fatal(err)
		}
		c.ProvidersFile = file
	}
}

// pipelineToken is a token as a step of Bitbucket Pipelines gets it, changed.
func (p *idp) pipelineToken(change map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	claims := map[string]any{
		"iss": p.url, "aud": tokenAudience, "sub": repositoryOf + ":{5e1d}", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		"repositoryUuid": repositoryOf, "workspaceUuid": "{w0}", "pipelineUuid": "{p0}", "stepUuid": "{5e1d}", "branchName": "main",
	}
	maps.Copy(claims, change)
	for k, v := range claims {
		if v == nil {
			delete(claims, k)
		}
	}
	return p.sign(claims)
}

// TestTokens_ofPipelines: the first rule that matches the claims says what the token may do, and no secret is stored.
func TestTokens_ofPipelines(t *testing.T) {
	p := provider(t)
	g := start(t, withTokens(t, pipelineRules, p))
	c := g.withToken(p.pipelineToken(nil))
	var me struct {
		Kind, Label, Subject string
		Workspaces           []struct{ ID, Role string }
	}
	c.get("/v1/me").want(http.StatusOK).into(&me)
	if me.Kind != "OIDC_TOKEN" || me.Label != "Bitbucket Pipelines: main" || !strings.HasPrefix(me.Subject, "oidc:pipelines:") || len(me.Workspaces) != 1 || me.Workspaces[0].ID != "acme" || me.Workspaces[0].Role != "MEMBER" {
		t.Errorf("me %+v", me)
	}
	c.post("/v1/workspaces/acme/apps/web/deployments", `{}`).want(http.StatusOK)
	if user := g.deployer.asked("CreateDeployment")[0].user; user.SubjectKind != identity.SubjectOIDCToken || user.Scope != identity.ScopeDeploy || user.Apps != identity.LimitedTo("web") || user.Role != identity.RoleMember {
		t.Errorf("the deployer hears of %+v", user)
	}
	waitActivity(t, g.withToken(adminToken), "acme", func(r record) bool {
		return r.Action == "deployment.create" && r.ActorKind == "OIDC_TOKEN" && r.ActorLabel == "Bitbucket Pipelines: main"
	})
	c.post("/v1/workspaces/acme/apps/shop/deployments", `{}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
	c.send(http.MethodPatch, "/v1/workspaces/acme/apps/web", `{"branch":"x"}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
	c.get("/v1/workspaces/default/apps").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	c.post("/v1/workspaces", `{"workspaceId":"mine"}`).problem(http.StatusForbidden, "PERMISSION_DENIED")

	for branch, status := range map[string]int{"release/1.2": http.StatusOK, "release": http.StatusForbidden, "not-main": http.StatusForbidden, "main2": http.StatusForbidden} {
		g.withToken(p.pipelineToken(map[string]any{"branchName": branch})).post("/v1/workspaces/acme/apps/web/deployments", `{}`).want(status)
	}
	// The environment is in the claims of a step that deploys to one; the rule before it was about the branch.
	admin := g.withToken(p.pipelineToken(map[string]any{"branchName": "staging", "deploymentEnvironmentUuid": "{e0}"}))
	admin.send(http.MethodPatch, "/v1/workspaces/acme/apps/shop", `{"branch":"x"}`).want(http.StatusOK)
	admin.post("/v1/workspaces/acme/integrations/bitbucket:connect", `{}`).problem(http.StatusForbidden, "BROWSER_REQUIRED")
	// What would outlive the token is not made by it.
	admin.post("/v1/workspaces/acme/apiKeys", `{"label":"for ever"}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
	// A good token that no rule is about: who sends it is known, and may nothing.
	other := p.pipelineToken(map[string]any{"repositoryUuid": "{00000000-0000-4000-8000-000000000000}"})
	if said := g.withToken(other).get("/v1/me").problem(http.StatusForbidden, "PERMISSION_DENIED"); !strings.Contains(said.Detail, "no rule") {
		t.Errorf("%s", said.Detail)
	}
	g.logs.MustNotContain(t, c.bearer, other)
}

// TestTokens_whatIsNotBelieved: each is refused with 401 and the reason of it in words, and reaches no service.
func TestTokens_whatIsNotBelieved(t *testing.T) {
	p, stranger := provider(t), provider(t)
	g := start(t, withTokens(t, pipelineRules, p))
	now := time.Now()
	good := p.pipelineToken(nil)
	signedBy := func(alg jose.SignatureAlgorithm, change map[string]any) string {
		p.set(func() { p.alg = alg })
		defer p.set(func() { p.alg = jose.ES256 })
		return p.pipelineToken(change)
	}
	parts := strings.Split(good, ".")
	forged := stranger.pipelineToken(map[string]any{"iss": p.url}) // names the issuer, and a key id that it has too
	for what, row := range map[string]struct{ token, says string }{
		"alg none":                           {signedBy("none", nil), "not signed as it must be"},
		"a shared secret":                    {signedBy(jose.HS256, nil), "not signed as it must be"},
		"another audience":                   {p.pipelineToken(map[string]any{"aud": "somebody-else"}), "not meant for Devpilot"},
		"an audience that begins so":         {p.pipelineToken(map[string]any{"aud": tokenAudience + "0"}), "not meant for Devpilot"},
		"other audiences":                    {p.pipelineToken(map[string]any{"aud": []string{"a", "b"}}), "not meant for Devpilot"},
		"no audience":                        {p.pipelineToken(map[string]any{"aud": nil}), "not meant for Devpilot"},
		"expired":                            {p.pipelineToken(map[string]any{"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-time.Second).Unix()}), "it has expired"},
		"no end":                             {p.pipelineToken(map[string]any{"exp": nil}), "it has expired"},
		"no beginning":                       {p.pipelineToken(map[string]any{"iat": nil}), "more than a day"},
		"for a year":                         {p.pipelineToken(map[string]any{"exp": now.AddDate(1, 0, 0).Unix()}), "more than a day"},
		"of the future":                      {p.pipelineToken(map[string]any{"iat": now.Add(time.Hour).Unix(), "exp": now.Add(2 * time.Hour).Unix()}), "issued in the future"},
		"not before later":                   {p.pipelineToken(map[string]any{"nbf": now.Add(time.Hour).Unix()}), "not meant for Devpilot, or not signed"},
		"another issuer":                     {stranger.pipelineToken(nil), "nobody here knows its issuer"},
		"an issuer with a slash":             {p.pipelineToken(map[string]any{"iss": p.url + "/"}), "nobody here knows its issuer"},
		"no issuer":                          {p.pipelineToken(map[string]any{"iss": nil}), "nobody here knows its issuer"},
		"by another's key":                   {forged, "not by a key"},
		"claims of one, another's signature": {parts[0] + "." + strings.Split(p.pipelineToken(map[string]any{"branchName": "x"}), ".")[1] + "." + parts[2], "not by a key"},
		"without its signature":              {parts[0] + "." + parts[1] + ".", "not"},
		"no subject":                         {p.pipelineToken(map[string]any{"sub": nil}), "whose it is"},
		"a logout token":                     {p.pipelineToken(map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}), "tells of an event"},
		"nothing":                            {"..", "cannot be read"},
		"no JSON":                            {"e30.YWJj.e30", "cannot be read"},
		"large":                              {parts[0] + "." + strings.Repeat("a", 20_000) + "." + parts[2], "too large"},
	} {
		said := g.withToken(row.token).get("/v1/workspaces/acme/apps").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
		if !strings.Contains(said.Detail, row.says) {
			t.Errorf("%s: %s", what, said.Detail)
		}
	}
	if asked := g.deployer.asked("ListApps"); len(asked) != 0 {
		t.Errorf("the deployer was asked %d times", len(asked))
	}
	g.withToken(good).get("/v1/workspaces/acme/apps").want(http.StatusOK)
	// It was good, and is sent again after its end: a stream that it opened has ended too.
	s := g.withToken(good).stream("/v1/workspaces/acme/events")
	s.want("ready")
	g.clock.forward(11 * time.Minute)
	if e := s.until("end"); !strings.Contains(e.data, "UNAUTHENTICATED") {
		t.Errorf("the stream ends with %+v", e)
	}
	g.withToken(good).get("/v1/workspaces/acme/apps").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.logs.MustNotContain(t, good, forged)
}

// TestTokens_keysOfTheIssuerChange: a new key is found by itself, an old one that is published no more is not believed,
// and an issuer that is away is trouble, not a no.
func TestTokens_keysOfTheIssuerChange(t *testing.T) {
	p := provider(t)
	p.set(func() { p.down = true })
	g := start(t, withTokens(t, pipelineRules, p))
	old := p.pipelineToken(nil)
	g.withToken(old).get("/v1/me").problem(http.StatusServiceUnavailable, "IDENTITY_PROVIDER_UNAVAILABLE")
	p.set(func() { p.down = false })
	g.clock.forward(10 * time.Second) // it is asked again after a pause
	g.withToken(old).get("/v1/me").want(http.StatusOK)
	p.rotate()
	fresh := p.pipelineToken(nil)
	g.withToken(fresh).get("/v1/me").want(http.StatusOK)
	g.withToken(old).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	// Strangers that name keys which are not there do not make us ask for ever.
	before := p.keysAsked()
	for range 40 {
		g.withToken(old).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}
	if asked := p.keysAsked() - before; asked > 20 {
		t.Errorf("the issuer was asked %d times for 40 tokens", asked)
	}
	g.withToken(fresh).get("/v1/me").want(http.StatusOK)
	// Nor do they keep us from reading the keys anew when those are old.
	lasting := p.pipelineToken(map[string]any{"exp": time.Now().Add(3 * time.Hour).Unix()})
	g.clock.forward(11 * time.Minute)
	g.withToken(lasting).get("/v1/me").want(http.StatusOK)
}

// TestTokens_readmeIsRight reads the example of the README as an operator would.
func TestTokens_readmeIsRight(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\ntokens:")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no example of tokens")
	}
	file := filepath.Join(t.TempDir(), "providers.yaml")
	if err := os.WriteFile(file, []byte("tokens:"+example), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := signin.ReadSettings(file)
	if err != nil || len(s.Tokens) != 1 || s.Tokens[0].Workspace != "acme" || len(s.Tokens[0].Rules) != 1 {
		t.Errorf("%+v, %v", s.Tokens, err)
	}
}

// TestTokens_keysAreTakenBack: a key that its issuer does not publish any more is believed for minutes at most, also
// while nobody comes with a token of a new one.
func TestTokens_keysAreTakenBack(t *testing.T) {
	p := provider(t)
	g := start(t, withTokens(t, pipelineRules, p))
	old := g.withToken(p.pipelineToken(map[string]any{"exp": time.Now().Add(3 * time.Hour).Unix()}))
	old.get("/v1/me").want(http.StatusOK)
	p.rotate()
	g.clock.forward(11 * time.Minute)
	old.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

// TestTokens_settings: what would let in more than was meant is refused at the start, with what to do.
func TestTokens_settings(t *testing.T) {
	t.Parallel()
	const entry = "tokens:\n  - {id: ci, issuer: https://id.example.com, audience: devpilot-ci, workspace: acme, rules: [{scope: read, claims: {sub: x}}]}\n"
	for says, text := range map[string]string{
		"":                                  entry,
		"claims: at least one":              strings.Replace(entry, ", claims: {sub: x}", "", 1),
		"says nothing":                      strings.Replace(entry, "sub: x", `sub: "*"`, 1),
		"has no text":                       strings.Replace(entry, "sub: x", "sub: []", 1),
		"read, deploy or admin":             strings.Replace(entry, "scope: read", "scope: everything", 1),
		"audience: what":                    strings.Replace(entry, "devpilot-ci", `""`, 1),
		"rules: 1 to":                       strings.Replace(entry, "[{scope: read, claims: {sub: x}}]", "[]", 1),
		"an https address":                  strings.Replace(entry, "https:", "http:", 1),
		"the id of a workspace":             strings.Replace(entry, "workspace: acme", "workspace: Acme", 1),
		"another one takes the same tokens": entry + strings.Replace(strings.TrimPrefix(entry, "tokens:\n"), "id: ci", "id: two", 1),
		"another one has it":                entry + strings.Replace(strings.TrimPrefix(entry, "tokens:\n"), "devpilot-ci", "other", 1),
		"the token of any sign-in would do": "providers:\n  - {id: corp, issuer: https://id.example.com, clientId: devpilot-ci}\n" + entry,
		"is not the id of an app":           strings.Replace(entry, "scope: read", "scope: read, apps: [Web]", 1),
		"unknown field":                     strings.Replace(entry, "scope: read", "scope: read, role: owner", 1),
	} {
		file := filepath.Join(t.TempDir(), "providers.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := signin.ReadSettings(file)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v", says, err)
		}
	}
}
