package gateway_test

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/gateway"
)

func TestHost_unknownIsRefused(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.PublicURL = "https://devpilot.example.com" })
	u, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	for host, ok := range map[string]bool{
		"devpilot.example.com": true, "DEVPILOT.example.com:443": true, "devpilot.example.com.": true,
		u.Host: true, "localhost:" + port: true, "[::1]:" + port: true, "app.localhost": true, "127.0.0.1:9999": true,
		"evil.example.com": false, "devpilot.example.com.evil.com": false, "localhost.evil.com": false, "192.168.1.5": false,
		"devpilot.example.com:8443": false,
	} {
		a := g.anybody().get("/v1/info", withHost(host))
		if ok {
			a.want(http.StatusOK)
		} else {
			a.problem(http.StatusBadRequest, "HOST_UNKNOWN")
		}
	}
}

func TestHost_loopbackNamesOnlyWhereWeAreLocal(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.PublicURL, c.Listen = "https://devpilot.example.com", "0.0.0.0:8080" })
	if status := g.anybody().get("/v1/info", withHost("localhost:8080")).status; status != http.StatusBadRequest {
		t.Errorf("localhost on a public listener: %d", status)
	}
	g.anybody().get("/v1/info", withHost("devpilot.example.com")).want(http.StatusOK)
}

func TestCrossOrigin(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.AllowedOrigins = []string{"https://app.example.com"} })
	c := g.signedIn()
	body := map[string]any{"returnPath": "/"}
	connect := "/v1/workspaces/default/integrations/bitbucket:connect"
	cases := []struct {
		name    string
		changes []change
		status  int
	}{
		{"our own page", []change{with("Sec-Fetch-Site", "same-origin"), with("Origin", g.url)}, 200},
		{"no page", nil, 200},
		{"another site", []change{with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example.com")}, 403},
		{"another port of this host", []change{with("Sec-Fetch-Site", "same-site"), with("Origin", "http://127.0.0.1:1")}, 403},
		{"another site, old browser", []change{with("Origin", "https://evil.example.com")}, 403},
		{"a sandboxed page", []change{with("Sec-Fetch-Site", "cross-site"), with("Origin", "null")}, 403},
		{"an allowed origin", []change{with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://app.example.com")}, 200},
		{"Basic credentials do not excuse", []change{with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example.com"), with("Authorization", "Basic eDp5")}, 403},
		{"a token of its own", []change{with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example.com"), with("Authorization", "Bearer "+adminToken)}, 200},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a := c.post(connect, body, tc.changes...)
			if tc.status == 403 {
				a.problem(http.StatusForbidden, "CROSS_ORIGIN_REFUSED")
			} else {
				a.want(tc.status)
			}
		})
	}
	// Reading is the browser's business: without our leave it shows nothing.
	read := c.get("/v1/me", with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example.com")).want(http.StatusOK)
	if read.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a stranger may read")
	}
	g.browser().post("/v1/session", map[string]any{"token": adminToken}, with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example.com")).
		problem(http.StatusForbidden, "CROSS_ORIGIN_REFUSED")
}

func TestCORS(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.AllowedOrigins = []string{"https://app.example.com"} })
	pre := func(origin string) *answer {
		return g.anybody().do(http.MethodOptions, "/v1/me", nil, with("Origin", origin), with("Access-Control-Request-Method", "GET"))
	}
	a := pre("https://app.example.com").want(http.StatusNoContent)
	if a.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || a.header.Get("Access-Control-Allow-Credentials") != "true" ||
		!strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "If-Match") || a.header.Get("Vary") != "Origin" {
		t.Errorf("preflight headers %v", a.header)
	}
	pre("https://evil.example.com").problem(http.StatusForbidden, "CROSS_ORIGIN_REFUSED")
	got := g.anybody().get("/v1/info", with("Origin", "https://app.example.com")).want(http.StatusOK)
	if got.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Error("the allowed origin may not read")
	}
	g.anybody().do(http.MethodOptions, "/v1/me", nil).problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
}

func TestRequestID(t *testing.T) {
	g := start(t)
	if id := g.anybody().get("/v1/info", with("X-Request-Id", "abc-DEF_123")).header.Get("X-Request-Id"); id != "abc-DEF_123" {
		t.Errorf("a sane id became %q", id)
	}
	for _, bad := range []string{"short", strings.Repeat("x", 65), "with space in it", "quote\"inside-it"} {
		if id := g.anybody().get("/v1/info", with("X-Request-Id", bad)).header.Get("X-Request-Id"); id == bad || len(id) < 8 {
			t.Errorf("the id %q became %q", bad, id)
		}
	}
}

func TestAccessLine_neverNamesWhatIsSecret(t *testing.T) {
	g := start(t)
	g.anybody().get("/oauth/bitbucket/callback?state=planted-state&code=planted-code")
	g.anybody().get("/v1/nothing/planted-path?token=planted-query")
	g.key("default", "MEMBER").get("/v1/workspaces/default/apps").want(http.StatusOK)
	if !g.logs.Contains(`"http_route":"/v1/workspaces/{workspace}/apps"`) || !g.logs.Contains(`"http_route":"/oauth/bitbucket/callback"`) {
		t.Error("no access lines")
	}
	g.logs.MustNotContain(t, "planted-state", "planted-code", "planted-path", "planted-query", adminToken)
}
