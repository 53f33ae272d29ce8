package cli

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

// machine is what a test has the program see.
type machine struct {
	t    *testing.T
	dir  string
	env  map[string]string
	open []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	return &machine{t: t, dir: t.TempDir(), env: map[string]string{}}
}

// run runs a command, which reads in.
func (m *machine) run(in string, words ...string) (code int, out, said string) {
	m.t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(m.t.Context(), Process{
		Args: words, Stdin: strings.NewReader(in), Stdout: &stdout, Stderr: &stderr, Version: "test",
		Getenv: func(name string) string { return m.env[name] }, Directory: func() (string, error) { return m.dir, nil },
		Browser: browser(func(address string) { m.open = append(m.open, address) }),
	})
	return code, stdout.String(), stderr.String()
}

// devpilotAt answers by method and path; a path that it lacks is refused with 404.
func devpilotAt(t *testing.T, answers map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer dp_good" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"detail":"The key is not valid.","reason":"UNAUTHENTICATED"}`)
			return
		}
		answer, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"detail":"There is no such app.","reason":"APP_NOT_FOUND"}`)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const me = `{"kind":"API_KEY","label":"CI","subject":"api-key:1","workspaces":[{"id":"shop","role":"ADMIN","displayName":"Shop"}]}`

func TestLogin_keepsTheKeyWhereOnlyItsOwnerReads(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	address := devpilotAt(t, map[string]string{"GET /v1/me": me})
	if code, _, said := m.run("dp_bad\n", "login", address); code != CodeNotSignedIn || strings.Contains(said, "dp_bad") || !strings.Contains(said, "Next: devpilot login") {
		t.Fatalf("a wrong key: %d %s", code, said)
	}
	code, out, said := m.run("  dp_good\n", "login", address+"/")
	if code != CodeDone || !strings.Contains(out, "in workspace shop") || strings.Contains(out+said, "dp_good") {
		t.Fatalf("%d %q %q", code, out, said)
	}
	path := filepath.Join(m.dir, credentialsDir, credentialsFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file has mode %v: %v", info.Mode(), err)
	}
	if code, out, _ := m.run("", "whoami"); code != CodeDone || !strings.Contains(out, "shop (ADMIN)") {
		t.Errorf("whoami: %d %q", code, out)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, said := m.run("", "whoami"); code != CodeFailed || !strings.Contains(said, "chmod 600") {
		t.Errorf("a file that others may read: %d %q", code, said)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, said := m.run("", "logout"); code != CodeDone || !strings.Contains(out, "goes on working") { // others may have it too
		t.Errorf("logout: %d %q %q", code, out, said)
	}
	if raw, err := os.ReadFile(path); err != nil || strings.Contains(string(raw), "dp_good") {
		t.Errorf("after logout the file holds %s: %v", raw, err)
	}
	if code, _, said := m.run("", "--url", address, "whoami"); code != CodeNotSignedIn || !strings.Contains(said, "devpilot login") {
		t.Errorf("signed out: %d %q", code, said)
	}
}

func TestLogin_refusesAWorkspaceOfOthers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	address := devpilotAt(t, map[string]string{"GET /v1/me": me})
	if code, _, said := m.run("dp_good", "login", address, "--workspace", "other"); code != CodeFailed || !strings.Contains(said, "shop") {
		t.Errorf("%d %q", code, said)
	}
	if _, err := os.Stat(filepath.Join(m.dir, credentialsDir)); err == nil {
		t.Error("a key was kept")
	}
}

func TestEnvironment_isEnough(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = map[string]string{"DEVPILOT_URL": devpilotAt(t, map[string]string{"GET /v1/workspaces/shop/apps": `{"apps":[],"nextPageToken":""}`}), "DEVPILOT_KEY": "dp_good", "DEVPILOT_WORKSPACE": "shop"}
	for output, want := range map[string]string{"json": "[]", "yaml": "[]", "table": "APP  REPOSITORY  BRANCH  AUTO-DEPLOY  LIVE  LATEST  SYNC"} {
		if code, out, said := m.run("", "apps", "list", "--output", output); code != CodeDone || strings.TrimSpace(out) != want {
			t.Errorf("%s: %d %q %q", output, code, out, said)
		}
	}
}

func TestErrors_nameTheNextCommand(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = map[string]string{"DEVPILOT_URL": devpilotAt(t, nil), "DEVPILOT_KEY": "dp_good"}
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	for _, c := range []struct {
		words []string
		code  int
		want  string
	}{
		{[]string{"apps", "get", "wbe"}, CodeNotFound, "Next: devpilot apps list"},
		{[]string{"app"}, CodeUsage, "did you mean apps"},
		{[]string{"apps", "create", "web"}, CodeUsage, "repository"},
		{[]string{"apps", "lst"}, CodeUsage, "devpilot apps --help"},
		{[]string{"deploy"}, CodeUsage, "devpilot deploy APP"},
		{[]string{"deploy", "web", "--bramch", "x"}, CodeUsage, "Next: devpilot deploy --help"},
		{[]string{"log", "web", "zero"}, CodeUsage, `"zero"`},
		{[]string{"apps", "list", "--output", "xml"}, CodeUsage, "table, json or yaml"},
		{[]string{"apps", "delete", "web"}, CodeUsage, "--yes"},
		{[]string{"apps", "set", "web"}, CodeUsage, "--help"},
		{[]string{"apps", "variables", "set", "web", "TOKEN", "value", "--secret"}, CodeUsage, "standard input"},
		{[]string{"workspaces", "list", "--url", "https://user:secret@x"}, CodeUsage, "not an address"},
	} {
		if code, _, said := m.run("", c.words...); code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("%q: %d %q", c.words, code, said)
		}
	}
}

func TestDeploy_hasTheExitCodeOfItsDeployment(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{"COMPLETED": CodeDone, "FAILED": CodeDeployFailed, "CANCELLED": CodeCancelled, "SUPERSEDED": CodeSuperseded} {
		deployment := `{"app":"web","number":3,"state":"` + state + `","error":{"message":"npm failed","reason":"HOOK_FAILED"}}`
		m := newMachine(t)
		m.env = map[string]string{"DEVPILOT_KEY": "dp_good", "DEVPILOT_URL": devpilotAt(t, map[string]string{
			"POST /v1/workspaces/default/apps/web/deployments":      deployment,
			"GET /v1/workspaces/default/apps/web/deployments/3":     deployment,
			"GET /v1/workspaces/default/apps/web/deployments/3/log": `{"line":1,"stream":"STDOUT","text":"a\u001b[2Jb","time":"2026-01-01T00:00:00Z"}` + "\n" + `{"end":{"state":"` + state + `"}}` + "\n",
		})}
		code, out, said := m.run("", "deploy", "web")
		if code != want || !strings.Contains(out, "a�[2Jb") {
			t.Errorf("%s: %d %q %q", state, code, out, said)
		}
		if state == "FAILED" && (!strings.Contains(said, "npm failed") || !strings.Contains(said, "Next: devpilot log web 3")) {
			t.Errorf("failed: %q", said)
		}
	}
}

func TestOpen_opensThePage(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.env = map[string]string{"DEVPILOT_URL": "https://devpilot.test", "DEVPILOT_KEY": "dp_good"}
	if code, _, _ := m.run("", "open", "web", "3"); code != CodeDone || len(m.open) != 1 || m.open[0] != "https://devpilot.test/w/default/apps/web/deployments/3" {
		t.Errorf("%d %q", code, m.open)
	}
}

// Every way that something can be refused has a code of its own kind, whatever the reason.
func TestCode_ofEveryStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{401: CodeNotSignedIn, 403: CodeNotAllowed, 404: CodeNotFound, 409: CodeConflict, 412: CodeConflict, 429: CodeTryLater, 503: CodeTryLater, 504: CodeTryLater, 400: CodeUsage, 500: CodeFailed} {
		if got, _ := code(&devpilot.Error{Problem: devpilot.Problem{Status: status}}); got != want {
			t.Errorf("%d gives %d, want %d", status, got, want)
		}
	}
	if got, _ := code(errors.New("x")); got != CodeFailed {
		t.Errorf("any error gives %d", got)
	}
}

func TestReference_isTheProgram(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, got, _ := newMachine(t).run("", "reference"); got != string(want) {
		t.Error("REFERENCE.md is not what the program says; run make generate")
	}
}

func TestCompletion_isThere(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, out, said := newMachine(t).run("", "completion", shell); code != CodeDone || !strings.Contains(out, "devpilot") {
			t.Errorf("%s: %d %s", shell, code, said)
		}
	}
}

func TestTakes_whatIsItsOwn(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]bool{
		"": false, "run": false, "sign-in": false, "make-keys x": false, "certificates x": false, "--emulator": false, "-h": false, "--help": false, "version": false,
		"apps list": true, "help": true, "completion bash": true, "__complete a": true, "--url=x apps": true, "-o json apps": true, "--workspace x apps": true,
	} {
		if got := Takes(strings.Fields(words)); got != want {
			t.Errorf("%q: %v", words, got)
		}
	}
}

// A key does not go to another machine unencrypted, wherever the address and the key come from, unless somebody says so.
func TestKey_isNotSentUnencryptedToAnotherMachine(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"http://devpilot.example.com", "HTTP://devpilot.example.com:8080", "http://10.1.2.3:8080", "http://[fd00::1]:8080", "http://localhost.example.com", "http://127.0.0.1.example.com", "http://notlocalhost"} {
		m := newMachine(t)
		if code, _, said := m.run("dp_good\n", "login", address); code != CodeUsage || !strings.Contains(said, "--plain-http") {
			t.Errorf("login %s: %d %s", address, code, said)
		}
		m.env = map[string]string{"DEVPILOT_URL": address, "DEVPILOT_KEY": "dp_good"}
		if code, _, said := m.run("", "whoami"); code != CodeUsage || !strings.Contains(said, "is not encrypted") || strings.Contains(said, "dp_good") {
			t.Errorf("whoami at %s: %d %s", address, code, said)
		}
	}
	for address, plain := range map[string]bool{
		"http://127.0.0.1:1": false, "http://127.9.9.9:1": false, "http://[::1]:1": false, "http://localhost:1": false, "http://app.localhost:1": false,
		"https://devpilot.example.com": false, "http://devpilot.example.com": true,
	} {
		if err := (&app{plainHTTP: plain}).mayCarryKey(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
