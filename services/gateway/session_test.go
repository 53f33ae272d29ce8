package gateway_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/gateway"
)

func TestSession_signInAndOut(t *testing.T) {
	g := start(t)
	c := g.browser()
	c.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	a := c.post("/v1/session", map[string]any{"token": adminToken}).want(http.StatusOK)
	set := a.header.Get("Set-Cookie")
	for _, part := range []string{"devpilot_session=", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="} {
		if !strings.Contains(set, part) {
			t.Errorf("Set-Cookie %q lacks %s", set, part)
		}
	}
	if strings.Contains(set, "Secure") {
		t.Errorf("Set-Cookie %q is Secure on http", set)
	}
	var me struct {
		Subject, Kind     string
		SessionExpireTime time.Time
		Workspaces        []struct{ ID, Role string }
	}
	c.get("/v1/me").want(http.StatusOK).into(&me)
	if me.Kind != "SESSION" || me.Subject != "local" || len(me.Workspaces) != 1 || me.Workspaces[0].ID != "default" || me.Workspaces[0].Role != "OWNER" {
		t.Errorf("me: %+v", me)
	}
	if left := time.Until(me.SessionExpireTime); left < 13*24*time.Hour || left > 15*24*time.Hour {
		t.Errorf("the session ends in %v", left)
	}
	stolen := c.cookies()[0].Value
	out := c.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
	if !strings.Contains(out.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("the cookie stays: %q", out.header.Get("Set-Cookie"))
	}
	if len(c.cookies()) != 0 {
		t.Error("the browser still has a cookie")
	}
	// Whoever copied the cookie is signed out too.
	g.anybody().get("/v1/me", with("Cookie", "devpilot_session="+stolen)).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	c.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK) // again
}

// What was copied along with a token is no part of it.
func TestSession_pastedToken(t *testing.T) {
	g := start(t)
	for _, token := range []string{adminToken + "\n", "\ufeff" + adminToken + "\r\n", " \u00a0" + adminToken + "\u200b"} {
		g.browser().post("/v1/session", map[string]any{"token": token}).want(http.StatusOK)
	}
	g.browser().post("/v1/session", map[string]any{"token": adminToken[:8] + " " + adminToken[8:]}).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.anybody().get("/v1/me", with("Authorization", "Bearer \ufeff"+adminToken+"\u00a0")).want(http.StatusOK)
}

func TestSession_secureCookieOnHTTPS(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.PublicURL = "https://devpilot.example.com" })
	a := g.anybody().post("/v1/session", map[string]any{"token": adminToken}, withHost("devpilot.example.com")).want(http.StatusOK)
	set := a.header.Get("Set-Cookie")
	if !strings.HasPrefix(set, "__Host-devpilot_session=") || !strings.Contains(set, "Secure") || strings.Contains(set, "Domain") {
		t.Errorf("Set-Cookie %q", set)
	}
	value := strings.Split(strings.TrimPrefix(set, "__Host-devpilot_session="), ";")[0]
	g.anybody().get("/v1/me", with("Cookie", "__Host-devpilot_session="+value)).want(http.StatusOK)
	// A cookie under the name that another port or scheme could set does not count.
	g.anybody().get("/v1/me", with("Cookie", "devpilot_session="+value)).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

func TestSession_fixationAndForgery(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	before := c.cookies()[0].Value
	c.post("/v1/session", map[string]any{"token": adminToken}).want(http.StatusOK)
	if c.cookies()[0].Value == before {
		t.Error("signing in again kept the session that was there")
	}
	flipped := []byte(before)
	flipped[len(flipped)/2] ^= 1
	for name, value := range map[string]string{
		"changed": string(flipped), "empty": "", "not base64": "%%%", "short": "AAAA", "long": strings.Repeat("A", 5000),
		"twice": before + "; devpilot_session=" + before,
	} {
		if got := g.anybody().get("/v1/me", with("Cookie", "devpilot_session="+value)).status; got != http.StatusUnauthorized {
			t.Errorf("%s cookie: %d", name, got)
		}
	}
}

func TestSession_everywhere(t *testing.T) {
	g := start(t)
	one, two := g.signedIn(), g.signedIn()
	one.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
	two.get("/v1/me").want(http.StatusOK)
	three := g.signedIn()
	three.send(http.MethodDelete, "/v1/session?everywhere=true", "").want(http.StatusOK)
	two.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.signedIn().get("/v1/me").want(http.StatusOK)
	g.key("default", "MEMBER").send(http.MethodDelete, "/v1/session?everywhere=true", "").problem(http.StatusForbidden, "PERMISSION_DENIED")
}

func TestSession_slidesAndEnds(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	first := c.cookies()[0].Value
	c.get("/v1/me").want(http.StatusOK)
	if c.cookies()[0].Value != first {
		t.Error("a fresh cookie was renewed")
	}
	for range 8 { // used every 11 days, it lasts
		g.clock.forward(11 * 24 * time.Hour)
		c.get("/v1/me").want(http.StatusOK)
	}
	if c.cookies()[0].Value == first {
		t.Error("an old cookie was not renewed")
	}
	g.clock.forward(11 * 24 * time.Hour) // 99 days: it ends in any case
	c.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	idle := g.signedIn()
	g.clock.forward(15 * 24 * time.Hour)
	idle.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

func TestSession_survivesRestartAndReplicas(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	g.nats.Restart()
	_, other := g.replica()
	value := c.cookies()[0].Value
	there := g.anybody()
	there.base = other
	there.get("/v1/me", with("Cookie", "devpilot_session="+value)).want(http.StatusOK)
	c.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
	there.get("/v1/me", with("Cookie", "devpilot_session="+value)).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

func TestSession_storageTroubleIsNo401(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	g.nats.Stop()
	a := c.get("/v1/me")
	a.problem(http.StatusServiceUnavailable, "STORAGE_UNAVAILABLE")
	g.nats.Start()
	c.get("/v1/info").want(http.StatusOK)
}

func TestSignInCode_worksOnceForFiveMinutes(t *testing.T) {
	g := start(t)
	var made struct {
		Code, SignInURL string
		ExpireTime      time.Time
	}
	g.withToken(adminToken).post("/v1/session/codes", map[string]any{}).want(http.StatusOK).into(&made)
	if made.SignInURL != g.url+"/sign-in#code="+made.Code {
		t.Errorf("URL %q", made.SignInURL)
	}
	// Of many that show it at once, over two replicas, one gets in.
	_, other := g.replica()
	var mu sync.Mutex
	var in int
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := g.browser()
			if i%2 == 1 {
				c.base = other
			}
			if c.post("/v1/session", map[string]any{"token": made.Code}).status == http.StatusOK {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("%d of 8 were signed in with one code", in)
	}
	code, err := g.svc.NewSignInCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.clock.forward(2 * time.Minute) // a new window of attempts, too
	g.browser().post("/v1/session", map[string]any{"token": code}).want(http.StatusOK)
	late, err := g.svc.NewSignInCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.clock.forward(6 * time.Minute)
	g.browser().post("/v1/session", map[string]any{"token": late}).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.signedIn().post("/v1/session/codes", map[string]any{}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	g.logs.MustNotContain(t, adminToken, code, late, made.Code)
}

func TestSignIn_isRateLimitedPerAddress(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	from := func(address string) change { return with("X-Forwarded-For", "203.0.113.99, "+address) }
	wrong := func(address string) *answer {
		return g.anybody().post("/v1/session", map[string]any{"token": "a guess"}, from(address))
	}
	for range 10 {
		wrong("198.51.100.1").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}
	a := wrong("198.51.100.1")
	p := a.problem(http.StatusTooManyRequests, "RATE_LIMITED")
	if p.RetryAfterSeconds < 1 || a.header.Get("Retry-After") == "" {
		t.Errorf("no time to wait: %+v", p)
	}
	wrong("198.51.100.2").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.clock.forward(time.Minute)
	wrong("198.51.100.1").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

func TestBearer_wrongCredentials(t *testing.T) {
	g := start(t)
	for name, value := range map[string]string{
		"wrong token": "Bearer nonsense", "other scheme": "Basic " + adminToken, "no scheme": adminToken, "empty": "Bearer ",
		"key that never was": "Bearer dpk_0123456789abcdef_AAAA",
	} {
		t.Run(name, func(t *testing.T) {
			a := g.signedIn().get("/v1/me", with("Authorization", value)) // the cookie does not save it
			a.problem(http.StatusUnauthorized, "UNAUTHENTICATED")
			if a.header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		})
	}
	g.anybody().get("/v1/me", with("Authorization", "bearer "+adminToken)).want(http.StatusOK)
}
