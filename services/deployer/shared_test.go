package deployer_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// serveLive starts the deployer again with a listener for releases, and returns who visits them.
func (b *bench) serveLive() func(host, path string, headers ...string) (int, string, http.Header) {
	b.t.Helper()
	return b.serveLiveBy(b.start)
}

// serveLiveBy is serveLive with another way to start.
func (b *bench) serveLiveBy(start func()) func(host, path string, headers ...string) (int, string, http.Header) {
	b.t.Helper()
	b.stopOne()
	listener, err := (&net.ListenConfig{}).Listen(b.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.cfg.LiveURL, b.keyset.Live = "http://localhost:8083", listener
	start()
	return b.visits(listener.Addr().String())
}

// visits returns who visits what is served at an address.
func (b *bench) visits(address string) func(host, path string, headers ...string) (int, string, http.Header) {
	return func(host, path string, headers ...string) (int, string, http.Header) {
		b.t.Helper()
		return b.visit(http.MethodGet, address, host+".acme-inc.localhost", path, headers...)
	}
}

// visit sends one request to an address, whatever the host.
func (b *bench) visit(method, address, host, path string, headers ...string) (int, string, http.Header) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://"+address+path, http.NoBody)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestLive_servesSharedDirectories(t *testing.T) {
	b := newBench(t)
	visit := b.serveLive()
	b.repo.Commit("main", "one", map[string]string{"public/index.html": "one", "public/uploads/seed.txt": "from the repository"})
	a := withHooks(hookAt(postSetup, "write", `echo "$DEVPILOT_DEPLOYMENT" >> public/uploads/list.txt; echo secret > public/.env; echo secret > public/settings.txt`))
	a.SharedPaths, a.Serve = []string{"public/uploads/", "public/settings.txt", "private/"}, &deployerv1.ServeOptions{Directory: "public"}
	b.create("web", a)
	b.create("other", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.deployed("other", deployerv1.Deployment_COMPLETED)
	want := func(host, path string, status int, body string, headers ...string) http.Header {
		t.Helper()
		got, text, h := visit(host, path, headers...)
		if got != status || body != "" && text != body {
			t.Errorf("%s%s: %d %q, want %d %q", host, path, got, text, status, body)
		}
		return h
	}
	want("web", "/", 200, "one")
	want("web", "/uploads/seed.txt", 200, "from the repository")
	old := want("web", "/uploads/list.txt", 200, "1\n").Get("Etag")
	want("web", "/uploads/list.txt", 304, "", "If-None-Match", old)
	want("web", "/settings.txt", 404, "")
	want("web", "/.env", 404, "")

	// The next deployment writes to what all releases share, and the repository's own is hidden.
	b.repo.Commit("main", "two", map[string]string{"public/index.html": "two", "public/uploads/seed.txt": "another"})
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	for _, host := range []string{"web", "1--web", "2--web"} {
		want(host, "/uploads/list.txt", 200, "1\n2\n", "If-None-Match", old)
		want(host, "/uploads/seed.txt", 200, "from the repository")
	}
	want("1--web", "/", 200, "one")
	want("other", "/uploads/list.txt", 200, "1\n")

	// A release whose link points into another app's directory, or anywhere else, shows nothing.
	link := filepath.Join(b.cfg.DataDir, "apps", workspace, "web", "releases", "2", "public", "uploads")
	for _, target := range []string{"../../../../other/shared/public/uploads", filepath.Join(b.cfg.DataDir, "apps", workspace, "other", "shared", "public", "uploads"), "/etc", "../../../shared/private"} {
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		want("web", "/uploads/list.txt", 404, "")
		want("web", "/uploads/passwd", 404, "")
	}
	want("1--web", "/uploads/list.txt", 200, "1\n2\n")

	// So does one whose app does not share the directory any more.
	b.update("web", &deployerv1.App{SharedPaths: []string{"private/"}}, "shared_paths")
	want("1--web", "/uploads/list.txt", 404, "")
	want("other", "/uploads/list.txt", 200, "1\n")

	// The shared directory gives way to a link.
	shared := filepath.Join(b.cfg.DataDir, "apps", workspace, "other", "shared")
	if err := os.Rename(shared, shared+".real"); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"shared.real", "../web/shared", "/etc"} {
		if err := os.Symlink(target, shared); err != nil {
			t.Fatal(err)
		}
		want("other", "/uploads/list.txt", 404, "")
		if err := os.Remove(shared); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(shared+".real", shared); err != nil {
		t.Fatal(err)
	}
	want("other", "/uploads/list.txt", 200, "1\n")
}

func TestLive_sharedPathsOfAReleasesOwnFile(t *testing.T) {
	b := newBench(t)
	visit := b.serveLive()
	b.repo.Commit("main", "one", map[string]string{
		"index.html": "one", ".devpilot.yaml": "version: 1\nsharedPaths: [uploads/]\nserve:\n  directory: .\nhooks:\n- name: write\n  stage: POST_SETUP\n  command: echo shared > uploads/a.txt\n",
	})
	a := web(false)
	a.ConfigAsCode = true
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if status, body, _ := visit("web", "/uploads/a.txt"); status != 200 || body != "shared\n" {
		t.Errorf("%d %q", status, body)
	}
	b.update("web", &deployerv1.App{}, "config_as_code")
	testkit.Eventually(t, timeout, func() error { // the worker hears of it a moment later
		if status, _, _ := visit("web", "/uploads/a.txt"); status != 404 {
			return fmt.Errorf("the file shares what an admin does not let it: %d", status)
		}
		return nil
	})
}

// wantStatus says what is wrong with the status of a page.
func wantStatus(visit func(host, path string, headers ...string) (int, string, http.Header), host string, status int) error {
	if got, text, _ := visit(host, "/"); got != status {
		return fmt.Errorf("%s answers %d %q, want %d", host, got, text, status)
	}
	return nil
}
