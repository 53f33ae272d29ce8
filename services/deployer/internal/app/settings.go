package app

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// editable are the fields of an app that people save, and all that an update without a mask takes.
var editable = []string{
	"branch", "auto_deploy", "server", "retention", "hooks", "variables", "shared_paths", "rules", "source", "serve", "config_as_code",
	"cancel_running", "commit_status",
}

// readOnly are fields that a client may send back as it got them.
var readOnly = []string{
	"id", "workspace", "repository_full_name", "auto_deploy_paused", "webhook", "live", "latest", "warnings", "etag", "create_time", "update_time",
	"live_url", "code_config", "hook_runner",
}

// saved is the stored app as people save it, without its variables.
func saved(a *storev1.App) *deployerv1.App {
	return &deployerv1.App{
		Branch: a.GetBranch(), AutoDeploy: a.GetAutoDeploy(), Server: a.GetServer(), Retention: a.GetRetention(), Hooks: a.GetHooks(),
		SharedPaths: a.GetSharedPaths(), Rules: a.GetRules(), Source: a.GetSource(), Serve: a.GetServe(), ConfigAsCode: a.GetConfigAsCode(),
		CancelRunning: a.GetCancelRunning(), CommitStatus: proto.Bool(!a.GetCommitStatusOff()),
	}
}

// save puts what people saved into the stored app; variables are not among it.
func save(a *storev1.App, in *deployerv1.App) {
	a.Branch, a.AutoDeploy, a.Server, a.Retention = in.GetBranch(), in.GetAutoDeploy(), in.GetServer(), in.GetRetention()
	a.Hooks, a.SharedPaths, a.Rules, a.Source, a.Serve = in.GetHooks(), in.GetSharedPaths(), in.GetRules(), in.GetSource(), in.GetServe()
	a.ConfigAsCode, a.CancelRunning = in.GetConfigAsCode(), in.GetCancelRunning()
	a.CommitStatusOff = in.CommitStatus != nil && !in.GetCommitStatus()
}

// applyMask sets the fields that the mask names, such as rules or rules.paths; without a mask, all
// that can be changed. It tells whether the variables are among them.
func applyMask(a *storev1.App, req *deployerv1.UpdateAppRequest) (variables bool, err error) {
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = editable
	}
	in, out := req.GetApp(), proto.CloneOf(saved(a))
	for _, p := range paths {
		top, _, _ := strings.Cut(p, ".")
		switch {
		case p == "variables":
			variables = true
		case top != "variables" && slices.Contains(editable, top):
			if err := copyField(out.ProtoReflect(), in.ProtoReflect(), strings.Split(p, ".")); err != nil {
				return false, err
			}
		case top == "repository":
			if in.GetRepository() != a.GetRepository() {
				return false, apierr.InvalidArgument("app.repository", "an app keeps its repository; make another app for another repository")
			}
		case !slices.Contains(readOnly, top):
			return false, apierr.InvalidArgument("updateMask", fmt.Sprintf("%q is no field of an app", p))
		}
	}
	save(a, out)
	return variables, nil
}

// copyField copies the field at path; an absent one clears.
func copyField(to, from protoreflect.Message, path []string) error {
	f := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if f == nil {
		return apierr.InvalidArgument("updateMask", fmt.Sprintf("%q is no field of an app", strings.Join(path, ".")))
	}
	if len(path) > 1 {
		// Of a list a part cannot be meant (AIP-161): taking it for the whole would drop the rest.
		if f.Message() == nil || f.IsList() {
			return apierr.InvalidArgument("updateMask", fmt.Sprintf("%q is no field of an app: name the list as a whole", strings.Join(path, ".")))
		}
		return copyField(to.Mutable(f).Message(), from.Get(f).Message(), path[1:])
	}
	if !from.Has(f) {
		to.Clear(f)
		return nil
	}
	to.Set(f, from.Get(f))
	return nil
}

// checkSettings refuses hooks, paths, rules and options that cannot be saved.
func checkSettings(a *storev1.App) error {
	s := settings.Of(a)
	for i, h := range s.Hooks {
		if err := codeconfig.CheckHook(h); err != nil {
			return apierr.InvalidArgument(fmt.Sprintf("app.hooks[%d]", i), err.Error())
		}
	}
	if err := codeconfig.CheckHooks(s.Hooks); err != nil {
		return apierr.InvalidArgument("app.hooks", err.Error())
	}
	if err := codeconfig.CheckSharedPaths(s.SharedPaths); err != nil {
		return apierr.InvalidArgument("app.sharedPaths", err.Error())
	}
	if err := settings.Rules(a, s).Check(); err != nil {
		return apierr.InvalidArgument("app.rules", err.Error())
	}
	if d := a.GetSource().GetDirectory(); d != "" {
		if err := codeconfig.CheckDirectory(d); err != nil {
			return apierr.InvalidArgument("app.source.directory", err.Error())
		}
	}
	if err := checkSubmodules(a.GetSource().GetSubmoduleWorkspaces()); err != nil {
		return err
	}
	if err := codeconfig.CheckServe(s.Serve); err != nil {
		return apierr.InvalidArgument("app.serve", err.Error())
	}
	return nil
}

// maxSubmoduleSources bounds how many Bitbucket workspaces and repositories submodules may come from.
const maxSubmoduleSources = 100

func checkSubmodules(sources []string) error {
	if len(sources) > maxSubmoduleSources {
		return apierr.InvalidArgument("app.source.submoduleWorkspaces", fmt.Sprintf("name %d at most", maxSubmoduleSources))
	}
	for _, s := range sources {
		if !mirror.ValidSubmoduleSource(s) {
			return apierr.InvalidArgument("app.source.submoduleWorkspaces",
				fmt.Sprintf("%q is no Bitbucket workspace (such as acme-libs), nor a repository's full name (acme-libs/theme), nor *", s))
		}
	}
	return nil
}
