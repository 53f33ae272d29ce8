package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// TestMain lets the test binary be the program: with this variable set it runs main.
func TestMain(m *testing.M) {
	if os.Getenv("BITBUCKET_EMULATOR_RUN_MAIN") != "" {
		main()
		return
	}
	m.Run()
}

// process is the program as a person starts it.
type process struct {
	cmd     *exec.Cmd
	control *emulator.Control
	url     string
	stderr  *strings.Builder
}

func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), os.Args[0], args...), stderr: &strings.Builder{}}
	p.cmd.Env = append(os.Environ(), "BITBUCKET_EMULATOR_RUN_MAIN=1")
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("no line on stdout: %v; %s", err, p.stderr)
	}
	var found bool
	if _, p.url, found = strings.Cut(strings.TrimSpace(line), "ready at "); !found {
		t.Fatalf("printed %q", line)
	}
	p.control = emulator.NewControl(p.url)
	t.Cleanup(p.control.CloseIdleConnections)
	return p
}

func (p *process) end(t *testing.T, signal syscall.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		t.Fatal("did not end")
		return nil
	}
}

func status(t *testing.T, url, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

func TestProgram_continuesAfterKill9AndEndsCleanlyOnSIGTERM(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the consumer's secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--listen=127.0.0.1:0", "--data-dir=" + dir, "--emulator-scenario=sample", "--client-id=the-key", "--client-secret-file=" + secret,
		"--callback-url=https://devpilot.example.test/cb", "--grace=10m", "--access-ttl=1h",
	}
	ctx := context.Background()
	first := launch(t, args...)
	state, err := first.control.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if state.Consumer.Key != "the-key" || state.Consumer.CallbackURL != "https://devpilot.example.test/cb" ||
		state.Switches.Tokens.Grace != 10*time.Minute || state.Switches.Tokens.AccessTTL != time.Hour || state.Scenario != "sample" {
		t.Errorf("state %+v", state)
	}
	pair, err := first.control.IssueTokens(ctx, "jane-dev")
	if err != nil {
		t.Fatal(err)
	}
	hash, err := first.control.Commit(ctx, "acme/web", "main", "Kept", map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.end(t, syscall.SIGKILL); err == nil {
		t.Error("kill -9 looks like a clean end")
	}

	second := launch(t, args...)
	if got := status(t, second.url+"/2.0/user", pair.AccessToken); got != http.StatusOK {
		t.Errorf("the token of before answers %d", got)
	}
	refs, err := second.control.Refs(ctx, "acme/web")
	if err != nil || refs["refs/heads/main"] != hash {
		t.Errorf("main is at %s, want %s: %v", refs["refs/heads/main"], hash, err)
	}
	second.control.CloseIdleConnections()
	if err := second.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v; %s", err, second.stderr)
	}
	if strings.Contains(second.stderr.String(), "the consumer's secret") {
		t.Error("the secret is in the log")
	}
}

func TestProgram_refusesHalfAConsumerAndABusyPort(t *testing.T) {
	t.Setenv("DEVPILOT_BITBUCKET_CLIENT_SECRET", "")
	if err := run(t.Context(), &flags{LogLevel: "info", ClientID: "only-the-key"}); err == nil || !strings.Contains(err.Error(), "belong together") {
		t.Errorf("got %v", err)
	}
	busy, err := emulator.Start("127.0.0.1:0", emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	err = run(t.Context(), &flags{LogLevel: "info", Listen: strings.TrimPrefix(busy.SiteURL(), "http://"), ScopeField: "scope", TokenLength: 2700})
	if err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("got %v", err)
	}
}
