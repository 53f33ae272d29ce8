package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

// TestServers_anyWorkerAnswersForAnyApp runs two workers of one server and one of another, as built, with certificates. Each
// answers for the apps of both, also without NATS; a server that is away is told of in plain words, and what
// moved is served as it is where it went.
func TestServers_anyWorkerAnswersForAnyApp(t *testing.T) {
	t.Parallel()
	far, certificates := filepath.Join(t.TempDir(), "far"), filepath.Join(testkit.FastDir(t), "certificates")
	if out, err := exec.Command(program(t, "devpilot"), "certificates", certificates).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	running := startTopology(t, topology{count: 1, deployers: 3, of: func(service string, i int) []string {
		env := certificatesOf(filepath.Join(certificates, service))
		if service == "deployer" && i > 0 {
			env = append(env, workerOnly)
		}
		if service == "deployer" && i == 2 {
			env = append(env, "DEVPILOT_SERVER=far", "DEVPILOT_DATA_DIR="+far)
		}
		return env
	}})
	s := &shared{stack: running, planted: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the product's log:\n%s", tail(running.output(), 20_000))
		}
	})
	s.owner = newBrowser(t, running.url()).signIn(running.adminToken())
	n := s.tenant(t, "servers")
	repo := s.site().repository(t, "servers", "site")
	first := s.site().commit(t, repo, "main", "one")
	create := func(app, server string) {
		n.api.must("POST", n.path("/apps"), object{"appId": app, "deployNow": true, "app": object{
			"repository": repo.id, "branch": "main", "autoDeploy": true, "server": server, "serve": object{"directory": "."},
		}})
		n.live(app, first)
	}
	create("near", "default")
	create("far", "far")

	workers, replicas := running.live.targets["live"], running.replicas["deployer"]
	host := func(app string) string { return app + ".servers.localhost" }
	want := func(worker int, app string, status int, words string) (header http.Header) {
		t.Helper()
		testkit.Eventually(t, timeout, func() error {
			got, body, h := request(t, "http://"+workers[worker]+"/", host(app))
			if header = h; got != status || !strings.Contains(body, words) {
				return fmt.Errorf("worker %d of %s: %d %q, want %d %q", worker, app, got, body, status, words)
			}
			return nil
		})
		return header
	}
	for worker := range workers {
		near, other := want(worker, "near", 200, "one\n"), want(worker, "far", 200, "one\n")
		if near.Get("Etag") == "" || near.Get("Etag") != other.Get("Etag") || near.Get("X-Devpilot-Release") != "1" {
			t.Errorf("worker %d: %v, %v", worker, near, other)
		}
		want(worker, "1--near", 200, "one\n")
		want(worker, "nobody", 404, "No app of this name")
	}

	running.stopNATS()
	for worker := range workers {
		want(worker, "near", 200, "one\n")
		want(worker, "far", 200, "one\n")
	}
	running.startNATS()
	awaitReady(t, replicas[0].ops)

	replicas[1].Kill() // another worker of its server lives
	want(2, "near", 200, "one\n")
	replicas[2].Kill()
	want(0, "far", 503, "does not answer")
	want(0, "near", 200, "one\n")
	replicas[2].Start()
	want(0, "far", 200, "one\n")

	n.api.must("PATCH", n.path("/apps/near"), object{"server": "far"})
	want(0, "near", 200, "one\n")
	second := s.site().commit(t, repo, "main", "two")
	n.live("near", second)
	n.live("far", second)
	want(0, "near", 200, "two\n")
	want(2, "near", 200, "two\n")
	want(2, "1--near", 200, "one\n")
	replicas[2].Kill()
	want(0, "near", 503, "does not answer") // never the older release that lies here
}
