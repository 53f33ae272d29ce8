package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"devpilot.io/bitbucket/services/deployer"
)

// deploys tells whether the program runs deployments on this machine; c says why not.
func (x *exam) deploys() (c Check, does bool) {
	switch {
	case x.flags.Service != whole && x.flags.Service != "deployer":
		return skipped("%s deploys nothing.", x.flags.Service), false
	case !x.flags.Has("worker"):
		return skipped("Without the role worker (DEVPILOT_ROLES) nothing is deployed here."), false
	}
	return Check{}, true
}

// git checks that git runs and is new enough; also without the role worker, which asks for branches.
func (x *exam) git(ctx context.Context) Check {
	if c, does := x.deploys(); !does && x.flags.Service != "deployer" && x.flags.Service != whole {
		return c
	}
	version, enough, err := deployer.GitVersion(ctx)
	remedy := "Install git " + deployer.MinGit + " or newer (the package is called git)."
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return failed("There is no git on the PATH: nothing can be fetched.", remedy)
	case err != nil:
		return failed(err.Error()+".", remedy)
	case !enough:
		return failed(fmt.Sprintf("git %s is too old.", version), remedy)
	}
	return ok("git %s.", version)
}

// sandbox runs a hook that does nothing.
func (x *exam) sandbox(context.Context) Check {
	if c, does := x.deploys(); !does {
		return c
	}
	where, lacking, err := deployer.TrySandbox(deployer.HooksOf(x.flags.HookFlags))
	switch {
	case err != nil && x.flags.AllowUnsandboxedHooks:
		return warning(sentence(err)+" Hooks run without a sandbox, as --allow-unsandboxed-hooks says.", "Install bubblewrap, so that hooks see nothing of this machine.")
	case err != nil:
		return failed("Deployments with hooks fail: "+sentence(err), "Install bubblewrap 0.8 or newer and allow user namespaces (deploy/README.md, What hooks need). Apps without hooks deploy all the same.")
	case lacking != "":
		return warning("A hook ran "+where+".", "Install slirp4netns, iproute2 and util-linux, and open /dev/net/tun to this user, or set DEVPILOT_HOOK_NETWORK=none.")
	}
	return ok("A hook ran %s.", where)
}

func sentence(err error) string {
	return strings.TrimSuffix(strings.TrimPrefix(err.Error(), "hook: "), ".") + "."
}

// disk checks the room for releases.
func (x *exam) disk(context.Context) Check {
	if c, does := x.deploys(); !does {
		return c
	}
	dir, err := filepath.Abs(x.flags.DataDir)
	at := dir
	for err == nil {
		if _, missing := os.Stat(at); !errors.Is(missing, os.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at) // it is made in there
	}
	var free uint64
	if err == nil {
		free, err = deployer.FreeDisk(at)
	}
	if err != nil {
		return failed(fmt.Sprintf("The volume of %s cannot be looked at: %v.", dir, err), "Name a directory that this user may read in DEVPILOT_DATA_DIR.")
	}
	mib := int64(free >> 20)
	if mib < x.flags.DiskReserve {
		return failed(fmt.Sprintf("The volume of %s has %d MiB free, and %d MiB are to stay free (DEVPILOT_DISK_RESERVE_MIB): deployments wait.", dir, mib, x.flags.DiskReserve), "Make room; deployments then go on by themselves.")
	}
	return ok("The volume of %s has %d MiB free; %d MiB are to stay free.", dir, mib, x.flags.DiskReserve)
}
