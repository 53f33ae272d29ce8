package deployer

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/worker"
)

// MinGit is the oldest git that workers are tested with, major and minor version.
const MinGit = "2.39"

var gitVersion = regexp.MustCompile(`\b(\d+)\.(\d+)(\.\d+)*\b`)

// GitVersion asks the git program for its version, and tells whether that is MinGit or newer.
func GitVersion(ctx context.Context) (version string, enough bool, err error) {
	out, err := exec.CommandContext(ctx, "git", "--version").Output()
	if err != nil {
		return "", false, fmt.Errorf("git does not run: %w", err)
	}
	m := gitVersion.FindStringSubmatch(string(out))
	if m == nil {
		return "", false, fmt.Errorf("git does not say its version but %.80q", out)
	}
	least := strings.Split(MinGit, ".")
	major, minor := number(m[1]), number(m[2])
	return m[0], major > number(least[0]) || major == number(least[0]) && minor >= number(least[1]), nil
}

func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// TrySandbox runs a hook that does nothing as a worker with these settings runs hooks. It says where hooks
// run, and what they lack though they may have it; the error says why they do not run in a sandbox.
func TrySandbox(h Hooks) (where, lacking string, err error) { return worker.TrySandbox(h) }

// FreeDisk is how many bytes an ordinary user may still write to the volume of a directory.
func FreeDisk(dir string) (uint64, error) { return release.FreeBytes(dir) }
