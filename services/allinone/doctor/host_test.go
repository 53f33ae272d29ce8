package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/checkup"
)

func TestRun_machineThatIsNotWell(t *testing.T) {
	w := newWorld(t)
	w.fails([]failing{
		{"disk", "deployer", "disk", map[string]string{"DEVPILOT_DISK_RESERVE_MIB": "2147483647"}, checkup.Failed, "deployments wait", "Make room"},
		{"hooks without a network they ask for", "deployer", "sandbox", map[string]string{"DEVPILOT_HOOK_ALLOW": "nonsense"}, checkup.Failed, "--hook-allow", "bubblewrap"},
	})
}

// A program as old as the settings of a machine: git missing, too old, and no bubblewrap.
func TestRun_programsOfTheMachine(t *testing.T) {
	w := newWorld(t)
	empty := t.TempDir()
	t.Setenv("PATH", empty)
	r := w.report(nil, "--service=deployer")
	if c := r.check(t, "git"); c.State != checkup.Failed || !strings.Contains(c.Found, "no git on the PATH") {
		t.Errorf("%+v", c)
	}
	if c := r.check(t, "sandbox"); c.State != checkup.Failed || !strings.Contains(c.Found, "no bubblewrap") || !strings.Contains(c.Remedy, "Install bubblewrap") {
		t.Errorf("%+v", c)
	}
	if c := w.report(map[string]string{"DEVPILOT_ALLOW_UNSANDBOXED_HOOKS": "true"}, "--service=deployer").check(t, "sandbox"); c.State != checkup.Warning {
		t.Errorf("%+v", c)
	}
	if err := os.WriteFile(filepath.Join(empty, "git"), []byte("#!/bin/sh\necho git version 2.20.1\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	if c := w.report(nil, "--service=deployer").check(t, "git"); c.State != checkup.Failed || !strings.Contains(c.Found, "2.20.1 is too old") {
		t.Errorf("%+v", c)
	}
}
