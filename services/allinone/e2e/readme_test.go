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
	"devpilot.io/bitbucket/services/allinone"
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

// The README's session of the command line does what it says. The test is the person who connects in a browser
// meanwhile.
func TestReadme_sessionOfTheCommandLine(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlock.FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 2 || !strings.Contains(blocks[1][1], "devpilot login http://127.0.0.1:8080 ") {
		t.Fatalf("the README has %d shell blocks, and the second is not the session", len(blocks))
	}
	home := testkit.FastDir(t)
	dir := filepath.Join(home, ".devpilot")
	_, emulated, _ := strings.Cut(loopback(t), ":")
	d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=localhost:"+emulated)
	if err := os.Symlink(filepath.Dir(program(t, "devpilot")), filepath.Join(home, "bin")); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(allinone.AdminTokenFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), tryItLimit)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail")
	var out recorder
	shell.Dir, shell.Stdin = home, strings.NewReader(strings.ReplaceAll(blocks[1][1], "http://127.0.0.1:8080", address))
	shell.Stdout, shell.Stderr, shell.WaitDelay = &out, &out, 5*time.Second
	// No browser is to open here: an xdg-open that does nothing comes first.
	opener := filepath.Join(home, "open")
	if err := os.MkdirAll(opener, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(opener, "xdg-open"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	shell.Env = append(cleanEnviron(), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "PATH="+opener+":"+os.Getenv("PATH"))
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	newBrowser(t, address).signIn(strings.TrimSpace(string(token))).connect("default", "grant")
	if err := shell.Wait(); err != nil {
		t.Fatalf("the session ended with %v:\n%s", err, out.String())
	}
	for _, want := range []string{
		"Signed in at " + address, "CONNECTED", "acme/web", "main", "Deployment 1 of shop is COMPLETED.", "Release 1 is live.",
		"Deployment 2 of shop is COMPLETED.", "Deployment 3 of shop is COMPLETED.", "ROLLBACK",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the session does not show %q", want)
		}
	}
	if strings.Contains(out.String(), strings.TrimSpace(string(token))) {
		t.Error("the session shows the key")
	}
	if t.Failed() {
		t.Log(out.String())
	}
	d.terminate()
}
