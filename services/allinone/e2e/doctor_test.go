package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

// checkOf finds a check of a report; where is a part of what it says of that.
func checkOf(report object, service, name, where string) object {
	for _, c := range objects(report["checks"]) {
		if said, _ := c["where"].(string); c["service"] == service && c["name"] == name && strings.Contains(said, where) {
			return c
		}
	}
	return nil
}

// The product as processes that encrypt, each its own user of NATS, with two servers: every service says of itself what it
// sees, with its own user and files; one that is frozen or a worker that is gone is a line of its own, and nothing of it is
// secret.
func TestDoctor_asksEveryProcess(t *testing.T) {
	t.Parallel()
	g := guard(t, "", nil)
	certificates, far := filepath.Join(testkit.FastDir(t), "certificates"), filepath.Join(t.TempDir(), "far")
	if out, err := exec.Command(program(t, "devpilot"), "certificates", certificates).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	running := startTopology(t, topology{count: 1, deployers: 2, guarded: &g, of: func(service string, i int) []string {
		file := func(name string) string { return filepath.Join(certificates, service, name) }
		env := append(g.of(service, i),
			"DEVPILOT_TLS_CERT_FILE="+file("tls.crt"), "DEVPILOT_TLS_KEY_FILE="+file("tls.key"), "DEVPILOT_TLS_CA_FILE="+file("ca.crt"))
		if service == "deployer" && i == 1 {
			env = append(env, "DEVPILOT_SERVER=far", "DEVPILOT_DATA_DIR="+far)
		}
		return env
	}})
	operator := newBrowser(t, running.url()).signIn(running.adminToken())
	again := func(until func(report object) error) object {
		t.Helper()
		var report object
		testkit.Eventually(t, timeout, func() error { // one that was just made is given again
			report = operator.must("POST", "/v1/doctor:run", object{})
			return until(report)
		})
		return report
	}
	report := again(func(report object) error {
		if c := checkOf(report, "deployer", "disk", "far: "); c == nil || c["state"] != "OK" {
			return fmt.Errorf("the worker says nothing of itself yet: %v", report["checks"])
		}
		return nil
	})
	skipped := map[string]bool{"webhook nats-sync": true, "webhook nats-storage": true}
	for _, c := range objects(report["checks"]) {
		name := fmt.Sprintf("%s %s", c["service"], c["name"])
		if well := c["state"] == "OK" || c["state"] == "SKIPPED" && skipped[name] || c["state"] == "WARNING" && c["name"] == "sandbox"; !well {
			t.Errorf("%s: %v", name, c)
		}
	}
	for _, want := range []string{
		"auth service", "auth nats", "auth nats-permissions", "auth redis", "auth redis-eviction", "auth keyset", "auth identity-keys", "auth oauth-consumer",
		"repo service", "repo redis", "repo identity-keys", "webhook nats-replicas", "webhook webhook-delivery",
		"deployer service", "deployer nats-permissions", "deployer git", "deployer worker", "deployer sandbox", "gateway keyset", "gateway public-url", "gateway clock",
	} {
		service, name, _ := strings.Cut(want, " ")
		if checkOf(report, service, name, "") == nil {
			t.Errorf("nobody says %s", want)
		}
	}
	if c := checkOf(report, "repo", "nats", ""); c != nil {
		t.Errorf("repo has nothing to do with NATS: %v", c)
	}

	frozen := running.replicas["repo"][0]
	frozen.Stop()
	report = again(func(report object) error {
		if c := checkOf(report, "repo", "service", ""); c["state"] != "FAILED" || c["remedy"] == nil {
			return fmt.Errorf("repo is frozen: %v", c)
		}
		return nil
	})
	if c := checkOf(report, "auth", "oauth-consumer", ""); c["state"] != "OK" || report["state"] != "FAILED" || report["running"] != false {
		t.Errorf("beside a frozen service: %v", report)
	}
	frozen.Continue()
	awaitReady(t, frozen.ops)

	running.replicas["deployer"][1].Kill()
	again(func(report object) error {
		if c := checkOf(report, "deployer", "worker", "far"); c["state"] != "FAILED" || !strings.Contains(fmt.Sprint(c["found"]), "does not answer") {
			return fmt.Errorf("the worker of far is gone: %v", c)
		}
		return nil
	})
	text, err := json.Marshal(operator.must("GET", "/v1/doctor", nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{running.adminToken(), consumer.Secret} {
		if strings.Contains(string(text), secret) {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}
