package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
)

// TestKinds_everyReasonOfGitSaysWhereItLies: a new reason has to say so as well.
func TestKinds_everyReasonOfGitSaysWhereItLies(t *testing.T) {
	files, err := filepath.Glob("../../engine/git/*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	constant := regexp.MustCompile(`(?m)^\s+Reason\w+ += "(\w+)"|^const Reason\w+ = "(\w+)"`)
	found := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constant.FindAllStringSubmatch(string(b), -1) {
			found++
			if _, ok := kinds[m[1]+m[2]]; !ok {
				t.Errorf("%s of %s is missing", m[1]+m[2], f)
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d reasons found", found)
	}
}

func TestDiagnose_whereAFailureLies(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		reason string
		want   kind
	}{
		"hook":                       {&failedHook{reason: reasonHookFailed}, "HOOK_FAILED", kind{inCommit, final}},
		"hook that did not run":      {&failedHook{reason: reasonHookFailed, server: true}, "HOOK_FAILED", kind{onServer, final}},
		"tree":                       {&remote.Error{Reason: remote.ReasonTreeRefused}, "TREE_REFUSED", kind{inCommit, final}},
		"submodule against rules":    {&remote.Error{Reason: remote.ReasonSubmoduleRefused}, "SUBMODULE_REFUSED", kind{inCommit, final}},
		"submodule not found":        {&remote.Error{Reason: remote.ReasonSubmoduleRefused, Doubtful: true}, "SUBMODULE_REFUSED", kind{atBitbucket, doubted}},
		"LFS refuses":                {&remote.Error{Reason: remote.ReasonLFSFailed, Doubtful: true}, "LFS_FAILED", kind{atBitbucket, doubted}},
		"not found":                  {&remote.Error{Reason: "REPOSITORY_NOT_FOUND"}, "REPOSITORY_NOT_FOUND", kind{atBitbucket, doubted}},
		"outside of a narrowing":     {&remote.Error{Reason: "BITBUCKET_WORKSPACE_EXCLUDED"}, "BITBUCKET_WORKSPACE_EXCLUDED", kind{atBitbucket, final}},
		"401 for one repository":     {&remote.Error{Reason: "ACCESS_REFUSED", Temporary: true, Doubtful: true}, "ACCESS_REFUSED", kind{atBitbucket, doubted}},
		"a mirror that is in use":    {&remote.Error{Reason: remote.ReasonGitFailed, Temporary: true}, "GIT_FAILED", kind{atBitbucket, passing}},
		"away":                       {&remote.Error{Reason: "BITBUCKET_UNAVAILABLE", Temporary: true}, "BITBUCKET_UNAVAILABLE", kind{atBitbucket, passing}},
		"a neighbour":                {apierr.New(apierr.ReasonServiceUnavailable, "x"), "SERVICE_UNAVAILABLE", kind{onServer, passing}},
		"disk":                       {fmt.Errorf("write: %w", syscall.ENOSPC), "DISK_FULL", kind{onServer, passing}},
		"the system":                 {fmt.Errorf("mkdir: %w", syscall.EIO), "RELEASE_FAILED", kind{onServer, doubted}},
		"a directory that is gone":   {fmt.Errorf("open: %w", syscall.ENOENT), "RELEASE_FAILED", kind{onServer, doubted}},
		"shared path":                {&release.SharedError{Path: "x"}, "RELEASE_FAILED", kind{inCommit, final}},
		"workers die":                {errPoison, "WORKER_DIED", kind{onServer, final}},
		"too long":                   {errTimeout, "DEPLOYMENT_TIMEOUT", kind{inCommit, final}},
		"a reason nobody thought of": {apierr.New(apierr.ReasonInternal, "x"), "INTERNAL", kind{onServer, doubted}},
	} {
		if got := classify(errors.Join(errors.New("while deploying"), c.err)); got.kind != c.want || got.reason != c.reason {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
