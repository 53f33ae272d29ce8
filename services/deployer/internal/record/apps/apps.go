// Package apps reads what people saved, and keeps what both roles find out about an app and its
// repository: the repository's name, whether it can be reached, and what .devpilot.yaml said.
// Saving apps is internal/control/app's.
//
// Depends on pkg/kv, internal/record/store, internal/record/lane, internal/record/reminder and
// internal/record/rules.
package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/keymutex"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// Repositories is the repo service; its errors are apierr's.
type Repositories interface {
	Repository(ctx context.Context, workspace, repository string) (*repov1.Repository, error)
}

// Reminders has things reconciled later.
type Reminders interface {
	Touch(ctx context.Context, kind reminder.Kind, workspace, name string, at time.Time) (uint64, error)
}

// Records are the apps' records. They are safe for concurrent use.
type Records struct {
	Store        *store.Store
	Repositories Repositories
	Reminders    Reminders
	Keyset       *seal.Keyset // opens secret variables
	Now          func() time.Time
	// Learn is told which Bitbucket workspace a repository is in; may be nil.
	Learn func(workspace, fullName, bitbucketWorkspace string)

	naming keymutex.Map // of repositories whose name Bitbucket is asked for
}

// NotFound is the answer about an app that is not there.
func NotFound(k lane.Key) error {
	return apierr.Newf(apierr.ReasonAppNotFound, "Workspace %s has no app %s.", k.Workspace, k.App)
}

// Load reads an app's record and its revision; APP_NOT_FOUND when it is gone.
func (r *Records) Load(ctx context.Context, k lane.Key) (*storev1.App, uint64, error) {
	a, rev, err := r.Store.Apps.Get(ctx, k.String())
	switch {
	case isAbsent(err):
		return nil, 0, NotFound(k)
	case err != nil:
		return nil, 0, fmt.Errorf("apps: read %s: %w", k, err)
	}
	return a, rev, nil
}

// App returns what people saved; APP_NOT_FOUND when it is gone.
func (r *Records) App(ctx context.Context, k lane.Key) (*storev1.App, error) {
	a, _, err := r.Load(ctx, k)
	return a, err
}

// Associated ties the sealed value of a secret variable to its place: the app, the name, and the
// branches that it is for, if it is not for all.
func Associated(a *storev1.App, name, branches string) []byte {
	place := "deployer-variable." + a.GetWorkspace() + "." + a.GetId() + "." + name
	if branches != "" {
		place += "." + branches // names have no dot
	}
	return []byte(place)
}

// ForBranch are the variables that a deployment of a branch has, each name once, in the order of the
// list: the value for the branch's own name, else that of the first glob that matches, else the one for
// all branches. A tag has no branch ("") and only the latter.
func ForBranch(all []*storev1.Variable, branch string) []*storev1.Variable {
	rank := func(v *storev1.Variable) int {
		switch {
		case v.GetBranches() == "":
			return 1
		case branch == "" || !rules.MatchBranch(v.GetBranches(), branch):
			return 0
		case rules.IsGlob(v.GetBranches()):
			return 2
		default:
			return 3
		}
	}
	var out []*storev1.Variable
	for _, v := range all {
		of := rank(v)
		if of == 0 {
			continue
		}
		i := slices.IndexFunc(out, func(x *storev1.Variable) bool { return x.GetName() == v.GetName() })
		switch {
		case i < 0:
			out = append(out, v)
		case of > rank(out[i]):
			out[i] = v
		}
	}
	return out
}

// Variables are the values for the hooks of a deployment of a branch, "" for that of a tag.
func (r *Records) Variables(a *storev1.App, branch string) ([]settings.Variable, error) {
	var out []settings.Variable
	for _, v := range ForBranch(a.GetVariables(), branch) {
		x := settings.Variable{Name: v.GetName(), Value: seal.NewSecret(v.GetValue())}
		if len(v.GetSealed()) > 0 {
			b, err := r.Keyset.Open(v.GetSealed(), Associated(a, v.GetName(), v.GetBranches()))
			if err != nil {
				return nil, fmt.Errorf("apps: open variable %s: %w", v.GetName(), err)
			}
			x.Value, x.Secret = seal.NewSecret(string(b)), true
		}
		out = append(out, x)
	}
	return out, nil
}

// Serve is what of a kept release is served: what its own file said, or else what the app says.
// nil when the release is not kept.
func Serve(a *storev1.App, l *storev1.Lane, number int32) *deployerv1.ServeOptions {
	for _, k := range l.GetKept() {
		if k.GetNumber() == number {
			return ServeKept(a, k)
		}
	}
	return nil
}

// ServeKept is what of a kept release is served: what its own file said, or else what the app says.
func ServeKept(a *storev1.App, k *storev1.Kept) *deployerv1.ServeOptions {
	if k.GetServe() != nil {
		return k.GetServe()
	}
	if a.GetServe() != nil {
		return a.GetServe()
	}
	return &deployerv1.ServeOptions{}
}

// Shared are the paths that a kept release shares with the others: what its own file said, while the
// app lets that count, or else what the app says.
func Shared(a *storev1.App, k *storev1.Kept) []string {
	if a.GetConfigAsCode() && k.GetShared() != nil {
		return k.GetShared().GetPaths()
	}
	return a.GetSharedPaths()
}

func isAbsent(err error) bool { return errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrBadKey) }
