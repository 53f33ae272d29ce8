package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// tryItLimit bounds the README's block; its own wait for the deployment has no limit.
const tryItLimit = 5 * time.Minute

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// The README's "Try it" block does what it says when it is copied into a shell.
func TestReadme_tryItWorksAsItStands(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := shellBlock.FindStringSubmatch(string(readme))
	if block == nil {
		t.Fatal("the README has no shell block")
	}
	home := testkit.FastDir(t)
	dir := filepath.Join(home, ".devpilot")
	_, emulated, _ := strings.Cut(loopback(t), ":")
	d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=localhost:"+emulated)
	for from, to := range map[string]string{"http://127.0.0.1:8080": address, "http://localhost:8081": "http://localhost:" + emulated} {
		if !strings.Contains(block[1], from) {
			t.Fatalf("the README's block does not name %s", from)
		}
		block[1] = strings.ReplaceAll(block[1], from, to)
	}

	// What a busy machine asks to be tried again is, as a person would.
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte("retry = 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), tryItLimit)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail")
	shell.Dir, shell.Stdin = home, strings.NewReader(block[1])
	shell.WaitDelay = 5 * time.Second
	shell.Env = append(cleanEnviron(), "TMPDIR="+home, "HOME="+home, "GIT_CONFIG_NOSYSTEM=1")
	raw, err := shell.CombinedOutput()
	out := string(raw)
	if err != nil {
		t.Fatalf("the README's block ended with %v:\n%s", err, out)
	}
	for _, want := range []string{
		"bitbucket=connected", `"fullName":"acme/web"`, `"name":"main","default":true`, `"state":"ACTIVE"`,
		`"state":"COMPLETED"`, `"live":true`, "Release 1 is live.", "Deployed at ", `"answerStatus":202`, "Deployed as #1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the README's block does not show %s", want)
		}
	}
	if took := regexp.MustCompile(`live \d+ ms after the push`).FindString(out); took == "" {
		t.Error("the README's block does not print the time to live")
	} else {
		t.Log(took)
	}
	if t.Failed() {
		t.Log(out)
	}
	newBrowser(t, address).refused(http.MethodGet, "/v1/workspaces", nil, "UNAUTHENTICATED") // the block's session is its own
	d.terminate()
}
