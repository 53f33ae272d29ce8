package deployer

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/worker"
	"devpilot.io/bitbucket/services/deployer/internal/worker/host"
)

// What `devpilot doctor` asks of a machine on which no deployer needs to run.

// CheckGit checks that git runs and is new enough.
func CheckGit(ctx context.Context) checkup.Check { return host.Git(ctx) }

// CheckSandbox runs a hook that does nothing, as a worker with these settings runs hooks.
func CheckSandbox(h Hooks) checkup.Check { return worker.CheckSandbox(h) }

// CheckDisk checks the room for releases in a data directory, which need not be there yet. reserve is how many bytes stay
// free.
func CheckDisk(dataDir string, reserve uint64) checkup.Check {
	dir, err := filepath.Abs(dataDir)
	at := dir
	for err == nil {
		if _, missing := os.Stat(at); !errors.Is(missing, os.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at) // it is made in there
	}
	var free uint64
	if err == nil {
		free, err = release.FreeBytes(at)
	}
	return host.Disk(dir, free, reserve, err)
}
