package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

type proofReport struct {
	Passed bool
	Text   string
	Checks []struct{ Name, State, Message, Remedy string }
}

func (r proofReport) of(state string) (names []string) {
	for _, c := range r.Checks {
		if c.State == state {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

const proofPath = "/v1/workspaces/default/integrations/bitbucket:prove"

// answers teaches a method one answer.
func answers(m proto.Message, err error) handler {
	return func(context.Context, proto.Message) (proto.Message, error) { return m, err }
}

func TestProve_everyCheckSaysWhatItFound(t *testing.T) {
	g := start(t)
	c := g.key("default", "ADMIN")
	now := time.Now()
	integration := &authv1.Integration{
		State: authv1.Integration_CONNECTED, Account: &authv1.Account{Label: "jane-dev"}, ConnectTime: timestamppb.New(now),
		Setup: &authv1.Setup{CallbackUrl: g.url + "/oauth/bitbucket/callback", RequiredScopes: []string{"repository"}},
	}
	delivery := &webhookv1.ProveDeliveryResponse{Webhook: "w", Status: 200, Verified: true, PublicUrl: g.url, BitbucketTime: timestamppb.New(now), OwnTime: timestamppb.New(now)}
	repository := &repov1.Repository{Permission: repov1.Repository_ADMIN}
	app := &deployerv1.App{Id: "web", Repository: "r1", RepositoryFullName: "acme/web", AutoDeploy: true}
	twin := proto.CloneOf(app)
	twin.Id = "twin"
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: integration}, nil))
	g.repo.on("GetRepository", answers(&repov1.GetRepositoryResponse{Repository: repository}, nil))
	g.webhook.on("ProveDelivery", answers(delivery, nil))
	g.deployer.on("ListApps", answers(&deployerv1.ListAppsResponse{Apps: []*deployerv1.App{app, twin}}, nil))
	g.deployer.on("ProveGit", answers(&deployerv1.ProveGitResponse{RepositoryFullName: "acme/web", Branches: 2}, nil))

	var r proofReport
	c.get(proofPath).want(http.StatusOK).into(&r)
	if got := strings.Join(r.of("PASSED"), ", "); !r.Passed || got != "admin acme/web, callback, clock, connection, delivery, git acme/web, scopes, token" {
		t.Errorf("passed %v: %s\n%s", r.Passed, got, r.Text)
	}
	if got := strings.Join(r.of("SKIPPED"), ", "); got != "commit status, disk" {
		t.Errorf("skipped %s", got)
	}
	if n := len(g.repo.asked("GetRepository")); n != 1 {
		t.Errorf("one repository was asked about %d times", n)
	}
	c.get(proofPath).want(http.StatusTooManyRequests)
	g.key("default", "MEMBER").get(proofPath).want(http.StatusForbidden)

	g.clock.forward(time.Minute)
	integration.MissingScopes = []string{"webhook"}
	integration.Setup.CallbackUrl = "https://elsewhere.example/oauth/bitbucket/callback"
	repository.Permission = repov1.Repository_READ
	delivery.Verified, delivery.Trouble, delivery.OwnTime = false, "It answers 502 instead of 200.", timestamppb.New(now.Add(5*time.Minute))
	g.repo.on("ListBitbucketWorkspaces", answers(nil, apierr.New(apierr.ReasonTokenExpired, "The token ran out.")))
	g.deployer.on("ProveGit", answers(nil, apierr.New(apierr.ReasonRepositoryNotFound, "No such repository.")))
	c.get(proofPath).want(http.StatusOK).into(&r)
	if got := strings.Join(r.of("FAILED"), ", "); r.Passed || got != "admin acme/web, callback, clock, delivery, git acme/web, scopes, token" {
		t.Errorf("failed %v: %s\n%s", !r.Passed, got, r.Text)
	}
	for _, check := range r.Checks {
		if check.Message == "" || (check.State == "FAILED") != (check.Remedy != "") {
			t.Errorf("%+v", check)
		}
		if !strings.Contains(r.Text, check.Message) || !strings.Contains(r.Text, check.Remedy) {
			t.Errorf("%s is not in the text", check.Name)
		}
	}
}
