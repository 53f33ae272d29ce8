package e2e

import (
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

// The whole product as processes that talk with each other by the certificates of `devpilot certificates` alone: what it is
// for works, certificates are renewed while it runs, and each process says that it uses the new ones.
func TestTLS_theProductAsProcesses(t *testing.T) {
	t.Parallel()
	certificates := filepath.Join(testkit.FastDir(t), "certificates")
	renew := func() {
		t.Helper()
		if out, err := exec.Command(program(t, "devpilot"), "certificates", certificates).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	renew()
	running := startTopology(t, topology{count: 1, deployers: 2, of: func(service string, i int) []string {
		env := certificatesOf(filepath.Join(certificates, service))
		if service == "deployer" && i > 0 {
			env = append(env, workerOnly)
		}
		return env
	}})
	s := &shared{stack: running, planted: map[string]string{}}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	mainPath(t, s)

	renew()
	for service, replicas := range running.replicas {
		for _, r := range replicas {
			testkit.Eventually(t, timeout, func() error {
				metrics, err := text(t, r.ops+"/metrics")
				if err == nil && !strings.Contains(metrics, `devpilot_tls_reloads_total{result="used",use="services"}`) {
					err = errors.New("it has no certificate")
				}
				if err == nil && strings.Contains(metrics, `devpilot_tls_reloads_total{result="used",use="services"} 0`) {
					err = errors.New("it uses the first certificate still")
				}
				if err != nil {
					return errors.Join(errors.New(service), err)
				}
				return nil
			})
		}
	}
	tenancy(t, s)
	for line := range strings.Lines(running.output()) {
		if strings.Contains(line, "a connection was refused") && !slices.ContainsFunc([]string{"EOF", "reset by peer"}, func(s string) bool { return strings.Contains(line, s) }) {
			t.Errorf("refused among themselves: %s", line)
		}
	}
}

// certificatesOf are a service's settings for the certificates that a directory of `devpilot certificates` holds.
func certificatesOf(directory string) []string {
	return []string{
		"DEVPILOT_TLS_CERT_FILE=" + filepath.Join(directory, "tls.crt"), "DEVPILOT_TLS_KEY_FILE=" + filepath.Join(directory, "tls.key"),
		"DEVPILOT_TLS_CA_FILE=" + filepath.Join(directory, "ca.crt"),
	}
}

func text(t *testing.T, url string) (string, error) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}
