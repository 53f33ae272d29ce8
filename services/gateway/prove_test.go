package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

type proofReport struct {
	Passed, Running bool
	Text            string
	Checks          []struct{ Name, State, Message, Remedy string }
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

const keptPath = "/v1/workspaces/default/integrations/bitbucket/proof"

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
	worker := &deployerv1.Worker{DiskFreeMib: proto.Int32(5000), DiskReserveMib: proto.Int32(256), LastSeenTime: timestamppb.New(now)}
	g.deployer.on("ListServers", answers(&deployerv1.ListServersResponse{Servers: []*deployerv1.Server{{Id: "default", Workers: []*deployerv1.Worker{worker}}, {Id: "other"}}}, nil))
	c.get(keptPath).problem(http.StatusNotFound, "NOT_FOUND")

	var r proofReport
	c.get(proofPath).want(http.StatusOK).into(&r)
	if got := strings.Join(r.of("PASSED"), ", "); !r.Passed || got != "admin acme/web, callback, clock, connection, delivery, disk default, git acme/web, scopes, token" {
		t.Errorf("passed %v: %s\n%s", r.Passed, got, r.Text)
	}
	if got := strings.Join(r.of("SKIPPED"), ", "); got != "commit status" {
		t.Errorf("skipped %s", got)
	}
	if n := len(g.repo.asked("GetRepository")); n != 1 {
		t.Errorf("one repository was asked about %d times", n)
	}
	var kept proofReport
	if c.get(keptPath).want(http.StatusOK).into(&kept); kept.Text != r.Text || !kept.Passed || kept.Running {
		t.Errorf("kept %+v", kept)
	}
	c.get(proofPath).want(http.StatusTooManyRequests)
	c.post(proofPath, `{}`).want(http.StatusTooManyRequests)
	g.key("default", "MEMBER").get(keptPath).want(http.StatusForbidden)
	g.key("default", "MEMBER").get(proofPath).want(http.StatusForbidden)

	g.clock.forward(time.Minute)
	worker.DiskFreeMib = proto.Int32(12)
	integration.MissingScopes = []string{"webhook"}
	integration.Setup.CallbackUrl = "https://elsewhere.example/oauth/bitbucket/callback"
	repository.Permission = repov1.Repository_READ
	delivery.Verified, delivery.Trouble, delivery.OwnTime = false, "It answers 502 instead of 200.", timestamppb.New(now.Add(5*time.Minute))
	g.repo.on("ListBitbucketWorkspaces", answers(nil, apierr.New(apierr.ReasonTokenExpired, "The token ran out.")))
	g.deployer.on("ProveGit", answers(nil, apierr.New(apierr.ReasonRepositoryNotFound, "No such repository.")))
	c.get(proofPath).want(http.StatusOK).into(&r)
	if got := strings.Join(r.of("FAILED"), ", "); r.Passed || got != "admin acme/web, callback, clock, delivery, disk default, git acme/web, scopes, token" {
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

// proved teaches the neighbours of a workspace whose connection is well.
func proved(g *gate, app *deployerv1.App) {
	now := timestamppb.Now()
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: &authv1.Integration{
		State: authv1.Integration_CONNECTED, ConnectTime: now, Setup: &authv1.Setup{CallbackUrl: g.url + "/oauth/bitbucket/callback"},
	}}, nil))
	g.repo.on("GetRepository", answers(&repov1.GetRepositoryResponse{Repository: &repov1.Repository{Permission: repov1.Repository_ADMIN}}, nil))
	g.webhook.on("ProveDelivery", answers(&webhookv1.ProveDeliveryResponse{Webhook: "w", Verified: true, BitbucketTime: now, OwnTime: now}, nil))
	g.deployer.on("ListApps", answers(&deployerv1.ListAppsResponse{Apps: []*deployerv1.App{app}}, nil))
	g.deployer.on("ListServers", answers(&deployerv1.ListServersResponse{Servers: []*deployerv1.Server{{Id: "default", Workers: []*deployerv1.Worker{{}}}}}, nil))
}

// What is known of a proof can be read while it runs, by whoever looks, and what it comes to when nobody waited.
func TestProve_tellsHowFarItIs(t *testing.T) {
	g := start(t)
	c := g.key("default", "ADMIN")
	proved(g, &deployerv1.App{Id: "web", Repository: "r1", RepositoryFullName: "acme/web"})
	asked, answer := make(chan struct{}), make(chan struct{})
	g.deployer.on("ProveGit", func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		close(asked)
		select {
		case <-answer:
			return &deployerv1.ProveGitResponse{Branches: 1}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+proofPath, http.NoBody)
		if err != nil {
			left <- err
			return
		}
		req.Header.Set("Authorization", "Bearer "+c.bearer)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		left <- err
	}()
	<-asked
	var r proofReport
	testkit.Eventually(t, time.Minute, func() error {
		r = proofReport{}
		c.get(keptPath).want(http.StatusOK).into(&r)
		if got := strings.Join(r.of("RUNNING"), ", "); got != "git acme/web" {
			return fmt.Errorf("running: %s", got)
		}
		return nil
	})
	if !r.Running || r.Passed || r.Text != "" {
		t.Errorf("while it runs: %+v", r)
	}
	leave()
	if err := <-left; err == nil {
		t.Error("it ended before git answered")
	}
	close(answer)
	testkit.Eventually(t, time.Minute, func() error {
		r = proofReport{}
		if c.get(keptPath).want(http.StatusOK).into(&r); r.Running || !r.Passed {
			return fmt.Errorf("nobody waited: %+v", r)
		}
		return nil
	})
}

// A proof whose process ended says so, and not that it runs for ever.
func TestProve_cutOff(t *testing.T) {
	g := start(t)
	c := g.key("default", "ADMIN")
	proved(g, &deployerv1.App{Id: "web", Repository: "r1", RepositoryFullName: "acme/web"})
	asked := make(chan struct{})
	g.deployer.on("ProveGit", func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+proofPath, http.NoBody)
		req.Header.Set("Authorization", "Bearer "+c.bearer)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-asked
	g.clock.forward(time.Hour)
	var r proofReport
	c.get(keptPath).want(http.StatusOK).into(&r)
	if got := r.of("FAILED"); r.Running || r.Passed || !slices.Contains(got, "git acme/web") {
		t.Errorf("%+v", r)
	}
}

// A commit status is written when somebody asks for it, once, and not otherwise.
func TestProve_writesAStatusOnlyWhenAsked(t *testing.T) {
	g := start(t)
	c := g.key("default", "ADMIN")
	proved(g, &deployerv1.App{Id: "web", Repository: "r1", RepositoryFullName: "acme/web", CommitStatus: proto.Bool(true), Live: &deployerv1.DeploymentSummary{Number: 1}})
	g.deployer.on("ProveStatus", answers(&deployerv1.ProveStatusResponse{RepositoryFullName: "acme/web", Commit: "0123456789abcdef"}, nil))
	for _, ask := range []func() *answer{
		func() *answer { return c.get(proofPath) },
		func() *answer { return c.post(proofPath, `{}`) },
		func() *answer { return c.post(proofPath, `{"writeStatus":false}`) },
	} {
		ask().want(http.StatusOK)
		g.clock.forward(time.Minute)
	}
	if n := len(g.deployer.asked("ProveStatus")); n != 0 {
		t.Fatalf("written %d times without being asked", n)
	}
	said := func(state string) string {
		t.Helper()
		var r proofReport
		c.post(proofPath, `{"writeStatus":true}`).want(http.StatusOK).into(&r)
		g.clock.forward(time.Minute)
		for _, check := range r.Checks {
			if check.Name == "commit status" && check.State == state {
				return check.Message
			}
		}
		t.Errorf("no commit status %s: %s", state, r.Text)
		return ""
	}
	if got := said("PASSED"); got != "Written to commit 0123456 of acme/web, where it shows as Devpilot: connection." {
		t.Error(got)
	}
	waitActivity(t, c, "default", func(r record) bool { return r.Message == "Proved the Bitbucket integration, with a commit status." })
	g.deployer.on("ProveStatus", answers(nil, apierr.New(apierr.ReasonScopeMissing, "Bitbucket wants another scope.")))
	if got := said("FAILED"); got != "Bitbucket wants another scope." {
		t.Error(got)
	}
	g.deployer.on("ListApps", answers(&deployerv1.ListAppsResponse{}, nil))
	if got := said("SKIPPED"); !strings.HasPrefix(got, "No app that shows") {
		t.Error(got)
	}
}

// What only the use of a token shows is told of the connection too, with what mends it; of a repository's apps the
// one that asks the most is asked about, and what an admin narrowed the workspace away from is left alone.
func TestProve_tellsWhatTheTokenShowedAndLeavesOutWhatIsExcluded(t *testing.T) {
	g := start(t)
	c := g.key("default", "ADMIN")
	off := &deployerv1.App{Id: "off", Repository: "r1", RepositoryFullName: "acme/web"}
	on := &deployerv1.App{Id: "on", Repository: "r1", RepositoryFullName: "acme/web", AutoDeploy: true}
	out := &deployerv1.App{
		Id: "out", Repository: "r2", RepositoryFullName: "other/api", AutoDeploy: true, CommitStatus: proto.Bool(true), Live: &deployerv1.DeploymentSummary{Number: 1},
		Warnings: []*deployerv1.Warning{{Reason: "BITBUCKET_WORKSPACE_EXCLUDED", Message: "An admin narrowed this workspace."}},
	}
	proved(g, off)
	g.deployer.on("ListApps", answers(&deployerv1.ListAppsResponse{Apps: []*deployerv1.App{off, on, out}}, nil))
	g.deployer.on("ProveGit", answers(&deployerv1.ProveGitResponse{Branches: 1}, nil))
	g.repo.on("GetRepository", answers(&repov1.GetRepositoryResponse{Repository: &repov1.Repository{Permission: repov1.Repository_WRITE}}, nil))
	used := false
	g.repo.on("ListBitbucketWorkspaces", func(context.Context, proto.Message) (proto.Message, error) {
		used = true
		return nil, apierr.New(apierr.ReasonReconnectRequired, "It was revoked.")
	})
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		i := &authv1.Integration{State: authv1.Integration_CONNECTED, Setup: &authv1.Setup{CallbackUrl: g.url + "/oauth/bitbucket/callback"}}
		if used {
			i.State, i.LastError = authv1.Integration_REFRESH_FAILING, &authv1.IntegrationError{Reason: "CONSUMER_REFUSED", Message: "The consumer is refused."}
		}
		return &authv1.GetIntegrationResponse{Integration: i}, nil
	})
	var r proofReport
	c.post(proofPath, `{"writeStatus":true}`).want(http.StatusOK).into(&r)
	if got := strings.Join(r.of("FAILED"), ", "); got != "admin acme/web, connection, disk default, token" && got != "admin acme/web, connection, token" {
		t.Errorf("failed: %s\n%s", got, r.Text)
	}
	if got := strings.Join(r.of("SKIPPED"), ", "); !strings.Contains(got, "admin other/api, commit status, ") || !strings.Contains(got, "git other/api") {
		t.Errorf("skipped: %s\n%s", got, r.Text)
	}
	for _, check := range r.Checks {
		if check.Name == "connection" && (check.Message != "The consumer is refused." || !strings.HasPrefix(check.Remedy, "The operator checks the OAuth consumer")) {
			t.Errorf("the connection: %+v", check)
		}
	}
}
