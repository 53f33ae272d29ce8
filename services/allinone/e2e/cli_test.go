package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/cli"
)

// The command line against the product: each kind of command, what it shows and the code it ends with.
func TestCommandLine_againstTheProduct(t *testing.T) {
	t.Parallel()
	s := startProcess(t, "info")
	newBrowser(t, s.url()).signIn(s.adminToken()).connect("default", "grant")
	home := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	repo := s.bucket.repository(t, "line", "site")
	hooks := file("hooks.yaml", "- {name: check, stage: POST_SOURCE_CONTROL, command: 'echo it is $TOKEN; exit 3'}")
	rules := file("rules.json", `{"paths":["src/**"]}`)
	for _, step := range []struct {
		in, words string
		code      int
		want      string
	}{
		{s.adminToken(), "login " + s.url(), cli.CodeDone, "in workspace default"},
		{"", "whoami", cli.CodeDone, "ADMIN_TOKEN"},
		{"", "integration status", cli.CodeDone, "CONNECTED"},
		{"", "integration connect", cli.CodeDone, "CONNECTED"},
		{"", "apps create line --repository " + repo.id, cli.CodeDone, "line"},
		{"", "apps create line --repository " + repo.id, cli.CodeConflict, "Next: devpilot apps list"},
		{"", "apps variables set line MODE quick", cli.CodeDone, "quick"},
		{"hunter2-in-clear\n", "apps variables set line TOKEN --secret", cli.CodeDone, "(secret)"},
		{"", "apps variables set line MODE slow", cli.CodeDone, "TOKEN"}, // the other one is kept
		{"", "apps rules line --file " + rules, cli.CodeDone, "src/**"},
		{"", "deploy line", cli.CodeDone, "is COMPLETED"},
		{"", "apps hooks line --file " + hooks, cli.CodeDone, "POST_SOURCE_CONTROL"},
		{"", "deploy line", cli.CodeDeployFailed, "Next: devpilot log line 2"},
		{"", "log line 2", cli.CodeDone, "it is "},
		{"", "log line 9", cli.CodeNotFound, "Next: devpilot deployments"},
		{"", "rollback line 1", cli.CodeDone, "Deployment 3 of line is COMPLETED"},
		{"", "deployments --state FAILED -o json", cli.CodeDone, `"number": 2`},
		{"", "deployments line -o yaml", cli.CodeDone, "trigger: ROLLBACK"},
		{"", "cancel line", cli.CodeConflict, "ended already"},
		{"", "why line --deployment 2", cli.CodeDone, "exit code 3"},
		{"", "members list", cli.CodeDone, "Local owner"},
		{"", "keys create reader --scope read", cli.CodeDone, "dpk_"},
		{"", "keys list", cli.CodeDone, "READ"},
		{"", "apps delete line --yes", cli.CodeDone, "is deleted"},
		{"", "apps get line", cli.CodeNotFound, "Next: devpilot apps list"},
		{"", "integration remove --yes", cli.CodeDone, "is disconnected"},
		{"", "repos", cli.CodeConflict, "Next: devpilot integration connect"},
	} {
		var out recorder
		code := cli.Run(t.Context(), cli.Process{
			Args: strings.Fields(step.words), Stdin: strings.NewReader(step.in), Stdout: &out, Stderr: &out,
			Getenv: func(string) string { return "" }, Directory: func() (string, error) { return home, nil }, Version: "test",
		})
		if code != step.code || !strings.Contains(out.String(), step.want) {
			t.Fatalf("devpilot %s ended with %d, want %d, and %q:\n%s", step.words, code, step.code, step.want, out.String())
		}
		if strings.Contains(out.String(), "hunter2-in-clear") || strings.Contains(out.String(), s.adminToken()) {
			t.Fatalf("devpilot %s shows a secret:\n%s", step.words, out.String())
		}
	}
}
