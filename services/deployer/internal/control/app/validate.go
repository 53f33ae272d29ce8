package app

import (
	"context"
	"fmt"
	"iter"
	"regexp"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	defaultRetention = 5  // releases that an app keeps when nothing else is said
	maxRetention     = 50 // releases that an app may keep
	// maxApps is how many apps a workspace may have. Who creates several at once may get a few more.
	maxApps = 10_000
)

var (
	slugPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// check refuses what cannot be saved. All that is wrong is told at once, beside what was found
// before; each fault has a path into the request.
func (s *Service) check(ctx context.Context, a *storev1.App, faults *apierr.Faults) error {
	if !slugPattern.MatchString(a.GetId()) {
		faults.Add("appId", "use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter or digit")
	}
	if !uuidPattern.MatchString(a.GetRepository()) {
		faults.Add("app.repository", "give the repository's id: its UUID in lower case, without braces")
	}
	if a.GetRetention() < 1 || a.GetRetention() > maxRetention {
		faults.Add("app.retention", fmt.Sprintf("keep between 1 and %d releases", maxRetention))
	}
	if !slugPattern.MatchString(a.GetServer()) {
		faults.Add("app.server", "give the name of a server")
	}
	if err := rules.CheckBranch(a.GetBranch()); err != nil {
		faults.Add("app.branch", err.Error())
	}
	checkHooks("app.hooks", a.GetHooks(), faults)
	checkShared("app.sharedPaths", a.GetSharedPaths(), faults)
	checkRules("app.rules", a.GetRules(), faults)
	if d := a.GetSource().GetDirectory(); d != "" {
		if err := codeconfig.CheckDirectory(d); err != nil {
			faults.Add("app.source.directory", err.Error())
		}
	}
	checkSubmodules("app.source.submoduleWorkspaces", a.GetSource().GetSubmoduleWorkspaces(), faults)
	for field, err := range codeconfig.ServeFaults(codeconfig.Serve{Directory: a.GetServe().GetDirectory(), Fallback: a.GetServe().GetFallback()}) {
		faults.Add("app.serve."+field, err.Error())
	}
	if err := faults.Err(); err != nil {
		return err
	}
	known, err := s.cfg.Servers.Known(ctx, a.GetServer())
	if err != nil {
		return err
	}
	if !known {
		return apierr.Newf(apierr.ReasonServerUnknown, "There is no server %s. Choose one of the list, or start a deployer with --server %s.", a.GetServer(), a.GetServer())
	}
	return nil
}

// maxSubmoduleSources bounds how many Bitbucket workspaces and repositories submodules may come from.
const maxSubmoduleSources = 100

func checkSubmodules(path string, sources []string, faults *apierr.Faults) {
	if len(sources) > maxSubmoduleSources {
		faults.Add(path, fmt.Sprintf("name %d at most", maxSubmoduleSources))
		return
	}
	for i, s := range sources {
		if !address.ValidSubmoduleSource(s) {
			faults.Add(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is no Bitbucket workspace (such as acme-libs), nor a repository's full name (acme-libs/theme), nor *", s))
		}
	}
}

func checkHooks(path string, hooks []*deployerv1.DeploymentHook, faults *apierr.Faults) {
	if len(hooks) > codeconfig.MaxHooks {
		faults.Add(path, fmt.Sprintf("there are %d hooks, and at most %d are allowed", len(hooks), codeconfig.MaxHooks))
		return
	}
	seen := map[string]bool{}
	for i, h := range hooks {
		at := fmt.Sprintf("%s[%d].", path, i)
		for field, err := range codeconfig.HookFaults(settings.Hook(h)) {
			faults.Add(at+field, err.Error())
		}
		if seen[h.GetName()] {
			faults.Add(at+"name", codeconfig.HookNameTaken(h.GetName()))
		}
		seen[h.GetName()] = true
	}
}

func checkShared(path string, shared []string, faults *apierr.Faults) {
	if len(shared) > codeconfig.MaxSharedPaths {
		faults.Add(path, fmt.Sprintf("there are %d shared paths, and at most %d are allowed", len(shared), codeconfig.MaxSharedPaths))
		return
	}
	for i := range shared {
		if err := codeconfig.CheckSharedPathAmong(shared[i], shared[:i]); err != nil {
			faults.Add(fmt.Sprintf("%s[%d]", path, i), err.Error())
		}
	}
}

func checkRules(path string, r *deployerv1.AppRules, faults *apierr.Faults) {
	for _, list := range []struct {
		field  string
		faults iter.Seq2[int, error]
	}{
		{".tags", rules.TagFaults(r.GetTags())},
		{".paths", rules.PathFaults(r.GetPaths())},
		{".pathsIgnore", rules.PathFaults(r.GetPathsIgnore())},
		{".skip.phrases", rules.PhraseFaults(r.GetSkip().GetPhrases())},
	} {
		for i, err := range list.faults {
			at := path + list.field
			if i >= 0 {
				at += fmt.Sprintf("[%d]", i)
			}
			faults.Add(at, err.Error())
		}
	}
}

func withDefaults(a *storev1.App) {
	if a.GetServer() == "" {
		a.Server = fleet.DefaultServer
	}
	if a.GetRetention() == 0 {
		a.Retention = defaultRetention
	}
}
