package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/cli"
)

var shownCode = regexp.MustCompile(`(?m)^ {2}([A-Z]{4}-[A-Z]{4})$`)

// waiting is a devpilot login that waits for somebody to approve it.
type waiting struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  recorder
	code string
}

// beginLogin runs the program as it ships, on a machine that has no browser.
func beginLogin(t *testing.T, home, address string) *waiting {
	t.Helper()
	w := &waiting{t: t, cmd: exec.Command(program(t, "devpilot"), "login", address, "--browser")}
	w.cmd.Env = []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "PATH=/nowhere"}
	w.cmd.Stdout, w.cmd.Stderr, w.cmd.WaitDelay = &w.out, &w.out, 5*time.Second
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cmd.Process.Kill() }) // ended by then
	testkit.Eventually(t, timeout, func() error {
		found := shownCode.FindStringSubmatch(w.out.String())
		if found == nil {
			return fmt.Errorf("it shows no code: %s", w.out.String())
		}
		w.code = found[1]
		return nil
	})
	return w
}

// ends waits for the command's end and holds it against what is to come of it.
func (w *waiting) ends(code int, want string) {
	w.t.Helper()
	err := w.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	if got := w.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(w.out.String(), want) {
		w.t.Fatalf("devpilot login ended with %d, want %d, and %q:\n%s", got, code, want, w.out.String())
	}
	if said := w.out.String(); strings.Contains(said, "dpk_") || strings.Contains(said, "dpl_") {
		w.t.Fatalf("it shows a secret:\n%s", said)
	}
}

// devpilot login as it ships: approved, denied and interrupted; Devpilot is killed while it waits, and nothing is lost.
func TestLogin_throughABrowser(t *testing.T) {
	t.Parallel()
	home := testkit.FastDir(t)
	dir := filepath.Join(home, "data")
	d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN="+loopback(t))
	token, err := os.ReadFile(allinone.AdminTokenFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	person := newBrowser(t, address).signIn(strings.TrimSpace(string(token)))

	w := beginLogin(t, home, address)
	d.kill()
	d.start()
	asks := person.get("/v1/loginRequests/" + w.code)
	if asks["state"] != "PENDING" || asks["address"] != "127.0.0.1" || asks["clientName"] == "" {
		t.Errorf("the person sees %v", asks)
	}
	person.must(http.MethodPost, "/v1/workspaces/default/loginRequests/"+w.code+":approve", object{"scope": "READ"})
	d.kill() // the decision outlives it too
	d.start()
	w.ends(cli.CodeDone, "in workspace default, with the scope READ")

	var kept struct {
		Servers map[string]struct{ Key, Workspace string }
	}
	raw, err := os.ReadFile(filepath.Join(home, "devpilot", "credentials.json"))
	if err != nil || json.Unmarshal(raw, &kept) != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	key := kept.Servers[address].Key
	if !strings.HasPrefix(key, "dpk_") || kept.Servers[address].Workspace != "default" {
		t.Fatalf("kept %s", raw)
	}
	for place, text := range map[string]string{"the log": d.log.String(), "the store": everything(t, dir)} {
		if strings.Contains(text, key) || strings.Contains(text, "dpl_") {
			t.Errorf("%s has a secret", place)
		}
	}
	whoami := exec.Command(program(t, "devpilot"), "whoami")
	whoami.Env = w.cmd.Env
	if said, err := whoami.CombinedOutput(); err != nil || !bytes.Contains(said, []byte("READ")) || !bytes.Contains(said, []byte("devpilot on")) {
		t.Errorf("whoami: %v: %s", err, said)
	}

	logout := exec.Command(program(t, "devpilot"), "logout")
	logout.Env = w.cmd.Env
	if said, err := logout.CombinedOutput(); err != nil || !bytes.Contains(said, []byte("its key is ended")) {
		t.Errorf("logout: %v: %s", err, said)
	}
	if list := objects(person.get("/v1/workspaces/default/apiKeys")["apiKeys"]); len(list) != 0 {
		t.Errorf("after logout there are the keys %v", list)
	}

	w = beginLogin(t, home, address)
	person.must(http.MethodPost, "/v1/loginRequests/"+w.code+":deny", object{})
	w.ends(cli.CodeNotAllowed, "Next: devpilot login")

	w = beginLogin(t, home, address)
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	w.ends(cli.CodeInterrupted, "interrupted")
	d.terminate()
}

// everything is what all files below a directory hold.
func everything(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() { // files come and go
			raw, _ := os.ReadFile(path)
			all.Write(raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
