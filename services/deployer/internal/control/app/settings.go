package app

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/pasted"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// editable are the fields of an app that people save.
var editable = []string{
	"branch", "auto_deploy", "server", "retention", "hooks", "variables", "shared_paths", "rules", "source", "serve", "config_as_code",
	"cancel_running", "commit_status", "badge",
}

// readOnly are fields that a client may send back as it got them.
var readOnly = []string{
	"id", "workspace", "repository_full_name", "auto_deploy_paused", "webhook", "live", "latest", "warnings", "etag", "create_time", "update_time",
	"live_url", "code_config", "hook_runner", "badge_path",
}

// asMeant reads what people pasted: scripts and values keep their lines, all else is of one.
func asMeant(in *deployerv1.App) {
	pasted.Fields(in, map[protoreflect.FullName]func(string) string{
		"devpilot.deployer.v1.DeploymentHook.command": pasted.Text, "devpilot.deployer.v1.Variable.value": pasted.Value,
	})
}

// saved is the stored app as people save it, without its variables.
func saved(a *storev1.App) *deployerv1.App {
	return &deployerv1.App{
		Branch: a.GetBranch(), AutoDeploy: a.GetAutoDeploy(), Server: a.GetServer(), Retention: a.GetRetention(), Hooks: a.GetHooks(),
		SharedPaths: a.GetSharedPaths(), Rules: a.GetRules(), Source: a.GetSource(), Serve: a.GetServe(), ConfigAsCode: a.GetConfigAsCode(),
		CancelRunning: a.GetCancelRunning(), CommitStatus: proto.Bool(!a.GetCommitStatusOff()), Badge: a.GetBadge(),
	}
}

// save puts what people saved into the stored app; variables are not among it.
func save(a *storev1.App, in *deployerv1.App) {
	a.Branch, a.AutoDeploy, a.Server, a.Retention = in.GetBranch(), in.GetAutoDeploy(), in.GetServer(), in.GetRetention()
	a.Hooks, a.SharedPaths, a.Rules, a.Source, a.Serve = in.GetHooks(), in.GetSharedPaths(), in.GetRules(), in.GetSource(), in.GetServe()
	a.ConfigAsCode, a.CancelRunning, a.Badge = in.GetConfigAsCode(), in.GetCancelRunning(), in.GetBadge()
	a.CommitStatusOff = in.CommitStatus != nil && !in.GetCommitStatus()
}

// applyMask sets the fields that the mask names, such as rules or rules.paths; a mask that names
// nothing stands for what is set in the request, never for all. It tells whether the variables are
// among them.
func applyMask(a *storev1.App, req *deployerv1.UpdateAppRequest, faults *apierr.Faults) (variables bool) {
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = setIn("", req.GetApp().ProtoReflect())
	}
	in, out := req.GetApp(), proto.CloneOf(saved(a))
	for _, p := range paths {
		top, _, _ := strings.Cut(p, ".")
		switch {
		case p == "variables":
			variables = true
		case top != "variables" && slices.Contains(editable, top):
			if err := copyField(out.ProtoReflect(), in.ProtoReflect(), strings.Split(p, ".")); err != nil {
				faults.Add("updateMask", err.Error())
			}
		case top == "repository":
			if in.GetRepository() != a.GetRepository() {
				faults.Add("app.repository", "an app keeps its repository; make another app for another repository")
			}
		case !slices.Contains(readOnly, top):
			faults.Add("updateMask", fmt.Sprintf("%q is no field of an app", p))
		}
	}
	save(a, out)
	return variables
}

// setIn lists what is set in a message, as far down as anything is.
func setIn(path string, m protoreflect.Message) []string {
	var paths []string
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + string(f.Name())
		if f.Message() != nil && !f.IsList() && !f.IsMap() {
			paths = append(paths, setIn(at+".", v.Message())...)
		} else {
			paths = append(paths, at)
		}
		return true
	})
	slices.Sort(paths)
	return paths
}

// copyField copies the field at path; an absent one clears.
func copyField(to, from protoreflect.Message, path []string) error {
	f := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if f == nil {
		return fmt.Errorf("%q is no field of an app", strings.Join(path, "."))
	}
	if len(path) > 1 {
		// Of a list a part cannot be meant (AIP-161): taking it for the whole would drop the rest.
		if f.Message() == nil || f.IsList() {
			return fmt.Errorf("%q is no field of an app: name the list as a whole", strings.Join(path, "."))
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
