package decide

import (
	"context"
	"errors"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Names knows what repositories are called.
type Names interface {
	FullName(ctx context.Context, workspace, repository string) (string, error)
}

// Mirrors are the worker's copies of repositories.
type Mirrors interface {
	Changes(ctx context.Context, req mirror.ChangesRequest) (mirror.Changes, error)
	File(ctx context.Context, src mirror.Source, name string, most int64) ([]byte, error)
	Heads(ctx context.Context, workspace, fullName string, want remote.Wanted) (remote.Heads, error)
}

// Git is policy.Git by the worker's mirrors. What it fetches, a deployment then finds there.
type Git struct {
	Mirrors Mirrors
	Names   Names
}

// Changes implements policy.Git.
func (g Git) Changes(ctx context.Context, a *storev1.App, p policy.Push) (rules.Changes, error) {
	fullName, err := g.Names.FullName(ctx, a.GetWorkspace(), a.GetRepository())
	if err != nil {
		return rules.Changes{}, err
	}
	c, err := g.Mirrors.Changes(ctx, mirror.ChangesRequest{
		Workspace: a.GetWorkspace(), Repository: a.GetRepository(), FullName: fullName, Branch: p.Branch, Tag: p.Tag, Old: p.Old, New: p.New,
	})
	if err != nil {
		return rules.Changes{}, err
	}
	return rules.Changes{Paths: c.Paths, Truncated: c.Truncated, BaseUnknown: c.BaseUnknown, First: c.First, Message: c.Message}, nil
}

// File implements policy.Git.
func (g Git) File(ctx context.Context, a *storev1.App, p policy.Push, name string, most int64) ([]byte, error) {
	fullName, err := g.Names.FullName(ctx, a.GetWorkspace(), a.GetRepository())
	if err != nil {
		return nil, err
	}
	b, err := g.Mirrors.File(ctx, mirror.Source{
		Workspace: a.GetWorkspace(), Repository: a.GetRepository(), FullName: fullName, Branch: p.Branch, Tag: p.Tag, Commit: p.New,
	}, name, most)
	if errors.Is(err, tree.ErrNotInTree) {
		return nil, policy.ErrNoFile
	}
	return b, err
}

// Head asks Bitbucket where a branch or tag is; empty where there is none.
func (g Git) Head(ctx context.Context, workspace, repository string, ref lane.Ref) (string, error) {
	fullName, err := g.Names.FullName(ctx, workspace, repository)
	if err != nil {
		return "", err
	}
	is := func(name string) bool { return name == ref.Name() }
	if ref.IsTag() {
		heads, err := g.Mirrors.Heads(ctx, workspace, fullName, remote.Wanted{Tag: is})
		return heads.Tags[ref.Name()], err
	}
	heads, err := g.Mirrors.Heads(ctx, workspace, fullName, remote.Wanted{Branch: is})
	return heads.Branches[ref.Name()], err
}

// Rules hold apps' rules against single pushes, with the time that git has for each.
type Rules struct {
	Git policy.Git
	Now func() time.Time
}

// Decide implements pipeline.Policy.
func (r Rules) Decide(ctx context.Context, a *storev1.App, p policy.Push) (rules.Verdict, error) {
	return policy.Decide(ctx, policy.Within(r.Git, r.Now().Add(policy.Timeout)), a, p)
}
