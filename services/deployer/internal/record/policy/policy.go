// Package policy decides whether a push to an app deploys: it puts the app's rules, those of its
// .devpilot.yaml, and what git knows of the push together (DESIGN.md#deciding).
//
// What git must be asked for is fetched into the mirror, which the deployment then finds there. A
// push is never turned away because git could not be asked: it then deploys, and a note says why.
//
// Depends on internal/record/rules, internal/record/settings and the interfaces below.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Git knows what a push changed.
type Git interface {
	Changes(ctx context.Context, req mirror.ChangesRequest) (mirror.Changes, error)
	// File returns a file of a commit of the branch; mirror.ErrNotInTree when the commit has none.
	File(ctx context.Context, src mirror.Source, name string, most int64) ([]byte, error)
}

// Names knows what repositories are called.
type Names interface {
	FullName(ctx context.Context, workspace, repository string) (string, error)
}

// Gate is safe for concurrent use.
type Gate struct {
	Git    Git
	Names  Names
	Logger *slog.Logger
	// Patience bounds the questions about one push; 15 s when zero.
	Patience time.Duration
}

// Push is one change of a branch or a tag.
type Push struct {
	Branch, Tag string
	Old, New    string
	Created     bool
	Forced      bool
	// Message of the new commit, if it is known.
	Message      string
	MessageKnown bool
	// Paths are what changed, where no commits are known: a dry run.
	Paths []string
}

// Decide evaluates the app's rules. It fails only when ctx is done.
func (g *Gate) Decide(ctx context.Context, a *storev1.App, p Push) (rules.Verdict, error) {
	r := settings.Rules(a, settings.Of(a))
	asking, cancel := context.WithTimeout(ctx, g.patience())
	defer cancel()
	var notes []string
	if a.GetConfigAsCode() && p.Branch != "" && p.New != "" && rules.MatchBranch(r.Branch, p.Branch) {
		var note string
		if r, note = g.fromFile(asking, a, r, p); note != "" {
			notes = append(notes, note)
		}
	}
	v, err := rules.Evaluate(ctx, r, rules.Push{
		Branch: p.Branch, Tag: p.Tag, Old: p.Old, New: p.New, Created: p.Created, Forced: p.Forced,
		Message: p.Message, MessageKnown: p.MessageKnown,
		Changes: func(context.Context) (rules.Changes, error) { return g.changes(asking, a, p) },
	})
	if err != nil {
		return rules.Verdict{}, err
	}
	if v.Unknown != nil {
		g.Logger.WarnContext(ctx, "what a push changed is not known, it deploys", slog.String(logs.KeyApp, a.GetId()), logs.Err(v.Unknown))
	}
	v.Notes = append(notes, v.Notes...)
	return v, nil
}

func (g *Gate) patience() time.Duration {
	if g.Patience != 0 {
		return g.Patience
	}
	return 15 * time.Second
}

// fromFile replaces rules by those of the pushed commit's file. A file that is not valid replaces
// nothing: its deployment then fails and says so, which a push that nobody hears of would not.
func (g *Gate) fromFile(ctx context.Context, a *storev1.App, r rules.Rules, p Push) (rules.Rules, string) {
	name := settings.FileOf(a)
	src, err := g.source(ctx, a, p)
	if err != nil {
		return r, fmt.Sprintf("%s could not be read; the app's own rules hold.", name)
	}
	b, err := g.Git.File(ctx, src, name, codeconfig.MaxSize)
	if errors.Is(err, mirror.ErrNotInTree) {
		return r, ""
	}
	if err != nil {
		g.Logger.InfoContext(ctx, "file of settings not read", slog.String(logs.KeyApp, a.GetId()), logs.Err(err))
		return r, fmt.Sprintf("%s could not be read; the app's own rules hold.", name)
	}
	f, err := codeconfig.Parse(name, b)
	if err != nil {
		return r, fmt.Sprintf("%s is not valid; the app's own rules hold.", name)
	}
	return settings.Rules(a, settings.Effective(a, f)), ""
}

func (g *Gate) source(ctx context.Context, a *storev1.App, p Push) (mirror.Source, error) {
	fullName, err := g.Names.FullName(ctx, a.GetWorkspace(), a.GetRepository())
	if err != nil {
		return mirror.Source{}, err
	}
	return mirror.Source{Workspace: a.GetWorkspace(), Repository: a.GetRepository(), FullName: fullName, Branch: p.Branch, Tag: p.Tag, Commit: p.New}, nil
}

func (g *Gate) changes(ctx context.Context, a *storev1.App, p Push) (rules.Changes, error) {
	if p.New == "" {
		return rules.Changes{Paths: p.Paths, Message: p.Message, First: len(p.Paths) == 0}, nil
	}
	src, err := g.source(ctx, a, p)
	if err != nil {
		return rules.Changes{}, err
	}
	c, err := g.Git.Changes(ctx, mirror.ChangesRequest{
		Workspace: src.Workspace, Repository: src.Repository, FullName: src.FullName, Branch: src.Branch, Tag: src.Tag, Old: p.Old, New: p.New,
	})
	if err != nil {
		return rules.Changes{}, err
	}
	return rules.Changes{Paths: c.Paths, Truncated: c.Truncated, BaseUnknown: c.BaseUnknown, First: c.First, Message: c.Message}, nil
}

// Response is a verdict as the API tells it.
func Response(v rules.Verdict) *deployerv1.CheckPushResponse {
	out := &deployerv1.CheckPushResponse{Deploys: v.Deploys, Reason: v.Reason, Message: v.Message, Notes: v.Notes}
	for _, c := range v.Checks {
		out.Checks = append(out.Checks, &deployerv1.PushCheck{Rule: c.Rule, Passed: c.Passed, Message: c.Message})
	}
	return out
}
