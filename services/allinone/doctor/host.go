package doctor

import (
	"context"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/services/deployer"
)

// deploys tells whether the program runs deployments on this machine; c says why not.
func (x *exam) deploys() (c checkup.Check, does bool) {
	switch {
	case x.flags.Service != whole && x.flags.Service != "deployer":
		return checkup.Skip("%s deploys nothing.", x.flags.Service), false
	case !x.flags.Has("worker"):
		return checkup.Skip("Without the role worker (DEVPILOT_ROLES) nothing is deployed here."), false
	}
	return checkup.Check{}, true
}

// git checks that git runs and is new enough; also without the role worker, which asks for branches.
func (x *exam) git(ctx context.Context) checkup.Check {
	if c, does := x.deploys(); !does && x.flags.Service != "deployer" && x.flags.Service != whole {
		return c
	}
	return deployer.CheckGit(ctx)
}

// sandbox runs a hook that does nothing.
func (x *exam) sandbox(context.Context) checkup.Check {
	if c, does := x.deploys(); !does {
		return c
	}
	return deployer.CheckSandbox(deployer.HooksOf(x.flags.HookFlags))
}

// disk checks the room for releases.
func (x *exam) disk(context.Context) checkup.Check {
	if c, does := x.deploys(); !does {
		return c
	}
	return deployer.CheckDisk(x.flags.DataDir, uint64(x.flags.DiskReserve)<<20)
}
