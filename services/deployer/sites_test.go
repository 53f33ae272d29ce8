package deployer_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// served makes an app that is live and served, and returns who visits it.
func (b *bench) served() func(host, path string, headers ...string) (int, string, http.Header) {
	b.t.Helper()
	visit := b.serveLive()
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	a := web(false)
	a.Serve = &deployerv1.ServeOptions{Directory: "."}
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	return visit
}

func (b *bench) wantPage(visit func(host, path string, headers ...string) (int, string, http.Header), host string, status int, body string) {
	b.t.Helper()
	if got, text, _ := visit(host, "/"); got != status || body != "" && text != body {
		b.t.Errorf("%s: %d %q, want %d %q", host, got, text, status, body)
	}
}

// The files are on this disk: neither pages nor what is not there ask a store.
func TestSites_costNoReads(t *testing.T) {
	b := newBench(t)
	visit := b.served()
	b.wantPage(visit, "web", 200, "one")
	b.idle()
	const pages = 50
	if asked := b.leaderReads(func() {
		for range pages {
			b.wantPage(visit, "web", 200, "one")
			b.wantPage(visit, "unknown", 404, "")
		}
	}); len(asked) >= pages { // what a worker asks now and then does not count
		t.Errorf("%d pages, and as many of no app, ask the leaders %d times: %q", pages, len(asked), asked)
	}
}

func TestSites_areServedWithoutNATS(t *testing.T) {
	b := newBench(t)
	visit := b.served()
	b.nats.Stop()
	b.wantPage(visit, "web", 200, "one")
	b.wantPage(visit, "1--web", 200, "one")
	b.wantPage(visit, "2--web", 404, "")
	b.wantPage(visit, "unknown", 404, "")
}

// A worker that starts while NATS is away serves what its disk holds. What it cannot know is not denied.
func TestSites_areServedByAWorkerThatStartsWithoutNATS(t *testing.T) {
	b := newBench(t)
	b.served()
	b.stopOne()
	b.nats.Stop()
	visit := b.serveLiveBy(b.begin)
	b.wantPage(visit, "web", 200, "one")
	b.wantPage(visit, "unknown", 503, "")
	b.nats.Start()
	testkit.Eventually(t, timeout, func() error {
		return wantStatus(visit, "unknown", 404)
	})
	b.wantPage(visit, "web", 200, "one")
}

// Releases of a data directory without records are served once the records are made.
func TestSites_recordsAreMadeAgain(t *testing.T) {
	b := newBench(t)
	b.served()
	b.stopOne()
	record := filepath.Join(b.cfg.DataDir, "apps", workspace, "web", "site.json")
	for name, damage := range map[string]func() error{
		"from before there were any": func() error { return os.Remove(record) },
		"cut short":                  func() error { return os.WriteFile(record, []byte(`{"generation":`), 0o600) },
		"of an app that is gone": func() error {
			dir := filepath.Join(b.cfg.DataDir, "apps", workspace, "old")
			if err := os.MkdirAll(filepath.Join(dir, "releases", "1"), 0o700); err != nil {
				return err
			}
			if err := os.Symlink("releases/1", filepath.Join(dir, "current")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "site.json"), []byte(`{"generation":1,"last":1,"releases":[{"number":1,"directory":"1","serve":"."}]}`), 0o600)
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(name, err)
		}
		visit := b.serveLive()
		testkit.Eventually(t, timeout, func() error {
			if err := wantStatus(visit, "web", 200); err != nil {
				return err
			}
			return wantStatus(visit, "old", 404)
		})
		b.wantPage(visit, "web", 200, "one")
		b.stopOne()
	}
}

// What is saved shows at the next request.
func TestSites_followWhatIsSaved(t *testing.T) {
	b := newBench(t)
	visit := b.served()
	b.update("web", &deployerv1.App{}, "serve")
	b.wantPage(visit, "web", 404, "")
	b.wantPage(visit, "1--web", 404, "")
	b.update("web", &deployerv1.App{Serve: &deployerv1.ServeOptions{Directory: ".", Fallback: "index.html"}}, "serve")
	b.wantPage(visit, "web", 200, "one")
	if got, text, _ := visit("web", "/deep/link", "Accept", "text/html"); got != 200 || text != "one" {
		t.Errorf("the fallback: %d %q", got, text)
	}
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.wantPage(visit, "web", 200, "two")
	b.wantPage(visit, "1--web", 200, "one")
	if _, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	b.wantPage(visit, "web", 404, "")
	b.wantPage(visit, "2--web", 404, "")
}
