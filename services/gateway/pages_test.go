package gateway_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/gateway"
)

var inline = regexp.MustCompile(`(?s)<(style|script)>(.*?)</(?:style|script)>`)

// checkPage makes sure that the page's policy allows exactly what is on it.
func checkPage(t *testing.T, a *answer) {
	t.Helper()
	policy := a.header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("policy %q lacks %s", policy, part)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	found := inline.FindAllSubmatch(a.body, -1)
	if len(found) == 0 {
		t.Error("no style")
	}
	for _, m := range found {
		sum := sha256.Sum256(m[2])
		if !strings.Contains(policy, string(m[1])+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
			t.Errorf("the policy refuses the page's own %s", m[1])
		}
	}
	if regexp.MustCompile(`(?i)\son[a-z]+=|style="|javascript:`).Match(inline.ReplaceAll(a.body, nil)) {
		t.Errorf("inline handlers or styles: %s", a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers %v", a.header)
	}
}

func TestPages_signIn(t *testing.T) {
	g := start(t)
	a := g.anybody().get("/sign-in?next=/oauth/bitbucket/start%3Fhandshake%3Dh1").want(http.StatusOK)
	checkPage(t, a)
	if !strings.Contains(string(a.body), `data-next="/oauth/bitbucket/start?handshake=h1"`) {
		t.Errorf("%s", a.body)
	}
	for _, bad := range []string{"https://evil.example.com", "//evil.example.com", "/%5Cevil.example.com", "javascript:alert(1)", "/%0aSet-Cookie:x", `/"><script>alert(1)</script>`} {
		b := g.anybody().get("/sign-in?next=" + bad).want(http.StatusOK)
		if strings.Contains(string(b.body), "evil") || strings.Contains(string(b.body), "alert(1)</script>") || strings.Contains(string(b.body), `data-next="javascript`) {
			t.Errorf("next=%s: %s", bad, b.body)
		}
	}
}

func TestPages_home(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.Emulator = true })
	a := g.browser().get("/").want(http.StatusSeeOther)
	if to := location(t, a); to.Path != "/sign-in" || to.Query().Get("next") != "/" {
		t.Errorf("sent to %s", to)
	}
	c := g.signedIn()
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		return &authv1.GetIntegrationResponse{Integration: &authv1.Integration{
			State: authv1.Integration_CONNECTED, Account: &authv1.Account{Label: `jane-dev"><script>`},
		}}, nil
	})
	page := c.get("/?bitbucket=connected").want(http.StatusOK)
	checkPage(t, page)
	for _, part := range []string{"Connected", "jane-dev&#34;&gt;", "Bitbucket is connected.", "emulator stands in", "some repositoryFullName", "/openapi.json"} {
		if !strings.Contains(string(page.body), part) {
			t.Errorf("lacks %q: %s", part, page.body)
		}
	}
	failed := string(c.get("/?bitbucket=failed&reason=CONSENT_DENIED").body)
	if !strings.Contains(failed, "press Grant access") {
		t.Errorf("%s", failed)
	}
	if foreign := string(c.get("/?bitbucket=failed&reason=Call+0900+now").body); strings.Contains(foreign, "0900") {
		t.Error("the page says what the address says")
	}
	// A service that does not answer is said, not hidden.
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, apierr.New(apierr.ReasonStorageUnavailable, "The integration cannot be read now.")
	})
	if down := c.get("/").want(http.StatusOK); !strings.Contains(string(down.body), "The integration cannot be read now.") {
		t.Errorf("%s", down.body)
	}
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		return &authv1.GetIntegrationResponse{Integration: &authv1.Integration{
			State: authv1.Integration_NOT_CONNECTED, Setup: &authv1.Setup{CallbackUrl: "https://d.example.com/oauth/bitbucket/callback"},
		}}, nil
	})
	if unset := c.get("/").want(http.StatusOK); !strings.Contains(string(unset.body), "https://d.example.com/oauth/bitbucket/callback") || strings.Contains(string(unset.body), "data-connect=\"") {
		t.Errorf("%s", unset.body)
	}
}
