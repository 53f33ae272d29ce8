// Package policy decides whether a push to an app deploys: it puts the app's rules, those of its
// .devpilot.yaml, and what git knows of the push together (DESIGN.md#deciding).
//
// Most pushes are decided without git ([Quick]). The others are decided by who has the repository
// ([Decide]). A push is never turned away because git could not be asked: it then deploys, and a note
// says why.
//
// Depends on internal/record/rules, internal/record/settings, internal/record/codeconfig and the
// interface below.
package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Timeout bounds what git is asked about one app's pushes; those that it leaves unanswered deploy.
const Timeout = 15 * time.Second

// Git knows what a push changed.
type Git interface {
	Changes(ctx context.Context, a *storev1.App, p Push) (rules.Changes, error)
	// File returns a file of the pushed commit, at most so many bytes of it; ErrNoFile when there is none.
	File(ctx context.Context, a *storev1.App, p Push, name string, most int64) ([]byte, error)
}

// ErrNoFile says that a commit has no such file.
var ErrNoFile = errors.New("policy: the commit has no such file")

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

// Of is the push that a lane is asked about.
func Of(l *storev1.Lane, a lane.Request) Push {
	return Push{
		Branch: a.Branch, Tag: a.Tag, Old: lane.OldOf(l, a), New: a.Commit.GetHash(), Created: a.Created, Forced: a.Forced,
		Message: a.Commit.GetMessage(), MessageKnown: a.MessageKnown,
	}
}

// errNeedsGit ends a decision for which the repository is needed.
var errNeedsGit = errors.New("policy: the repository is needed")

// Quick decides about a push where no rule needs the repository; else it tells false.
func Quick(ctx context.Context, a *storev1.App, p Push) (v rules.Verdict, decided bool, err error) {
	v, err = Decide(ctx, nowhere{errNeedsGit}, a, p)
	return v, !errors.Is(v.Unknown, errNeedsGit), err
}

// errUnread is why a push deploys whose repository nobody could read.
var errUnread = errors.New("policy: the repository was not read")

// Unread decides about a push without the repository: rules that need it let it through, with a note.
func Unread(ctx context.Context, a *storev1.App, p Push) (rules.Verdict, error) {
	return Decide(ctx, nowhere{errUnread}, a, p)
}

// nowhere is a repository that cannot be asked.
type nowhere struct{ why error }

func (n nowhere) Changes(context.Context, *storev1.App, Push) (rules.Changes, error) {
	return rules.Changes{}, n.why
}

func (n nowhere) File(context.Context, *storev1.App, Push, string, int64) ([]byte, error) {
	return nil, n.why
}

// Decide evaluates the app's rules. It fails only when ctx is done. What git could not be asked is the
// verdict's Unknown.
func Decide(ctx context.Context, git Git, a *storev1.App, p Push) (rules.Verdict, error) {
	r := settings.Rules(a, settings.Of(a))
	var notes []string
	var unread error
	if a.GetConfigAsCode() && p.Branch != "" && p.New != "" && rules.MatchBranch(r.Branch, p.Branch) {
		var note string
		if r, note, unread = fromFile(ctx, git, a, r, p); note != "" {
			notes = append(notes, note)
		}
	}
	v, err := rules.Evaluate(ctx, r, rules.Push{
		Branch: p.Branch, Tag: p.Tag, Old: p.Old, New: p.New, Created: p.Created, Forced: p.Forced,
		Message: p.Message, MessageKnown: p.MessageKnown,
		Changes: func(ctx context.Context) (rules.Changes, error) {
			if p.New == "" {
				return rules.Changes{Paths: p.Paths, Message: p.Message, First: len(p.Paths) == 0}, nil
			}
			return git.Changes(ctx, a, p)
		},
	})
	if err != nil {
		return rules.Verdict{}, err
	}
	if v.Unknown == nil {
		v.Unknown = unread
	}
	v.Notes = append(notes, v.Notes...)
	return v, nil
}

// fromFile replaces rules by those of the pushed commit's file. A file that is not valid replaces
// nothing: its deployment then fails and says so, which a push that nobody hears of would not.
func fromFile(ctx context.Context, git Git, a *storev1.App, r rules.Rules, p Push) (_ rules.Rules, note string, unread error) {
	name := settings.FileOf(a)
	b, err := git.File(ctx, a, p, name, codeconfig.MaxSize)
	if errors.Is(err, ErrNoFile) {
		return r, "", nil
	}
	if err != nil {
		return r, fmt.Sprintf("%s could not be read; the app's own rules hold.", name), err
	}
	f, err := codeconfig.Parse(name, b)
	if err != nil {
		return r, fmt.Sprintf("%s is not valid; the app's own rules hold.", name), nil //nolint:nilerr // what cannot be told now is told by a worker
	}
	return settings.Rules(a, settings.Effective(a, f)), "", nil
}

// Within bounds all that git is asked by a time.
func Within(git Git, deadline time.Time) Git { return bounded{git, deadline} }

type bounded struct {
	git      Git
	deadline time.Time
}

func (b bounded) Changes(ctx context.Context, a *storev1.App, p Push) (rules.Changes, error) {
	ctx, cancel := context.WithDeadline(ctx, b.deadline)
	defer cancel()
	return b.git.Changes(ctx, a, p)
}

func (b bounded) File(ctx context.Context, a *storev1.App, p Push, name string, most int64) ([]byte, error) {
	ctx, cancel := context.WithDeadline(ctx, b.deadline)
	defer cancel()
	return b.git.File(ctx, a, p, name, most)
}

// Response is a verdict as the API tells it.
func Response(v rules.Verdict) *deployerv1.CheckPushResponse {
	out := &deployerv1.CheckPushResponse{Deploys: v.Deploys, Reason: v.Reason, Message: v.Message, Notes: v.Notes}
	for _, c := range v.Checks {
		out.Checks = append(out.Checks, &deployerv1.PushCheck{Rule: c.Rule, Passed: c.Passed, Message: c.Message})
	}
	return out
}
