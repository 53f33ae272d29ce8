package gateway_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// asked is the answer to a login request.
type asked struct {
	DeviceCode      string    `json:"deviceCode"`
	UserCode        string    `json:"userCode"`
	VerificationURL string    `json:"verificationUrl"`
	IntervalSeconds int       `json:"intervalSeconds"`
	ExpireTime      time.Time `json:"expireTime"`
}

// told is what came of one.
type told struct {
	State     string `json:"state"`
	Secret    string `json:"secret"`
	Workspace string `json:"workspace"`
	APIKey    struct {
		ID         string `json:"id"`
		Label      string `json:"label"`
		Role       string `json:"role"`
		Scope      string `json:"scope"`
		ExpireTime string `json:"expireTime"`
	} `json:"apiKey"`
}

// login asks for a program to be let in.
func (c *client) login(name string) (out asked) {
	c.g.t.Helper()
	c.post("/v1/loginRequests", map[string]any{"clientName": name}).want(http.StatusOK).into(&out)
	return out
}

func (a asked) page() string { return "/v1/loginRequests/" + a.UserCode }

func (a asked) approve(workspace string) string {
	return "/v1/workspaces/" + workspace + "/loginRequests/" + a.UserCode + ":approve"
}

// redeem asks what came of it, after the pause that the answer named.
func (c *client) redeem(a asked) *answer {
	c.g.clock.forward(time.Duration(a.IntervalSeconds) * time.Second)
	return c.post("/v1/loginRequests:redeem", map[string]any{"deviceCode": a.DeviceCode})
}

const gone = "LOGIN_REQUEST_NOT_FOUND"

func TestLogin_aPersonLetsACommandLineIn(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p))
	cli, mia, d := g.anybody(), g.signInAs(p, "mia", "members"), describe(t)
	route := func(rpc string) routes.Route {
		for _, r := range routes.All() {
			if strings.HasSuffix(r.RPC, "/"+rpc) {
				return r
			}
		}
		t.Fatalf("no route of %s", rpc)
		return routes.Route{}
	}
	made := cli.post("/v1/loginRequests", map[string]any{"clientName": " laptop \n"}).want(http.StatusOK)
	d.conform(t, route("CreateLoginRequest"), made, "")
	var a asked
	made.into(&a)
	if !regexp.MustCompile(`^[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}$`).MatchString(a.UserCode) || a.VerificationURL != g.cfg.PublicURL+"/login?code="+a.UserCode || a.IntervalSeconds < 1 {
		t.Errorf("%+v", a)
	}
	if left := a.ExpireTime.Sub(g.clock.now()); strings.Contains(a.VerificationURL, a.DeviceCode) || left > 10*time.Minute || left < 9*time.Minute {
		t.Errorf("%+v", a)
	}
	waits := cli.redeem(a).want(http.StatusOK)
	d.conform(t, route("RedeemLoginRequest"), waits, "")
	if body := string(waits.body); !strings.Contains(body, "PENDING") || strings.Contains(body, "secret") {
		t.Errorf("before anybody decided: %s", body)
	}
	var shown struct {
		UserCode, ClientName, Address, State string
	}
	seen := mia.get("/v1/loginRequests/" + strings.ToLower(strings.ReplaceAll(a.UserCode, "-", ""))).want(http.StatusOK)
	d.conform(t, route("GetLoginRequest"), seen, "")
	seen.into(&shown)
	if shown.UserCode != a.UserCode || shown.ClientName != "laptop" || shown.Address != "127.0.0.1" || shown.State != "PENDING" || strings.Contains(string(seen.body), a.DeviceCode) {
		t.Errorf("the person sees %s", seen.body)
	}
	end := g.clock.now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	approved := mia.post(a.approve("acme"), map[string]any{"scope": "DEPLOY", "expireTime": end}).want(http.StatusOK)
	d.conform(t, route("ApproveLoginRequest"), approved, "")
	if strings.Contains(string(approved.body), "dpk_") {
		t.Errorf("the browser was told a key: %s", approved.body)
	}
	var got told
	done := cli.redeem(a).want(http.StatusOK)
	d.conform(t, route("RedeemLoginRequest"), done, "")
	done.into(&got)
	if got.State != "APPROVED" || got.Workspace != "acme" || got.APIKey.Label != "devpilot on laptop" || got.APIKey.Scope != "DEPLOY" || got.APIKey.Role != "MEMBER" || got.APIKey.ExpireTime != end {
		t.Errorf("%+v", got)
	}
	program := g.withToken(got.Secret)
	program.get("/v1/workspaces/acme/apps").want(http.StatusOK)
	program.post("/v1/workspaces/acme/apps", map[string]any{"appId": "web"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	program.get("/v1/workspaces/rival/apps").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	cli.redeem(a).problem(http.StatusNotFound, gone) // told once
	mia.get(a.page()).problem(http.StatusNotFound, gone)
	mia.post(a.approve("acme"), map[string]any{}).problem(http.StatusNotFound, gone)

	owner := g.signInAs(p, "olga", "owners") // it is an ordinary key: listed, recorded, revoked
	if list := string(owner.get("/v1/workspaces/acme/apiKeys").want(http.StatusOK).body); !strings.Contains(list, "devpilot on laptop") || !strings.Contains(list, `"createdBy":"Mia"`) {
		t.Errorf("keys: %s", list)
	}
	for action, message := range map[string]string{"apiKey.approveLogin": `Approved the login of devpilot on "laptop".`, "apiKey.create": `Created API key "devpilot on laptop".`} {
		if made := waitActivity(t, owner, "acme", func(r record) bool { return r.Action == action && r.Succeeded }); made.Message != message {
			t.Errorf("activity: %+v", made)
		}
	}
	owner.send(http.MethodDelete, "/v1/workspaces/acme/apiKeys/"+got.APIKey.ID, "").want(http.StatusOK)
	program.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.logs.MustNotContain(t, a.DeviceCode, got.Secret)
}

func TestLogin_whatIsRefused(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p))
	cli, mia, adam, rita := g.anybody(), g.signInAs(p, "mia", "members"), g.signInAs(p, "adam", "admins"), g.signInAs(p, "rita", "rivals")
	a := cli.login("laptop")

	// Nobody without a session decides, and no page of another site does by somebody's.
	cli.get(a.page()).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	for name, c := range map[string]*client{"a key": g.key("acme", "OWNER"), "the admin token": g.withToken(adminToken)} {
		c.get(a.page()).problem(http.StatusForbidden, "BROWSER_REQUIRED")
		c.post(a.page()+":deny", map[string]any{}).problem(http.StatusForbidden, "BROWSER_REQUIRED")
		if got := c.post(a.approve("acme"), map[string]any{}).problem(http.StatusForbidden, "BROWSER_REQUIRED"); got.Detail == "" {
			t.Errorf("%s is not told why", name)
		}
	}
	adam.post(a.approve("acme"), map[string]any{}, with("Origin", "https://evil.example.com"), with("Sec-Fetch-Site", "cross-site")).problem(http.StatusForbidden, "CROSS_ORIGIN_REFUSED")
	adam.get(a.approve("acme")).problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED") // a visited link does nothing
	adam.get(a.page()+":deny").problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")

	// Nobody gives more than the own role, or what is another workspace's.
	mia.post(a.approve("acme"), map[string]any{"scope": "ADMIN"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	rita.post(a.approve("acme"), map[string]any{"scope": "READ"}).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	mia.post(a.approve("acme"), map[string]any{"expireTime": "2001-01-01T00:00:00Z"}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")

	// A device code is all of it, or nothing.
	for _, wrong := range []string{"", "x", a.UserCode, a.DeviceCode[:len(a.DeviceCode)-1], a.DeviceCode[:len(a.DeviceCode)-1] + "_", "dpl_" + strings.Repeat("B", 8) + a.DeviceCode[12:]} {
		if got := cli.post("/v1/loginRequests:redeem", map[string]any{"deviceCode": wrong}); got.status != http.StatusNotFound && got.status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", wrong, got.status, got.body)
		}
	}
	if body := string(cli.redeem(a).want(http.StatusOK).body); !strings.Contains(body, "PENDING") {
		t.Fatalf("something decided: %s", body)
	}
	cli.post("/v1/loginRequests:redeem", map[string]any{"deviceCode": a.DeviceCode}).problem(http.StatusTooManyRequests, "RATE_LIMITED") // too soon

	// Decided once.
	mia.post(a.page()+":deny", map[string]any{}).want(http.StatusOK)
	adam.post(a.approve("acme"), map[string]any{}).problem(http.StatusConflict, "LOGIN_REQUEST_ANSWERED")
	mia.post(a.page()+":deny", map[string]any{}).problem(http.StatusConflict, "LOGIN_REQUEST_ANSWERED")
	if body := string(cli.redeem(a).want(http.StatusOK).body); !strings.Contains(body, "DENIED") || strings.Contains(body, "secret") {
		t.Errorf("denied: %s", body)
	}
	cli.redeem(a).problem(http.StatusNotFound, gone)

	// In time.
	b := cli.login("laptop")
	mia.post(b.approve("acme"), map[string]any{}).want(http.StatusOK)
	g.clock.forward(10 * time.Minute)
	cli.redeem(b).problem(http.StatusNotFound, gone)
	c := cli.login("laptop")
	g.clock.forward(10 * time.Minute)
	mia.get(c.page()).problem(http.StatusNotFound, gone)
	mia.post(c.approve("acme"), map[string]any{}).problem(http.StatusNotFound, gone)
	if list := string(g.withToken(adminToken).get("/v1/workspaces/acme/apiKeys").want(http.StatusOK).body); strings.Contains(list, "devpilot on") {
		t.Errorf("a key was made: %s", list)
	}
}

// What was approved is held against the person's role when the key is made.
func TestLogin_whoLostTheRoleMeanwhileGivesNothing(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p))
	cli, adam, owner := g.anybody(), g.signInAs(p, "adam", "admins"), g.withToken(adminToken)
	a, b := cli.login("one"), cli.login("two")
	adam.post(a.approve("acme"), map[string]any{"scope": "ADMIN"}).want(http.StatusOK)
	g.signInAs(p, "adam", "members")
	cli.redeem(a).problem(http.StatusForbidden, "PERMISSION_DENIED")
	adam.post(b.approve("acme"), map[string]any{"scope": "READ"}).want(http.StatusOK)
	g.signInAs(p, "adam", "rivals")
	cli.redeem(b).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	if list := string(owner.get("/v1/workspaces/acme/apiKeys").want(http.StatusOK).body); strings.Contains(list, "devpilot on") {
		t.Errorf("a key was made: %s", list)
	}
}

// Each step may reach another gateway, and one that was restarted; of many that ask at once, one gets the key.
func TestLogin_overTwoGateways(t *testing.T) {
	g := start(t)
	_, url := g.replica(func(c *gateway.Config) { c.PublicURL = g.cfg.PublicURL })
	here, there, owner := g.anybody(), g.anybody(), g.signedIn()
	there.base = url
	elsewhere := *owner
	elsewhere.base, elsewhere.http = url, &http.Client{Timeout: time.Minute}
	elsewhere.cookie = fmt.Sprintf("%s=%s", owner.cookies()[0].Name, owner.cookies()[0].Value)
	for range 3 {
		a := here.login("laptop")
		var wg sync.WaitGroup
		answers := make([]*answer, 4)
		for i, c := range []*client{owner, &elsewhere, owner, &elsewhere} {
			wg.Go(func() { answers[i] = c.post(a.approve("default"), map[string]any{"scope": "READ"}) })
		}
		wg.Wait()
		approved := 0
		for _, r := range answers {
			if r.status == http.StatusOK {
				approved++
			} else {
				r.problem(http.StatusConflict, "LOGIN_REQUEST_ANSWERED")
			}
		}
		g.clock.forward(3 * time.Second)
		for i, c := range []*client{here, there} {
			wg.Go(func() {
				answers[i] = c.post("/v1/loginRequests:redeem", map[string]any{"deviceCode": a.DeviceCode})
			})
		}
		wg.Wait()
		keys := 0
		for _, r := range answers[:2] {
			if r.status == http.StatusOK && strings.Contains(string(r.body), "dpk_") {
				keys++
			} else {
				r.problem(http.StatusNotFound, gone)
			}
		}
		if approved != 1 || keys != 1 {
			t.Errorf("approved %d times, %d keys", approved, keys)
		}
	}
}

func TestLogin_aFloodIsBounded(t *testing.T) {
	g := start(t)
	cli, owner := g.anybody(), g.signedIn()
	var last asked
	minutes := 0
	for open := 0; open < 20; minutes++ { // ten a minute
		for range 10 {
			last = cli.login("x")
			open++
		}
		cli.post("/v1/loginRequests", map[string]any{}).problem(http.StatusTooManyRequests, "RATE_LIMITED")
		g.clock.forward(time.Minute)
	}
	if p := cli.post("/v1/loginRequests", map[string]any{}).problem(http.StatusTooManyRequests, "RATE_LIMITED"); !strings.Contains(p.Detail, "wait for somebody") {
		t.Errorf("more than 20 of an address were open: %+v", p)
	}
	owner.post(last.page()+":deny", map[string]any{}).want(http.StatusOK)
	cli.redeem(last).want(http.StatusOK)
	cli.login("one went, one comes")
	g.clock.forward(10 * time.Minute)
	cli.login("all went")

	// Device codes are guessed in vain, and user codes no more often than this.
	for range 10 {
		cli.post("/v1/loginRequests:redeem", map[string]any{"deviceCode": "dpl_x"}).problem(http.StatusNotFound, gone)
	}
	cli.post("/v1/loginRequests:redeem", map[string]any{"deviceCode": "dpl_x"}).problem(http.StatusTooManyRequests, "RATE_LIMITED")
	a := cli.login("guessed")
	for range 10 {
		owner.get("/v1/loginRequests/BBBB-BBBB").problem(http.StatusNotFound, gone)
	}
	again := g.signedIn() // another session of the same person
	for _, c := range []*client{owner, again} {
		c.get(a.page()).problem(http.StatusTooManyRequests, "RATE_LIMITED")
		c.post(a.approve("default"), map[string]any{}).problem(http.StatusTooManyRequests, "RATE_LIMITED")
		c.post(a.page()+":deny", map[string]any{}).problem(http.StatusTooManyRequests, "RATE_LIMITED")
	}
	g.clock.forward(time.Minute)
	owner.get(a.page()).want(http.StatusOK)
	if body := string(cli.redeem(a).want(http.StatusOK).body); !strings.Contains(body, "PENDING") {
		t.Errorf("%s", body)
	}
	for _, name := range []string{strings.Repeat("x", 65), "a\u0000b", "a\nb"} {
		cli.post("/v1/loginRequests", map[string]any{"clientName": name}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	}
}

func TestLogin_aMemberDoesNotFillTheList(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p))
	cli, mia := g.anybody(), g.signInAs(p, "mia", "members")
	end := g.clock.now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
	for range 10 {
		a := cli.login("laptop")
		mia.post(a.approve("acme"), map[string]any{"expireTime": end}).want(http.StatusOK)
		cli.redeem(a).want(http.StatusOK)
		g.clock.forward(30 * time.Second)
	}
	a := cli.login("laptop")
	if got := mia.post(a.approve("acme"), map[string]any{}).problem(http.StatusForbidden, "PERMISSION_DENIED"); !strings.Contains(got.Detail, "10 API keys") {
		t.Errorf("%+v", got)
	}
	g.clock.forward(29 * time.Minute) // they have expired
	a = cli.login("laptop")
	mia.post(a.approve("acme"), map[string]any{}).want(http.StatusOK)
}
