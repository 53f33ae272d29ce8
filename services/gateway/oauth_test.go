package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/gateway"
)

// handshakes is auth's side of a connect, as far as the pages see it.
type handshakes struct {
	mu sync.Mutex
	// by handshake id or state
	known map[string]*authv1.LookUpHandshakeResponse
	bound map[string]string // binding by its name
	spent map[string]bool   // states
}

func fakeHandshakes(g *gate) *handshakes {
	h := &handshakes{known: map[string]*authv1.LookUpHandshakeResponse{}, bound: map[string]string{}, spent: map[string]bool{}}
	g.auth.on("ConnectIntegration", func(ctx context.Context, req proto.Message) (proto.Message, error) {
		id, _ := identity.FromContext(ctx)
		in := req.(*authv1.ConnectIntegrationRequest)
		h.mu.Lock()
		defer h.mu.Unlock()
		name := "h" + in.GetWorkspace()
		h.known[name] = &authv1.LookUpHandshakeResponse{Workspace: in.GetWorkspace(), Subject: id.Subject, ReturnPath: in.GetReturnPath(), BindingName: name}
		return &authv1.ConnectIntegrationResponse{AuthorizeUrl: g.url + "/oauth/bitbucket/start?handshake=" + name}, nil
	})
	g.auth.on("LookUpHandshake", func(_ context.Context, req proto.Message) (proto.Message, error) {
		in := req.(*authv1.LookUpHandshakeRequest)
		h.mu.Lock()
		defer h.mu.Unlock()
		if who, ok := h.known[in.GetHandshake()+in.GetState()]; ok {
			return who, nil
		}
		return nil, apierr.New(apierr.ReasonHandshakeExpired, "This connection was begun too long ago.")
	})
	g.auth.on("BeginAuthorization", func(_ context.Context, req proto.Message) (proto.Message, error) {
		in := req.(*authv1.BeginAuthorizationRequest)
		h.mu.Lock()
		defer h.mu.Unlock()
		who := h.known[in.GetHandshake()]
		delete(h.known, in.GetHandshake())
		state := "state-" + in.GetHandshake()
		h.known[state] = who
		h.bound[who.GetBindingName()] = "binding-" + in.GetHandshake()
		return &authv1.BeginAuthorizationResponse{
			AuthorizeUrl: "https://bitbucket.org/site/oauth2/authorize?state=" + state, BindingName: who.GetBindingName(),
			Binding: h.bound[who.GetBindingName()], Life: durationpb.New(10 * time.Minute),
		}, nil
	})
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: &authv1.Integration{State: authv1.Integration_NOT_CONNECTED}}, nil))
	g.auth.on("CompleteAuthorization", func(_ context.Context, req proto.Message) (proto.Message, error) {
		in := req.(*authv1.CompleteAuthorizationRequest)
		h.mu.Lock()
		defer h.mu.Unlock()
		who := h.known[in.GetState()]
		switch {
		case h.spent[in.GetState()]:
			return nil, apierr.New(apierr.ReasonHandshakeExpired, "This answer was used before.")
		case in.GetBindings()[who.GetBindingName()] != h.bound[who.GetBindingName()]:
			return nil, apierr.New(apierr.ReasonHandshakeMismatch, "Another browser.")
		}
		h.spent[in.GetState()] = true
		if in.GetError() != "" {
			return nil, apierr.New(apierr.ReasonConsentDenied, "Cancelled at Bitbucket.")
		}
		return &authv1.CompleteAuthorizationResponse{ReturnPath: who.GetReturnPath(), Integration: &authv1.Integration{Account: &authv1.Account{Label: "jane-dev"}}}, nil
	})
	return h
}

// begin presses Connect and opens the start page.
func begin(t *testing.T, c *client, workspace, returnPath string) *answer {
	t.Helper()
	var out struct{ AuthorizeURL string }
	c.post("/v1/workspaces/"+workspace+"/integrations/bitbucket:connect", map[string]any{"returnPath": returnPath}).want(http.StatusOK).into(&out)
	path, ok := strings.CutPrefix(out.AuthorizeURL, c.g.url)
	if !ok {
		t.Fatalf("authorizeUrl %q is not ours", out.AuthorizeURL)
	}
	return c.get(path)
}

func location(t *testing.T, a *answer) *url.URL {
	t.Helper()
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.header.Get("Location") == "" {
		t.Fatalf("%s: Location %q: %v", a.what, a.header.Get("Location"), err)
	}
	return u
}

func TestConnect_throughTheBrowser(t *testing.T) {
	g := start(t)
	fakeHandshakes(g)
	c := g.signedIn()
	a := begin(t, c, "default", "/settings?tab=1").want(http.StatusFound)
	set := a.header.Get("Set-Cookie")
	for _, part := range []string{"devpilot_connect_hdefault=binding-hdefault", "HttpOnly", "SameSite=Lax", "Path=/oauth/bitbucket", "Max-Age=600"} {
		if !strings.Contains(set, part) {
			t.Errorf("Set-Cookie %q lacks %s", set, part)
		}
	}
	if a.header.Get("Referrer-Policy") != "no-referrer" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", a.header)
	}
	if to := location(t, a); to.Host != "bitbucket.org" {
		t.Errorf("sent to %s", to)
	}
	back := c.get("/oauth/bitbucket/callback?state=state-hdefault&code=planted-code").want(http.StatusFound)
	if to := location(t, back); to.Host != "" || to.Path != "/settings" || to.Query().Get("tab") != "1" || to.Query().Get("bitbucket") != "connected" {
		t.Errorf("sent back to %s", to)
	}
	if !strings.Contains(back.header.Get("Set-Cookie"), "devpilot_connect_hdefault=; Path=/oauth/bitbucket; Max-Age=0") {
		t.Errorf("the binding stays: %q", back.header.Get("Set-Cookie"))
	}
	done := g.auth.asked("CompleteAuthorization")[0]
	if req := done.req.(*authv1.CompleteAuthorizationRequest); req.GetCode() != "planted-code" || done.user.Role != identity.RoleOwner || done.user.Workspace != "default" {
		t.Errorf("completed with %v as %+v", req, done.user)
	}
	g.logs.MustNotContain(t, "planted-code", "binding-hdefault", "state-hdefault")
	waitActivity(t, c, "default", func(r record) bool {
		return r.Action == "integration.connect" && r.Succeeded && strings.Contains(r.Target, "jane-dev")
	})
}

// TestConnect_afterManyThatWereGivenUp: while Bitbucket's pages fail, somebody may press Connect again and again.
func TestConnect_afterManyThatWereGivenUp(t *testing.T) {
	g := start(t)
	fakeHandshakes(g)
	c := g.signedIn()
	page, err := url.Parse(g.url + "/oauth/bitbucket/callback")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		c.http.Jar.SetCookies(page, []*http.Cookie{{Name: fmt.Sprintf("devpilot_connect_old%d", i), Value: "given up", Path: "/oauth/bitbucket"}})
	}
	begin(t, c, "default", "/settings").want(http.StatusFound)
	back := c.get("/oauth/bitbucket/callback?state=state-hdefault&code=planted-code").want(http.StatusFound)
	if to := location(t, back); to.Query().Get("bitbucket") != "connected" {
		t.Errorf("sent back to %s", to)
	}
	if got := g.auth.asked("CompleteAuthorization")[0].req.(*authv1.CompleteAuthorizationRequest).GetBindings(); len(got) != 1 {
		t.Errorf("the bindings of %d handshakes were handed over", len(got))
	}
}

func TestConnect_failuresGoToTheReturnPath(t *testing.T) {
	g := start(t)
	h := fakeHandshakes(g)
	c := g.signedIn()
	begin(t, c, "default", "/settings").want(http.StatusFound)
	result := func(a *answer, reason string) {
		t.Helper()
		a.want(http.StatusFound)
		if to := location(t, a); to.Path != "/settings" || to.Query().Get("bitbucket") != "failed" || to.Query().Get("reason") != reason {
			t.Errorf("sent to %s, not for %s", to, reason)
		}
	}
	// Another browser of the same person: the binding is missing.
	result(g.signedIn().get("/oauth/bitbucket/callback?state=state-hdefault&code=c"), "HANDSHAKE_MISMATCH")
	result(c.get("/oauth/bitbucket/callback?state=state-hdefault&error=access_denied&error_description=no"), "CONSENT_DENIED")
	waitActivity(t, c, "default", func(r record) bool {
		return r.Action == "integration.connect" && !r.Succeeded && r.Reason == "CONSENT_DENIED"
	})
	begin(t, c, "default", "/settings").want(http.StatusFound)
	result(c.get("/oauth/bitbucket/callback?state=state-hdefault&code=c"), "HANDSHAKE_EXPIRED") // the fake's state is the same

	// Somebody else's handshake tells nothing about itself, not even where it came from.
	h.mu.Lock()
	h.known["foreign"] = &authv1.LookUpHandshakeResponse{Workspace: "default", Subject: "somebody", ReturnPath: "/secret-place"}
	h.mu.Unlock()
	a := c.get("/oauth/bitbucket/start?handshake=foreign").want(http.StatusConflict)
	if !strings.Contains(string(a.body), "HANDSHAKE_MISMATCH") || strings.Contains(string(a.body), "secret-place") {
		t.Errorf("page: %s", a.body)
	}
}

func TestConnect_needsTodaysRole(t *testing.T) {
	g := start(t)
	h := fakeHandshakes(g)
	c := g.signedIn()
	h.mu.Lock()
	h.known["x"] = &authv1.LookUpHandshakeResponse{Workspace: "left-meanwhile", Subject: "local", ReturnPath: "/apps"}
	h.mu.Unlock()
	a := c.get("/oauth/bitbucket/start?handshake=x").want(http.StatusFound)
	if to := location(t, a); to.Query().Get("reason") != "WORKSPACE_NOT_FOUND" {
		t.Errorf("sent to %s", to)
	}
	if n := len(g.auth.asked("BeginAuthorization")); n != 0 {
		t.Error("begun without a role")
	}
}

func TestConnect_pagesWithoutAReturnPath(t *testing.T) {
	g := start(t)
	fakeHandshakes(g)
	c := g.signedIn()
	for _, path := range []string{
		"/oauth/bitbucket/start", "/oauth/bitbucket/start?handshake=unknown", "/oauth/bitbucket/start?handshake=a&handshake=b",
		"/oauth/bitbucket/callback", "/oauth/bitbucket/callback?state=unknown&code=c", "/oauth/bitbucket/callback?state=" + strings.Repeat("s", 5000),
	} {
		a := c.get(path).want(http.StatusConflict)
		if !strings.Contains(string(a.body), "HANDSHAKE_EXPIRED") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("%.60s: %s", path, a.body)
		}
		checkPage(t, a)
	}
	// Not signed in: the start page leads over the sign-in page, the callback says what to do.
	a := g.browser().get("/oauth/bitbucket/start?handshake=h1").want(http.StatusSeeOther)
	if to := location(t, a); to.Path != "/sign-in" || to.Query().Get("next") != "/oauth/bitbucket/start?handshake=h1" {
		t.Errorf("sent to %s", to)
	}
	b := g.browser().get("/oauth/bitbucket/callback?state=s&code=c").want(http.StatusConflict)
	if !strings.Contains(string(b.body), "HANDSHAKE_MISMATCH") {
		t.Errorf("page: %s", b.body)
	}
	// An API key is not a browser.
	g.withToken(adminToken).get("/oauth/bitbucket/start?handshake=h1").want(http.StatusSeeOther)
	// A look ahead spends nothing.
	if n := len(g.auth.asked("CompleteAuthorization")); n != 0 {
		t.Errorf("%d completions", n)
	}
	c.do(http.MethodHead, "/oauth/bitbucket/callback?state=state-hdefault&code=c", nil).want(http.StatusOK)
	if n := len(g.auth.asked("LookUpHandshake")); n == 0 || len(g.auth.asked("CompleteAuthorization")) != 0 {
		t.Error("HEAD spent the code")
	}
}

func TestConnect_secureCookieOnHTTPS(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.PublicURL = "https://devpilot.example.com" })
	h := fakeHandshakes(g)
	h.known["h1"] = &authv1.LookUpHandshakeResponse{Workspace: "default", Subject: "local", ReturnPath: "/", BindingName: "b1"}
	in := g.anybody().post("/v1/session", map[string]any{"token": adminToken}).want(http.StatusOK)
	cookie := strings.Split(in.header.Get("Set-Cookie"), ";")[0]
	a := g.anybody().get("/oauth/bitbucket/start?handshake=h1", with("Cookie", cookie)).want(http.StatusFound)
	if !strings.Contains(a.header.Get("Set-Cookie"), "Secure") {
		t.Errorf("Set-Cookie %q", a.header.Get("Set-Cookie"))
	}
}

// TestConnect_returnPathStaysOurs: auth checks it, and the page does not rely on that.
func TestConnect_returnPathStaysOurs(t *testing.T) {
	g := start(t)
	h := fakeHandshakes(g)
	c := g.signedIn()
	for _, path := range []string{"https://evil.example.com/", "//evil.example.com", `/\evil.example.com`, "/\t/evil.example.com", "javascript:alert(1)"} {
		h.mu.Lock()
		h.spent = map[string]bool{}
		h.mu.Unlock()
		begin(t, c, "default", path).want(http.StatusFound)
		to := location(t, c.get("/oauth/bitbucket/callback?state=state-hdefault&code=c").want(http.StatusFound))
		if to.Host != "" || to.Scheme != "" || to.Path != "/" {
			t.Errorf("%q led to %s", path, to)
		}
	}
}
