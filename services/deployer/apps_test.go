package deployer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

func TestCreateApp_refusals(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	for name, c := range map[string]struct {
		id     string
		app    *deployerv1.App
		reason apierr.Reason
	}{
		"slug":       {"Web!", web(true), apierr.ReasonInvalidArgument},
		"long slug":  {strings.Repeat("a", 64), web(true), apierr.ReasonInvalidArgument},
		"no app":     {"web", nil, apierr.ReasonInvalidArgument},
		"repository": {"web", &deployerv1.App{Repository: "acme/web", Branch: "main"}, apierr.ReasonInvalidArgument},
		"branch":     {"web", &deployerv1.App{Repository: repoID, Branch: "a..b"}, apierr.ReasonInvalidArgument},
		"retention":  {"web", &deployerv1.App{Repository: repoID, Branch: "main", Retention: 1000}, apierr.ReasonInvalidArgument},
		"server":     {"web", &deployerv1.App{Repository: repoID, Branch: "main", Server: "mars"}, apierr.ReasonServerUnknown},
		"unknown":    {"web", &deployerv1.App{Repository: "00000000-571d-44e9-a507-fa476535aa98", Branch: "main"}, apierr.ReasonRepositoryNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: c.id, App: c.app})
			if !apierr.Has(err, c.reason) {
				t.Fatalf("%v", err)
			}
		})
	}
	_, err := b.client.CreateApp(b.member, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: "web", App: web(true)})
	b.wantReason(err, apierr.ReasonPermissionDenied)
	other := testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: "another", Role: identity.RoleOwner})
	_, err = b.client.ListApps(other, &deployerv1.ListAppsRequest{Workspace: workspace})
	b.wantReason(err, apierr.ReasonPermissionDenied)
	_, err = b.client.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: "nope"})
	b.wantReason(err, apierr.ReasonAppNotFound)
	if resp, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace}); err != nil || len(resp.GetApps()) != 0 {
		t.Fatalf("%v %v", resp, err)
	}
}

// What people paste comes with byte order marks, line ends of Windows and blanks.
func TestApp_pasted(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"site/index.html": "one"})
	key := "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"
	give := func() *deployerv1.App {
		return &deployerv1.App{
			Repository: " " + repoID + "\n", Branch: "main\r\n", SharedPaths: []string{"\ufeffuploads/ "},
			Rules:  &deployerv1.AppRules{Paths: []string{"site/**\r"}, PathsIgnore: []string{" docs/**"}, Tags: []string{"v*\n"}, Skip: &deployerv1.SkipPhrases{Phrases: []string{"[skip ci]\u00a0"}}},
			Source: &deployerv1.SourceOptions{Directory: "site\n"}, Serve: &deployerv1.ServeOptions{Directory: "dist\r\n", Fallback: " index.html"},
			Hooks:     []*deployerv1.DeploymentHook{hookAt(postSetup, "build\r\n", "\ufeffset -e\r\necho \"$TOKEN.\"; printf %s \"$KEY\" | tr '\\n' ,\r\n")},
			Variables: []*deployerv1.Variable{{Name: "TOKEN ", Value: "abc\r\n"}, {Name: "KEY", Value: "\ufeff" + strings.ReplaceAll(key, "\n", "\r\n")}, {Name: "BLANK", Value: " "}},
		}
	}
	want := give()
	want.Repository, want.Branch, want.SharedPaths[0], want.Source.Directory = repoID, "main", "uploads/", "site"
	want.Rules = &deployerv1.AppRules{Paths: []string{"site/**"}, PathsIgnore: []string{"docs/**"}, Tags: []string{"v*"}, Skip: &deployerv1.SkipPhrases{Phrases: []string{"[skip ci]"}}}
	want.Serve = &deployerv1.ServeOptions{Directory: "dist", Fallback: "index.html"}
	want.Hooks[0].Name, want.Hooks[0].Command = "build", "set -e\necho \"$TOKEN.\"; printf %s \"$KEY\" | tr '\\n' ,\n"
	check := func(got *deployerv1.App) {
		t.Helper()
		for _, v := range got.GetVariables() {
			v.UpdateTime = nil
		}
		want.Variables = []*deployerv1.Variable{{Name: "TOKEN", Value: "abc"}, {Name: "KEY", Value: key}, {Name: "BLANK", Value: " "}}
		for _, f := range []protoreflect.Name{"repository", "branch", "shared_paths", "rules", "source", "serve", "hooks", "variables"} {
			d := want.ProtoReflect().Descriptor().Fields().ByName(f)
			if w, g := want.ProtoReflect().Get(d), got.ProtoReflect().Get(d); !w.Equal(g) {
				t.Errorf("%s: %v, want %v", f, g, w)
			}
		}
	}
	created, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: " web\n", App: give()})
	if err != nil {
		t.Fatal(err)
	}
	check(created.GetApp())
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if got := fmt.Sprintf("%q", b.printed("web", 1, "build")); got != `["abc." "-----BEGIN KEY-----,AAAA,-----END KEY-----,"]` {
		t.Error(got)
	}
	resp, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: "web", App: give()})
	if err != nil {
		t.Fatal(err)
	}
	check(resp.GetApp())
}

func TestCreateApp_requestIDAndDeployNow(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "x", map[string]string{"index.html": "x"})
	req := &deployerv1.CreateAppRequest{Workspace: workspace, AppId: "web", App: web(false), DeployNow: true, RequestId: "r-1"}
	for range 3 {
		resp, err := b.client.CreateApp(b.admin, req)
		if err != nil || resp.GetApp().GetLatest().GetNumber() != 1 {
			t.Fatalf("%v %v", resp, err)
		}
	}
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if d.GetTrigger() != deployerv1.Deployment_MANUAL || d.GetActor().GetLabel() != "Jane Developer" || d.GetActor().GetKind() != deployerv1.DeploymentActor_MEMBER {
		t.Fatalf("%v", d)
	}
	req.App.Branch = "dev"
	_, err := b.client.CreateApp(b.admin, req)
	b.wantReason(err, apierr.ReasonRequestIDReused)
	req.RequestId = "r-2"
	_, err = b.client.CreateApp(b.admin, req)
	b.wantReason(err, apierr.ReasonAppExists)

	// A deployment too.
	dep := &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web", RequestId: "d-1"}
	for range 3 {
		resp, err := b.client.CreateDeployment(b.member, dep)
		if err != nil || resp.GetDeployment().GetNumber() != 2 {
			t.Fatalf("%v %v", resp, err)
		}
	}
	b.await("web", 2, deployerv1.Deployment_COMPLETED) // again, although its commit is live
}

func TestUpdateApp_baselinesAndEtags(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 100*time.Millisecond, 10*time.Millisecond
	})
	b.repo.Commit("main", "m1", map[string]string{"index.html": "m1"})
	b.repo.Commit("dev", "d1", map[string]string{"index.html": "d1"})
	app := b.create("web", web(false))
	if app.GetWebhook() != nil {
		t.Fatalf("%v", app.GetWebhook())
	}
	b.repo.Commit("main", "m2", map[string]string{"index.html": "m2"})

	update := func(a *deployerv1.App, paths ...string) (*deployerv1.App, error) {
		resp, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: "web", App: a, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
		return resp.GetApp(), err
	}
	on, err := update(&deployerv1.App{AutoDeploy: true, Etag: app.GetEtag()}, "auto_deploy")
	if err != nil || !on.GetAutoDeploy() || on.GetBranch() != "main" || on.GetEtag() == app.GetEtag() || on.GetWebhook().GetState() != "ACTIVE" {
		t.Fatalf("%v %v", on, err)
	}
	_, err = update(&deployerv1.App{AutoDeploy: false, Etag: app.GetEtag()}, "auto_deploy")
	b.wantReason(err, apierr.ReasonEtagMismatch)
	dev, err := update(&deployerv1.App{Branch: "dev"}, "branch")
	if err != nil || dev.GetBranch() != "dev" {
		t.Fatalf("%v %v", dev, err)
	}
	_, err = update(&deployerv1.App{Repository: "00000000-571d-44e9-a507-fa476535aa98"}, "repository")
	b.wantReason(err, apierr.ReasonInvalidArgument)
	_, err = update(&deployerv1.App{}, "nonsense")
	b.wantReason(err, apierr.ReasonInvalidArgument)

	// Old pushes of main are not watched; the new branch deploys from its next push on.
	old := b.deliver(nil)
	b.awaitSaid(old, "Branch main is not watched; watching dev")
	hash := b.repo.Commit("dev", "d2", map[string]string{"index.html": "d2"})
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if d.GetCommit().GetHash() != hash || d.GetBranch() != "dev" {
		t.Fatalf("switching made a deployment: %v", d)
	}
	if _, err := b.deployment("web", 2); !apierr.Has(err, apierr.ReasonDeploymentNotFound) {
		t.Fatal(err)
	}
	b.world.mu.Lock()
	w := b.world.watches[repoID]
	b.world.mu.Unlock()
	if len(w.GetWatches()) != 1 || w.GetWatches()[0].GetBranch() != "dev" {
		t.Fatalf("webhook knows %v", w)
	}
	if off, err := update(&deployerv1.App{}, "auto_deploy"); err != nil || off.GetAutoDeploy() || off.GetWebhook() != nil {
		t.Fatalf("%v %v", off, err)
	}
	b.world.mu.Lock()
	w = b.world.watches[repoID]
	b.world.mu.Unlock()
	if len(w.GetWatches()) != 0 {
		t.Fatalf("webhook still knows %v", w)
	}
}

func TestDeleteApp_leavesNothingAndItsNameCanBeUsedAgain(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "x", map[string]string{"index.html": "old"})
	app := b.create("web", web(true))
	b.push("old app")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	_, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "web", Etag: "wrong"})
	b.wantReason(err, apierr.ReasonEtagMismatch)
	if _, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "web", Etag: app.GetEtag()}); err != nil {
		t.Fatal(err)
	}
	_, err = b.client.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonAppNotFound)
	testkit.Eventually(t, timeout, func() error {
		for _, name := range []string{"current", "releases"} {
			if _, err := os.Lstat(filepath.Join(b.cfg.DataDir, "apps", workspace, "web", name)); !os.IsNotExist(err) {
				return fmt.Errorf("%s is still there: %w", name, err)
			}
		}
		return nil
	})
	b.create("web", web(true))
	b.push("new app")
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if b.live("web") != "new app" || d.GetCommit().GetHash() != b.repo.Head("main") {
		t.Fatalf("%v", d)
	}
	if text, _ := b.log("web", 1, &deployerv1.ReadLogRequest{}); strings.Contains(text, "old app") || !strings.Contains(text, "new app") {
		t.Fatalf("%q", text)
	}
}

func TestLists_pagesAndFilters(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	for _, id := range []string{"c", "a", "b"} {
		b.create(id, web(false))
	}
	var ids []string
	token := ""
	for {
		resp, err := b.client.ListApps(b.member, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range resp.GetApps() {
			ids = append(ids, a.GetId())
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if fmt.Sprint(ids) != "[a b c]" {
		t.Fatal(ids)
	}
	for range 5 {
		if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(req *deployerv1.ListDeploymentsRequest) (numbers []int32, last *deployerv1.ListDeploymentsResponse) {
		req.Workspace, req.App = workspace, "a"
		resp, err := b.client.ListDeployments(b.member, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range resp.GetDeployments() {
			numbers = append(numbers, d.GetNumber())
		}
		return numbers, resp
	}
	got, page := list(&deployerv1.ListDeploymentsRequest{PageSize: 2})
	if fmt.Sprint(got) != "[5 4]" || page.GetNextPageToken() == "" {
		t.Fatal(got)
	}
	if got, _ = list(&deployerv1.ListDeploymentsRequest{PageSize: 2, PageToken: page.GetNextPageToken()}); fmt.Sprint(got) != "[3 2]" {
		t.Fatal(got)
	}
	if got, _ = list(&deployerv1.ListDeploymentsRequest{State: deployerv1.Deployment_SUPERSEDED}); fmt.Sprint(got) != "[4 3 2 1]" {
		t.Fatal(got)
	}
	if got, _ = list(&deployerv1.ListDeploymentsRequest{Branch: "dev"}); len(got) != 0 {
		t.Fatal(got)
	}
	_, err := b.client.ListDeployments(b.member, &deployerv1.ListDeploymentsRequest{Workspace: workspace, App: "b", PageToken: page.GetNextPageToken()})
	b.wantReason(err, apierr.ReasonPageTokenInvalid)

	// Nobody serves the server: what waits says so.
	d, err := b.deployment("a", 5)
	if err != nil || d.GetState() != deployerv1.Deployment_PENDING || d.GetWaitingFor().GetReason() != "SERVER_OFFLINE" {
		t.Fatalf("%v %v", d, err)
	}
	if app := b.get("a"); !hasWarning(app, "SERVER_OFFLINE") {
		t.Fatalf("%v", app.GetWarnings())
	}
}

func TestServers_andDeliveries(t *testing.T) {
	b := newBench(t)
	b.create("web", web(true))
	testkit.Eventually(t, timeout, func() error {
		resp, err := b.client.ListServers(b.member, &deployerv1.ListServersRequest{})
		if err != nil || len(resp.GetServers()) != 1 || len(resp.GetServers()[0].GetWorkers()) != 1 {
			return fmt.Errorf("%v %w", resp, err)
		}
		if w := resp.GetServers()[0].GetWorkers()[0]; w.GetSlots() != 2 || w.GetVersion() != "test" || resp.GetServers()[0].GetId() != "default" {
			return fmt.Errorf("%v", w)
		}
		return nil
	})
	resp, err := b.client.ListAppDeliveries(b.member, &deployerv1.ListAppDeliveriesRequest{Workspace: workspace, App: "web"})
	if err != nil || len(resp.GetDeliveries()) != 1 || len(resp.GetDeliveries()[0].GetOutcomes()) != 2 || resp.GetNextPageToken() != "more" {
		t.Fatalf("%v %v", resp, err)
	}
}

func TestReadLog_tailAfterAndHeartbeat(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	b.create("web", web(false))
	if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	in, err := b.client.ReadLog(b.member, &deployerv1.ReadLogRequest{Workspace: workspace, App: "web", Number: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := in.Recv(); err != nil || len(resp.GetRecords()) != 0 || resp.GetEnd() != nil {
		t.Fatalf("no heartbeat: %v %v", resp, err)
	}
	b.stopOne() // the service stops: the reader learns that it was cut
	for {
		if _, err = in.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) == codes.OK || !apierr.Has(err, apierr.ReasonServiceUnavailable) {
		t.Fatalf("%v", err)
	}
	b.cfg.Worker = true
	b.repo.Commit("main", "x", map[string]string{"index.html": "x"})
	b.start() // the deployment that waited is run
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	all, end := b.log("web", 1, &deployerv1.ReadLogRequest{})
	lines := strings.Split(strings.TrimSpace(all), "\n")
	if end != deployerv1.Deployment_COMPLETED || len(lines) < 4 {
		t.Fatalf("%q", all)
	}
	if tail, _ := b.log("web", 1, &deployerv1.ReadLogRequest{Tail: 2}); tail != strings.Join(lines[len(lines)-2:], "\n")+"\n" {
		t.Fatalf("%q of %q", tail, lines)
	}
	if rest, _ := b.log("web", 1, &deployerv1.ReadLogRequest{After: 3, Follow: true}); rest != strings.Join(lines[3:], "\n")+"\n" {
		t.Fatalf("%q of %q", rest, lines)
	}
}

func TestRetention_keepsTheNewestReleases(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "x", map[string]string{"index.html": "x"})
	app := web(true)
	app.Retention = 1
	b.create("web", app)
	for n := int32(1); n <= 3; n++ {
		b.push(fmt.Sprint("v", n))
		b.await("web", n, deployerv1.Deployment_COMPLETED)
	}
	testkit.Eventually(t, timeout, func() error {
		left, err := os.ReadDir(filepath.Join(b.cfg.DataDir, "apps", workspace, "web", "releases"))
		if err != nil || len(left) != 2 {
			return fmt.Errorf("%v %w", left, err)
		}
		return nil
	})
	for n, kept := range map[int32]bool{1: false, 2: true, 3: true} {
		if d, err := b.deployment("web", n); err != nil || d.GetReleaseKept() != kept || d.GetLive() != (n == 3) {
			t.Errorf("%d: %v %v", n, d, err)
		}
	}
}

func TestTwoDeployers_burstOfPushes(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "x", map[string]string{"index.html": "x"})
	b.create("web", web(true))
	first := b.stopOne
	b.start() // a second process on the same data directory
	defer first()
	const pushes = 40
	for i := range pushes {
		b.repo.Commit("main", fmt.Sprint(i), map[string]string{"index.html": fmt.Sprint(i)})
		b.deliver(func(e *eventsv1.PushEvent) {
			if i%7 == 0 { // comes twice
				b.publish(e)
			}
		})
	}
	testkit.Eventually(t, 60*time.Second, func() error {
		resp, err := b.client.ListDeployments(b.member, &deployerv1.ListDeploymentsRequest{Workspace: workspace, App: "web", PageSize: 200})
		if err != nil || len(resp.GetDeployments()) != pushes {
			return fmt.Errorf("%d deployments of %d pushes: %w", len(resp.GetDeployments()), pushes, err)
		}
		for _, d := range resp.GetDeployments() {
			if s := d.GetState(); s != deployerv1.Deployment_COMPLETED && s != deployerv1.Deployment_SUPERSEDED {
				return fmt.Errorf("%d is %v", d.GetNumber(), s)
			}
		}
		if b.live("web") != fmt.Sprint(pushes-1) {
			return fmt.Errorf("live %q", b.live("web"))
		}
		return nil
	})
}

func TestRun_refusesAnotherServersDirectory(t *testing.T) {
	b := newBench(t)
	b.stopOne()
	cfg := b.cfg
	cfg.DataDir = t.TempDir() // a directory with another id
	s, err := deployer.New(cfg, b.keyset)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Fatalf("%v", err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Fatal("ready")
	}
}
