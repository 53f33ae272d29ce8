package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const atBitbucket = "/v1/workspaces/acme/integrations/bitbucket"

// warning is what the integration says that somebody should do.
func warning(c *client) string {
	var i struct{ Warning string }
	c.get(atBitbucket).want(http.StatusOK).into(&i)
	return i.Warning
}

// TestConnector_whoLeavesIsToldOf: owners hear that who connected Bitbucket is no longer a member, in the integration,
// the activity and a notification, and no more once another one has connected.
func TestConnector_whoLeavesIsToldOf(t *testing.T) {
	p := provider(t)
	g := start(t, allowLoopback, withProviders(t, ownerRules, p))
	olga := g.signInAs(p, "olga", "owners")
	jane := g.signInAs(p, "jane", "web")
	subject := jane.me().Subject
	connected := &authv1.Integration{
		Workspace: "acme", State: authv1.Integration_CONNECTED, ConnectionId: "c1", ConnectedBy: "Jane Developer", ConnectedById: subject, Account: &authv1.Account{Label: "jane-dev"},
	}
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		return &authv1.GetIntegrationResponse{Integration: proto.CloneOf(connected)}, nil
	})
	g.deployer.on("ListApps", answers(&deployerv1.ListAppsResponse{}, nil))
	r := newReceiver(t)
	olga.post(targetsPath, map[string]any{"target": map[string]any{"kind": "WEBHOOK", "label": "team", "url": r.url, "events": []string{"CONNECTION"}}}).want(http.StatusOK)
	if got := warning(olga); got != "" {
		t.Errorf("while she is a member: %s", got)
	}
	olga.do(http.MethodDelete, "/v1/workspaces/acme/members/"+subject, nil).want(http.StatusOK)
	const says = "Connected by Jane Developer, who is no longer a member. Deployments go on with the account @jane-dev"
	if got := warning(olga); !strings.HasPrefix(got, says) {
		t.Errorf("it says %q", got)
	}
	waitActivity(t, olga, "acme", func(r record) bool {
		return r.Action == "integration.connectorLeft" && r.Succeeded && strings.HasPrefix(r.Message, says)
	})
	if told := string(r.want(t, 1)[0].body); !strings.Contains(told, "Who connected Bitbucket is no longer a member") || !strings.Contains(told, says) || !strings.Contains(told, `"connection.failing"`) {
		t.Errorf("told %s", told)
	}

	next := proto.CloneOf(connected)
	next.ConnectionId, next.ConnectedBy, next.ConnectedById = "c2", "Olga", olga.me().Subject
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		return &authv1.GetIntegrationResponse{Integration: proto.CloneOf(next)}, nil
	})
	if got := warning(olga); got != "" {
		t.Errorf("after another one connected: %s", got)
	}
	g.changed("auth", "integration", "bitbucket")
	if told := string(r.want(t, 2)[1].body); !strings.Contains(told, `"connection.restored"`) {
		t.Errorf("told %s", told)
	}
}

// TestConnector_someoneElseLeaves: nobody is bothered.
func TestConnector_someoneElseLeaves(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, ownerRules, p))
	olga := g.signInAs(p, "olga", "owners")
	jane := g.signInAs(p, "jane", "web")
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: &authv1.Integration{
		Workspace: "acme", State: authv1.Integration_CONNECTED, ConnectedBy: "Olga", ConnectedById: olga.me().Subject,
	}}, nil))
	olga.do(http.MethodDelete, "/v1/workspaces/acme/members/"+jane.me().Subject, nil).want(http.StatusOK)
	waitActivity(t, olga, "acme", func(r record) bool { return r.Action == "member.remove" })
	if got := warning(olga); got != "" {
		t.Errorf("it says %q", got)
	}
	if slices.ContainsFunc(activity(t, olga, "acme"), func(r record) bool { return r.Action == "integration.connectorLeft" }) {
		t.Error("recorded that she had connected")
	}
}

// TestConnector_appsThatWouldStopComeBack: auth is told what apps use, and the page which of them would stop.
func TestConnector_appsThatWouldStopComeBack(t *testing.T) {
	g := start(t)
	fakeHandshakes(g)
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: &authv1.Integration{Workspace: "default", State: authv1.Integration_CONNECTED}}, nil))
	g.deployer.on("ListApps", func(_ context.Context, req proto.Message) (proto.Message, error) {
		if req.(*deployerv1.ListAppsRequest).GetPageToken() == "" {
			return &deployerv1.ListAppsResponse{NextPageToken: "2", Apps: []*deployerv1.App{{Id: "api", Repository: "r1", RepositoryFullName: "acme/api"}, {Id: "web", Repository: "r2", RepositoryFullName: "acme/web"}}}, nil
		}
		return &deployerv1.ListAppsResponse{Apps: []*deployerv1.App{{Id: "web-staging", Repository: "r2", RepositoryFullName: "acme/web"}}}, nil
	})
	g.auth.on("CompleteAuthorization", func(_ context.Context, req proto.Message) (proto.Message, error) {
		used := req.(*authv1.CompleteAuthorizationRequest).GetUsed()
		if len(used) != 2 || used[0].GetFullName() != "acme/api" || !slices.Equal(used[1].GetApps(), []string{"web", "web-staging"}) {
			t.Errorf("used: %v", used)
		}
		return nil, apierr.New(apierr.ReasonAppsWouldStop, "@olga cannot reach them.", apierr.WithDetail("apps", "web web-staging"), apierr.WithDetail("appsCount", "2"))
	})
	c := g.signedIn()
	begin(t, c, "default", "/settings?tab=1").want(http.StatusFound)
	back := c.get("/oauth/bitbucket/callback?state=state-hdefault&code=planted-code").want(http.StatusFound)
	q := location(t, back).Query()
	if q.Get("bitbucket") != "failed" || q.Get("reason") != "APPS_WOULD_STOP" || q.Get("apps") != "web web-staging" || q.Get("appsCount") != "2" || q.Get("tab") != "1" {
		t.Errorf("sent back with %v", q)
	}
}

// TestConnector_whatCannotBeListedSpendsNoCode: the person can try again.
func TestConnector_whatCannotBeListedSpendsNoCode(t *testing.T) {
	g := start(t)
	fakeHandshakes(g)
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: &authv1.Integration{Workspace: "default", State: authv1.Integration_CONNECTED}}, nil))
	g.deployer.on("ListApps", answers(nil, apierr.New(apierr.ReasonStorageUnavailable, "The apps cannot be read now.")))
	c := g.signedIn()
	begin(t, c, "default", "/settings").want(http.StatusFound)
	back := c.get("/oauth/bitbucket/callback?state=state-hdefault&code=planted-code").want(http.StatusFound)
	if q := location(t, back).Query(); q.Get("reason") != "STORAGE_UNAVAILABLE" {
		t.Errorf("sent back with %v", q)
	}
	if n := len(g.auth.asked("CompleteAuthorization")); n != 0 {
		t.Errorf("%d completions", n)
	}
}
