package gateway_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"devpilot.io/bitbucket/services/gateway"
)

const teamRules = `      - {workspace: acme, role: admin, group: platform}
      - {workspace: acme, role: member, group: web}
      - {workspace: acme, role: owner, email: olga@example.com}
`

type person struct {
	Subject, Label, Kind string
	SessionExpireTime    time.Time
	Workspaces           []struct{ ID, Role, YourLabel string }
}

func (c *client) me() (p person) {
	c.g.t.Helper()
	c.get("/v1/me").want(http.StatusOK).into(&p)
	return p
}

func (p person) role(workspace string) string {
	for _, w := range p.Workspaces {
		if w.ID == workspace {
			return w.Role
		}
	}
	return ""
}

func TestPeople_groupsGiveRoles(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	p.is("jane", "platform", "web")
	jane := g.browser()
	a := jane.signIn(p, map[string]any{"next": "/w/acme?x=1"}).want(http.StatusSeeOther)
	if to := a.header.Get("Location"); to != "/w/acme?x=1" {
		t.Errorf("sent to %q", to)
	}
	me := jane.me()
	if me.Kind != "SESSION" || me.Label != "Jane" || !strings.HasPrefix(me.Subject, "person-") || len(me.Workspaces) != 1 || me.role("acme") != "ADMIN" {
		t.Errorf("me: %+v", me)
	}
	if left := time.Until(me.SessionExpireTime); left > 13*time.Hour {
		t.Errorf("the session lasts %v", left)
	}
	// The same person in another browser, under a new name and address, is the same person.
	p.is("jane", "web")
	p.set(func() { p.claims["name"], p.claims["email"] = "Jane Doe", "doe@example.com" })
	again := g.browser()
	again.signIn(p, nil).want(http.StatusSeeOther)
	if me2 := again.me(); me2.Subject != me.Subject || me2.Label != "Jane Doe" || me2.role("acme") != "MEMBER" {
		t.Errorf("again: %+v", me2)
	}
	if jane.me().role("acme") != "MEMBER" {
		t.Error("a role that was lost lives on in another browser")
	}
	// A stranger whom the provider knows gets nothing, and nothing is kept.
	p.is("stranger", "sales")
	stranger := g.browser()
	if a := stranger.signIn(p, nil).want(http.StatusForbidden); !strings.Contains(string(a.body), "NOT_A_MEMBER") {
		t.Errorf("a stranger reads %s", a.body)
	}
	stranger.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	// An address counts only when the provider has verified it.
	p.is("olga")
	p.set(func() { p.claims["email_verified"] = false })
	g.browser().signIn(p, nil).want(http.StatusForbidden)
	p.is("olga")
	olga := g.browser()
	olga.signIn(p, nil).want(http.StatusSeeOther)
	if olga.me().role("acme") != "OWNER" {
		t.Errorf("olga is %+v", olga.me())
	}
}

// Two people of one name: what each did can be told apart, and each is told what it is recorded under. The address
// stands only where people see it who see it anyway.
func TestPeople_ofOneName(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	in := func(id string) *client {
		p.is(id, "platform")
		p.set(func() { p.claims["name"] = "Ann" })
		b := g.browser()
		b.signIn(p, nil).want(http.StatusSeeOther)
		return b
	}
	called := func(c *client) string {
		for _, w := range c.me().Workspaces {
			if w.ID == "acme" {
				return w.YourLabel
			}
		}
		return "no member"
	}
	first := in("ann")
	if label := called(first); label != "" {
		t.Errorf("the only Ann is called %q", label)
	}
	first.send(http.MethodDelete, "/v1/workspaces/acme/apps/docs", "")
	waitActivity(t, first, "acme", func(r record) bool { return r.Action == "app.delete" && r.ActorLabel == "Ann" })

	second := in("anna")
	for c, want := range map[*client]string{first: "Ann (ann@example.com)", second: "Ann (anna@example.com)"} {
		if label := called(c); label != want || c.me().Label != "Ann" {
			t.Errorf("called %q, and %q everywhere", label, c.me().Label)
		}
		c.send(http.MethodPost, "/v1/workspaces/acme/apps/web/deployments", `{}`)
		waitActivity(t, c, "acme", func(r record) bool { return r.Action == "deployment.create" && r.ActorLabel == want })
	}
}

// TestPeople_checkedAgain: whoever leaves a group loses the role when the provider is asked again, and whoever
// the provider does not know any more is signed out.
func TestPeople_checkedAgain(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	p.now = g.clock.now
	p.is("jane", "platform")
	jane := g.browser()
	jane.signIn(p, nil).want(http.StatusSeeOther)
	p.is("jane", "web")
	if jane.me().role("acme") != "ADMIN" || p.renewed != 0 {
		t.Errorf("asked again at once: %d times", p.renewed)
	}
	g.clock.forward(20 * time.Minute)
	if jane.me().role("acme") != "MEMBER" || p.renewed != 1 {
		t.Errorf("after the check: %+v, asked %d times", jane.me(), p.renewed)
	}
	// Away, it signs nobody out for an hour; then it does not do to go by its old word.
	p.set(func() { p.down = true })
	g.clock.forward(20 * time.Minute)
	jane.get("/v1/me").want(http.StatusOK)
	g.clock.forward(2 * time.Hour)
	jane.get("/v1/me").problem(http.StatusServiceUnavailable, "IDENTITY_PROVIDER_UNAVAILABLE")
	p.set(func() { p.down = false })
	g.clock.forward(time.Minute)
	jane.get("/v1/me").want(http.StatusOK)
	// Out of the last group: out.
	p.is("jane", "sales")
	g.clock.forward(20 * time.Minute)
	jane.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")

	// dex says invalid_request where the standard has invalid_grant.
	for _, said := range []string{"invalid_grant", "invalid_request"} {
		p.is("john", "web")
		john := g.browser()
		john.signIn(p, nil).want(http.StatusSeeOther)
		p.set(func() { p.kill, p.killed = true, said })
		g.clock.forward(20 * time.Minute)
		john.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
		p.set(func() { p.kill = false })
	}
}

// TestPeople_severalBrowsersOfOneRefreshToken: where a sign-in ends the refresh token of the one before, as dex has it,
// the person's other browsers go by what the provider says for the last one. Where the provider has sessions, it can
// end one of them, and does.
func TestPeople_severalBrowsersOfOneRefreshToken(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	p.now = g.clock.now
	p.set(func() { p.one = true })
	is := func(groups ...string) {
		p.is("jane", groups...)
		p.set(func() { delete(p.claims, "sid") })
	}
	var browsers []*client
	for range 3 {
		is("platform")
		c := g.browser()
		c.signIn(p, nil).want(http.StatusSeeOther)
		browsers = append(browsers, c)
		g.clock.forward(time.Minute)
	}
	is("web")
	for range 3 {
		g.clock.forward(20 * time.Minute)
		for i, c := range browsers {
			if role := c.me().role("acme"); role != "MEMBER" {
				t.Errorf("browser %d: %q after the check", i, role)
			}
		}
	}
	is("sales") // out of all groups
	g.clock.forward(20 * time.Minute)
	for _, c := range browsers {
		c.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}

	p.is("john", "web") // with a session at the provider
	first, second := g.browser(), g.browser()
	first.signIn(p, nil).want(http.StatusSeeOther)
	g.clock.forward(time.Minute)
	second.signIn(p, nil).want(http.StatusSeeOther)
	g.clock.forward(20 * time.Minute)
	first.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	second.get("/v1/me").want(http.StatusOK)
}

func TestPeople_keysOfTheProviderChange(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	p.is("jane", "web")
	g.browser().signIn(p, nil).want(http.StatusSeeOther)
	p.rotate()
	g.browser().signIn(p, nil).want(http.StatusSeeOther)
}

// TestPeople_liesAreNotBelieved: tokens that are forged, expired, or somebody else's sign nobody in.
func TestPeople_liesAreNotBelieved(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	p.is("jane", "web")
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	for name, lie := range map[string]func(map[string]any){
		"another issuer": set("iss", "https://evil.example.com"), "an issuer with a slash": func(c map[string]any) { c["iss"] = c["iss"].(string) + "/" },
		"another audience": set("aud", "somebody-else"), "two audiences": set("aud", []string{clientID, "somebody-else"}),
		"another authorized party": set("azp", "somebody-else"), "another nonce": set("nonce", "of another sign-in"), "no nonce": func(c map[string]any) { delete(c, "nonce") },
		"expired": set("exp", time.Now().Add(-2*time.Minute).Unix()), "from the future": set("iat", time.Now().Add(time.Hour).Unix()),
		"not yet": set("nbf", time.Now().Add(time.Hour).Unix()), "nobody": set("sub", ""), "a long sub": set("sub", strings.Repeat("x", 300)),
	} {
		p.set(func() { p.lie = lie })
		c := g.browser()
		if a := c.signIn(p, nil); a.status != http.StatusConflict && a.status != http.StatusBadRequest || !strings.Contains(string(a.body), "SIGN_IN_FAILED") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		c.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}
	p.set(func() { p.lie = set("exp", time.Now().Add(-30*time.Second).Unix()) })
	g.browser().signIn(p, nil).want(http.StatusSeeOther) // clocks differ
	p.set(func() { p.lie = nil })
	for _, alg := range []jose.SignatureAlgorithm{"none", jose.HS256} {
		p.set(func() { p.alg = alg })
		if a := g.browser().signIn(p, nil); !strings.Contains(string(a.body), "SIGN_IN_FAILED") {
			t.Errorf("alg %s: %d %s", alg, a.status, a.body)
		}
	}
	p.set(func() { p.alg = jose.ES256 })
	// Signed by a key that the provider does not publish, under the id of the one that it does.
	evil := provider(t)
	published := p.keys
	evil.keys[0].KeyID = published[0].KeyID
	p.set(func() { p.keys, p.published = evil.keys, published })
	if a := g.browser().signIn(p, nil); !strings.Contains(string(a.body), "SIGN_IN_FAILED") {
		t.Errorf("signed by somebody else: %d %s", a.status, a.body)
	}
}

// TestPeople_stateIsBoundAndWorksOnce: what comes back is believed in the browser that asked, from the provider
// that was asked, once, for ten minutes.
func TestPeople_stateIsBoundAndWorksOnce(t *testing.T) {
	p, other := provider(t), provider(t)
	g := start(t, withProviders(t, teamRules, p, other))
	p.is("jane", "web")
	refused := func(what string, c *client, path string) {
		t.Helper()
		if a := c.get(path); !strings.Contains(string(a.body), "SIGN_IN_FAILED") {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
		c.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}
	at := func(provider string, q url.Values) string { return "/sign-in/" + provider + "/callback?" + q.Encode() }

	victim := g.browser()
	code, q := p.authorize(victim.begin("corp", nil))
	answer := url.Values{"code": {code}, "state": {q.Get("state")}}
	refused("another browser", g.browser(), at("corp", answer))
	refused("another state", victim, at("corp", url.Values{"code": {code}, "state": {strings.Repeat("A", 43)}}))
	refused("no state", victim, at("corp", url.Values{"code": {code}}))
	refused("another provider's callback", victim, at("other", answer))
	cookies := victim.cookies()
	victim.get(at("corp", answer)).want(http.StatusSeeOther)

	// The same browser's cookie and state once more, even with a code that works.
	replay := g.browser()
	code, _ = p.authorize(victim.begin("corp", nil))
	var jar []string
	for _, c := range cookies {
		jar = append(jar, c.Name+"="+c.Value)
	}
	if a := replay.get(at("corp", url.Values{"code": {code}, "state": {q.Get("state")}}), with("Cookie", strings.Join(jar, "; "))); !strings.Contains(string(a.body), "SIGN_IN_FAILED") {
		t.Errorf("a state that was used: %d %s", a.status, a.body)
	}

	// An answer that says it is another provider's (RFC 9207).
	mixed := g.browser()
	code, q = p.authorize(mixed.begin("corp", nil))
	refused("mixed up", mixed, at("corp", url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {other.url}}))

	late := g.browser()
	code, q = p.authorize(late.begin("corp", nil))
	g.clock.forward(11 * time.Minute)
	refused("late", late, at("corp", url.Values{"code": {code}, "state": {q.Get("state")}}))
	refused("a no", g.browser(), at("corp", url.Values{"error": {"access_denied"}, "state": {q.Get("state")}}))
}

func TestPeople_beginIsOurOwnPagesAlone(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	p.is("jane", "web")
	g.anybody().post("/sign-in/corp", `{"next":"/"}`, with("Origin", "https://evil.example.com")).problem(http.StatusForbidden, "CROSS_ORIGIN_REFUSED")
	g.anybody().post("/sign-in/corp", `{"next":"/"}`, withHost("evil.example.com")).problem(http.StatusBadRequest, "HOST_UNKNOWN")
	g.anybody().get("/sign-in/corp").problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	g.anybody().post("/sign-in/nobody", `{}`).problem(http.StatusNotFound, "NOT_FOUND")
	for _, next := range []string{"https://evil.example.com/", "//evil.example.com", `/\evil.example.com`, "/\t/evil.example.com", "javascript:alert(1)"} {
		if to := g.browser().signIn(p, map[string]any{"next": next}).want(http.StatusSeeOther).header.Get("Location"); to != "/" {
			t.Errorf("next %q leads to %q", next, to)
		}
	}
	page := g.anybody().get("/sign-in").want(http.StatusOK)
	if body := string(page.body); !strings.Contains(body, "Sign in with Example Corp") || !strings.Contains(body, "Admin token") {
		t.Errorf("the page: %s", body)
	}
	if page.header.Get("X-Frame-Options") != "DENY" || !strings.Contains(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("the page can be framed: %v", page.header)
	}
	// What the browser had before does not become the session.
	c := g.browser()
	c.signIn(p, nil).want(http.StatusSeeOther)
	before := c.cookies()[0].Value
	c.signIn(p, nil).want(http.StatusSeeOther)
	if c.cookies()[0].Value == before {
		t.Error("signing in again kept the session that was there")
	}
	if g.logs.Contains(clientSecret) {
		t.Error("the client secret is in the log")
	}
}

func (p *idp) logoutToken(change func(map[string]any)) string {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	claims := map[string]any{
		"iss": p.url, "aud": clientID, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": "id-" + time.Now().String(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}, "sub": "id-of-jane",
	}
	if change != nil {
		change(claims)
	}
	return p.sign(claims)
}

func (g *gate) logout(token string) *answer {
	return g.anybody().send(http.MethodPost, "/sign-in/corp/logout", url.Values{"logout_token": {token}}.Encode(), with("Content-Type", "application/x-www-form-urlencoded"))
}

func TestPeople_signOutAtTheProvider(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, teamRules, p))
	signIn := func(name string) *client {
		p.is(name, "web")
		c := g.browser()
		c.signIn(p, nil).want(http.StatusSeeOther)
		return c
	}
	jane, john := signIn("jane"), signIn("john")
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	for name, change := range map[string]func(map[string]any){
		"another issuer": set("iss", "https://evil.example.com"), "another audience": set("aud", "x"), "a nonce": set("nonce", "n"),
		"no event": set("events", map[string]any{}), "the event is no object": set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": "yes"}),
		"old": set("iat", time.Now().Add(-time.Hour).Unix()), "expired": set("exp", time.Now().Add(-time.Hour).Unix()), "no id": func(c map[string]any) { delete(c, "jti") },
		"about nobody": func(c map[string]any) { delete(c, "sub") },
	} {
		if a := g.logout(p.logoutToken(change)); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	jane.get("/v1/me").want(http.StatusOK)
	token := p.logoutToken(set("sid", "session-of-jane"))
	g.clock.forward(2 * time.Minute) // the wrong attempts are forgotten
	g.logout(token).want(http.StatusOK)
	jane.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	john.get("/v1/me").want(http.StatusOK)
	jane = signIn("jane")
	g.logout(token).problem(http.StatusBadRequest, "INVALID_ARGUMENT") // it came before
	jane.get("/v1/me").want(http.StatusOK)
	g.logout(p.logoutToken(func(c map[string]any) { delete(c, "sub"); c["sid"] = "session-of-john" })).want(http.StatusOK)
	john.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")

	var out struct{ SignOutURL string }
	jane.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK).into(&out)
	u, err := url.Parse(out.SignOutURL)
	if err != nil || !strings.HasPrefix(out.SignOutURL, p.url+"/end?") || u.Query().Get("id_token_hint") == "" || u.Query().Get("post_logout_redirect_uri") != g.url+"/sign-in" {
		t.Errorf("sign-out goes to %q", out.SignOutURL)
	}
	jane.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

// TestPeople_localOwnerOff: nobody gets in by what the local owner has, not even with what was made before.
func TestPeople_localOwnerOff(t *testing.T) {
	p := provider(t)
	file := withProviders(t, teamRules, p)
	g := start(t, file)
	before := g.signedIn()
	off := func(c *gateway.Config) { c.LocalOwnerOff = true }
	_, address := g.replica(file, off)
	there := func(c *client) *client { c.base = address; return c }
	there(g.browser()).post("/v1/session", map[string]any{"token": adminToken}).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	there(g.withToken(adminToken)).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	there(g.anybody()).get("/v1/me", with("Cookie", "devpilot_session="+before.cookies()[0].Value)).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	if page := string(there(g.anybody()).get("/sign-in").want(http.StatusOK).body); strings.Contains(page, "Admin token") {
		t.Errorf("the page offers it: %s", page)
	}
	cfg := gateway.Config{PublicURL: "http://127.0.0.1:1", LocalOwnerOff: true}
	if _, err := gateway.New(cfg, gateway.Deps{Logger: g.logs.Logger, JS: g.js, Keyset: g.keyset, Keys: g.keys, Auth: g.conns["auth"], Repo: g.conns["repo"], Webhook: g.conns["webhook"], Deployer: g.conns["deployer"]}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("nobody could get in: %v", err)
	}
}
