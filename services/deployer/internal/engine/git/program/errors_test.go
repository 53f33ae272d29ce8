package program

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// TestErrors_sayWhy: no error ends where its cause should stand, and trouble of this machine is
// neither git's failure nor the mirror's.
func TestErrors_sayWhy(t *testing.T) {
	t.Parallel()
	ended := exec.Command("sh", "-c", "exit 128").Run()
	killed := exec.Command("sh", "-c", "kill -9 $$").Run()
	for _, f := range []*Failure{{Err: ended}, {Err: ended, Stderr: " \n\n"}, {Err: ended, Stderr: "fatal: odd\n"}, {Err: killed}, {Err: ended, Stderr: "error: index-pack died of signal 9\nfatal: fetch-pack: invalid index-pack output\n"}} {
		for _, err := range []error{f, LocalFailure(f), Unexplained(f), Unexplained(LocalFailure(f)), Unexplained(errors.New("other"))} {
			text := err.Error()
			if e, ok := remote.AsError(err); ok {
				text += "\n" + e.Message
			}
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); strings.HasSuffix(line, ":") || line == "" {
					t.Errorf("%q", text)
				}
			}
		}
	}
	for _, f := range []*Failure{{Err: killed}, {Err: ended, Stderr: "fatal: Out of memory, malloc failed (tried to allocate 1 bytes)"}, {Err: ended, Stderr: "error: cannot fork() for index-pack: Resource temporarily unavailable"}} {
		e, ok := remote.AsError(LocalFailure(f))
		if !ok || !e.Temporary || Mendable(LocalFailure(f)) || !strings.Contains(e.Message, "short of memory") {
			t.Errorf("%v", LocalFailure(f))
		}
	}
	for _, said := range []string{"fatal: Out of memory", "fatal: index-pack died of signal 9"} {
		if e := ownTrouble(&Failure{Err: ended, Stderr: "remote: " + said}); e != nil {
			t.Errorf("Bitbucket's trouble is taken for ours: %v", e)
		}
	}
	if err := fmt.Errorf("x: %w", errors.Join(ErrOutput, &Failure{Err: ended})); Mendable(err) {
		t.Error("a limit of ours costs a mirror")
	}
	g := &Git{program: "/nonexistent/git", Config: Config{Site: &url.URL{Scheme: "http", Host: "127.0.0.1:7990"}, Home: t.TempDir(), Observe: func(string, time.Duration, error) {}}}
	if e, ok := remote.AsError(g.Run(t.Context(), Command{Args: []string{"version"}})); !ok || !e.Temporary || !strings.Contains(e.Message, "no such file") {
		t.Errorf("%v", e)
	}
}
