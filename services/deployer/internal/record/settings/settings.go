// Package settings turns what an app has saved, and what its .devpilot.yaml says, into what a
// deployment does.
//
// Depends on internal/record/codeconfig and internal/record/rules.
package settings

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Variable is one variable of an app's hooks.
type Variable struct {
	Name   string
	Value  seal.Secret
	Secret bool // masked in logs
}

// FileOf is where an app's file stands in its repository.
func FileOf(a *storev1.App) string {
	return path.Join(a.GetSource().GetDirectory(), codeconfig.FileName)
}

// Hook is a saved hook with its defaults.
func Hook(h *deployerv1.DeploymentHook) codeconfig.Hook {
	out := codeconfig.Hook{
		Name: h.GetName(), Stage: h.GetStage().String(), Command: h.GetCommand(), Priority: h.GetPriority(),
		Active: h.Active == nil || h.GetActive(), Timeout: time.Duration(h.GetTimeoutSeconds()) * time.Second,
	}
	if h.GetTimeoutSeconds() == 0 {
		out.Timeout = codeconfig.DefaultTimeout
	}
	return out
}

// Proto is the form of a hook in the API.
func Proto(h codeconfig.Hook) *deployerv1.DeploymentHook {
	return &deployerv1.DeploymentHook{
		Name: h.Name, Stage: deployerv1.Deployment_Stage(deployerv1.Deployment_Stage_value[h.Stage]), Command: h.Command, Priority: h.Priority,
		Active: proto.Bool(h.Active), TimeoutSeconds: int32(h.Timeout / time.Second), // an hour at most
	}
}

// Of are the settings that an app has saved.
func Of(a *storev1.App) codeconfig.Settings {
	s := codeconfig.Settings{
		SharedPaths: a.GetSharedPaths(), Paths: a.GetRules().GetPaths(), PathsIgnore: a.GetRules().GetPathsIgnore(),
		Serve: codeconfig.Serve{Directory: a.GetServe().GetDirectory(), Fallback: a.GetServe().GetFallback()},
	}
	if a.GetRules().GetSkip() != nil {
		s.SkipPhrases = append([]string{}, a.GetRules().GetSkip().GetPhrases()...)
	}
	for _, h := range a.GetHooks() {
		s.Hooks = append(s.Hooks, Hook(h))
	}
	return s
}

// Effective are an app's settings with those that its file replaces; f may be nil. The file has no
// hooks of the stages before the source is there: those stay the app's.
func Effective(a *storev1.App, f *codeconfig.File) codeconfig.Settings {
	own := Of(a)
	s, _ := codeconfig.Merge(own, f)
	if f.Sets(codeconfig.FieldHooks) {
		for _, h := range own.Hooks {
			if !slices.Contains(codeconfig.FileStages, h.Stage) {
				s.Hooks = append(s.Hooks, h)
			}
		}
	}
	return s
}

// Rules are the rules of an app with these settings.
func Rules(a *storev1.App, s codeconfig.Settings) rules.Rules {
	return rules.Rules{Branch: a.GetBranch(), Tags: a.GetRules().GetTags(), Paths: s.Paths, PathsIgnore: s.PathsIgnore, SkipPhrases: s.SkipPhrases}
}

// At are the hooks of a stage in the order in which they run.
func At(hooks []codeconfig.Hook, stage deployerv1.Deployment_Stage) []codeconfig.Hook {
	var out []codeconfig.Hook
	for _, h := range hooks {
		if h.Stage == stage.String() {
			out = append(out, h)
		}
	}
	slices.SortStableFunc(out, func(a, b codeconfig.Hook) int { return cmp.Compare(a.Priority, b.Priority) })
	return out
}

// apiFields are the names of the file's fields in the API.
var apiFields = map[codeconfig.Field]string{
	codeconfig.FieldHooks: "hooks", codeconfig.FieldSharedPaths: "sharedPaths", codeconfig.FieldPaths: "rules.paths",
	codeconfig.FieldPathsIgnore: "rules.pathsIgnore", codeconfig.FieldSkipPhrases: "rules.skip", codeconfig.FieldServe: "serve",
}

// Describe is what people see of a file: what it sets, or what is wrong with it.
func Describe(name, commit string, f *codeconfig.File, err error) *deployerv1.CodeConfig {
	out := &deployerv1.CodeConfig{Path: name, Commit: commit}
	var problems codeconfig.Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			out.Problems = append(out.Problems, &deployerv1.CodeConfigProblem{Line: int32(p.Line), Column: int32(p.Column), Message: p.Message}) // of a file of 64 KiB
		}
		return out
	case err != nil:
		out.Problems = append(out.Problems, &deployerv1.CodeConfigProblem{Message: err.Error()})
		return out
	}
	for _, field := range codeconfig.Fields {
		if !f.Sets(field) {
			continue
		}
		out.Fields = append(out.Fields, apiFields[field])
		s := f.Settings
		switch field {
		case codeconfig.FieldHooks:
			for _, h := range s.Hooks {
				out.Hooks = append(out.Hooks, Proto(h))
			}
		case codeconfig.FieldSharedPaths:
			out.SharedPaths = s.SharedPaths
		case codeconfig.FieldPaths, codeconfig.FieldPathsIgnore, codeconfig.FieldSkipPhrases:
			out.Rules = &deployerv1.AppRules{Paths: s.Paths, PathsIgnore: s.PathsIgnore}
			if s.SkipPhrases != nil {
				out.Rules.Skip = &deployerv1.SkipPhrases{Phrases: s.SkipPhrases}
			}
		case codeconfig.FieldServe:
			out.Serve = &deployerv1.ServeOptions{Directory: s.Serve.Directory, Fallback: s.Serve.Fallback}
		}
	}
	return out
}
