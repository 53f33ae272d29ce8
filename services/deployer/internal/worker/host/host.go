// Package host looks at the machine that a deployer runs on, for the doctor: its git, its sandbox for hooks and the room
// on its disk.
//
// Depends on pkg/checkup.
package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/checkup"
)

// MinGit is the oldest git that workers are tested with, major and minor version.
const MinGit = "2.39"

var gitVersion = regexp.MustCompile(`\b(\d+)\.(\d+)(\.\d+)*\b`)

// Git checks that git runs and is new enough.
func Git(ctx context.Context) checkup.Check {
	version, enough, err := askGit(ctx)
	const remedy = "Install git " + MinGit + " or newer (the package is called git)."
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return checkup.Fail("There is no git on the PATH: nothing can be fetched.", remedy)
	case err != nil:
		return checkup.Fail(err.Error()+".", remedy)
	case !enough:
		return checkup.Fail(fmt.Sprintf("git %s is too old.", version), remedy)
	}
	return checkup.Well("git %s.", version)
}

// askGit asks the git program for its version, and tells whether that is MinGit or newer.
func askGit(ctx context.Context) (version string, enough bool, err error) {
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

// Sandbox says what came of a hook that does nothing: where it ran and what it lacked, or why there is no sandbox. withoutToo
// tells that hooks run without one then.
func Sandbox(where, lacking string, err error, withoutToo bool) checkup.Check {
	switch {
	case err != nil && withoutToo:
		return checkup.Warn(sentence(err)+" Hooks run without a sandbox, as --allow-unsandboxed-hooks says.", "Install bubblewrap, so that hooks see nothing of this machine.")
	case err != nil:
		return checkup.Fail("Deployments with hooks fail: "+sentence(err), "Install bubblewrap 0.8 or newer and allow user namespaces (deploy/README.md, What hooks need). Apps without hooks deploy all the same.")
	case lacking != "":
		return checkup.Warn("A hook ran "+where+".", "Install slirp4netns, iproute2 and util-linux, and open /dev/net/tun to this user, or set DEVPILOT_HOOK_NETWORK=none.")
	}
	return checkup.Well("A hook ran %s.", where)
}

func sentence(err error) string {
	return strings.TrimSuffix(strings.TrimPrefix(err.Error(), "hook: "), ".") + "."
}

// Disk checks the room for releases on the volume of a directory: how many bytes are free, and how many stay free.
func Disk(dir string, free, reserve uint64, err error) checkup.Check {
	const mib = 20
	switch {
	case err != nil:
		return checkup.Fail(fmt.Sprintf("The volume of %s cannot be looked at: %v.", dir, err), "Name a directory that this user may read in DEVPILOT_DATA_DIR.")
	case free < reserve:
		return checkup.Fail(fmt.Sprintf("The volume of %s has %d MiB free, and %d MiB are to stay free (DEVPILOT_DISK_RESERVE_MIB): deployments wait.", dir, free>>mib, reserve>>mib), "Make room; deployments then go on by themselves.")
	}
	return checkup.Well("The volume of %s has %d MiB free; %d MiB are to stay free.", dir, free>>mib, reserve>>mib)
}
