package rules

import (
	"context"
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// DefaultSkipPhrases hold where an app names none.
var DefaultSkipPhrases = []string{"[skip deploy]", "[deploy skip]", "[skip ci]", "[ci skip]"}

// The rules, as a [Check] and a [Verdict] name them.
const (
	RuleBranch     = "BRANCH"
	RuleTag        = "TAG"
	RuleSkipPhrase = "SKIP_PHRASE"
	RulePaths      = "PATHS"
)

// Why a push does not deploy, as a delivery's outcome names it.
const (
	ReasonBranchNotWatched = "BRANCH_NOT_WATCHED"
	ReasonTagNotWatched    = "TAG_NOT_WATCHED"
	ReasonSkipPhrase       = "SKIP_PHRASE"
	ReasonPathsUnchanged   = "PATHS_UNCHANGED"
)

// Rules are an app's. See the package's comment for what they mean.
type Rules struct {
	// Branch is the branch that is watched, or a pattern of branches.
	Branch string
	// Tags are patterns of tags that deploy; none when empty.
	Tags []string
	// Paths and PathsIgnore are patterns of paths; each filters only when it is not empty.
	Paths, PathsIgnore []string
	// SkipPhrases are DefaultSkipPhrases when nil; a list that is empty and not nil switches the
	// rule off.
	SkipPhrases []string
}

// Phrases are the phrases that hold.
func (r Rules) Phrases() []string {
	if r.SkipPhrases == nil {
		return DefaultSkipPhrases
	}
	return r.SkipPhrases
}

// FiltersPaths tells whether a push's changed paths matter.
func (r Rules) FiltersPaths() bool { return len(r.Paths) > 0 || len(r.PathsIgnore) > 0 }

// Push is what is known of a push: one change of a branch or a tag that still exists after it.
type Push struct {
	// Branch or Tag was pushed, never both.
	Branch, Tag string
	// Old and New are the commits before and after; either may be unknown.
	Old, New string
	// Created: the branch did not exist before.
	Created bool
	// Forced: the new commit does not contain the old one. It changes nothing here.
	Forced bool
	// Message is the head commit's; MessageKnown tells an empty one from one not known.
	Message      string
	MessageKnown bool
	// Changes looks up what the push changed. It is called at most once, and only when a rule needs
	// it: it may have to fetch from Bitbucket. nil where that is not possible.
	Changes func(context.Context) (Changes, error)
}

// Changes are what differs between the old and the new tree of a push.
type Changes struct {
	// Paths are the files that differ; of a renamed one both names.
	Paths []string
	// Truncated: there are more than Paths has.
	Truncated bool
	// Message is the head commit's.
	Message string
	// First: there is no old commit.
	First bool
	// BaseUnknown: the old commit cannot be had.
	BaseUnknown bool
}

// Check is what one rule says.
type Check struct {
	Rule    string // such as BRANCH
	Passed  bool
	Message string // a sentence for people
}

// Verdict says whether a push deploys, and why (not).
type Verdict struct {
	Deploys bool
	// Rule is the one that turned the push away; empty when it deploys.
	Rule string
	// Reason is its outcome, such as PATHS_UNCHANGED; empty when it deploys.
	Reason string
	// Message is a sentence for people that names what decided.
	Message string
	// Checks are the rules that were evaluated, in order; none after one that turned the push away.
	Checks []Check
	// Notes are sentences for people about what could not be evaluated.
	Notes []string
	// Unknown is why Changes failed, for the log; nil when it did not.
	Unknown error
}

// Evaluate decides about a push: cheap rules first, and Changes only where one that needs it is
// left. It fails only when ctx is done; whatever else goes wrong lets the push through, with a note.
func Evaluate(ctx context.Context, r Rules, p Push) (Verdict, error) {
	e := evaluation{rules: r, push: p}
	if p.Tag != "" {
		e.tag()
		return e.verdict, ctx.Err()
	}
	e.verdict.Deploys = true
	for _, rule := range []func(context.Context) error{e.branch, e.skipPhrase, e.paths} {
		if err := rule(ctx); err != nil {
			return Verdict{}, err
		}
		if !e.verdict.Deploys {
			break
		}
	}
	return e.verdict, ctx.Err()
}

// evaluation is one run of Evaluate.
type evaluation struct {
	rules   Rules
	push    Push
	verdict Verdict
	changes *Changes
	failed  bool
}

func (e *evaluation) pass(rule, format string, args ...any) {
	m := fmt.Sprintf(format, args...)
	e.verdict.Checks = append(e.verdict.Checks, Check{Rule: rule, Passed: true, Message: m})
	e.verdict.Deploys = true
	switch {
	case e.verdict.Message == "":
		e.verdict.Message = m
	case rule == RulePaths:
		e.verdict.Message += "; " + m
	}
}

func (e *evaluation) refuse(rule, reason, format string, args ...any) {
	m := fmt.Sprintf(format, args...)
	e.verdict.Checks = append(e.verdict.Checks, Check{Rule: rule, Message: m})
	e.verdict.Deploys, e.verdict.Rule, e.verdict.Reason, e.verdict.Message = false, rule, reason, m
}

func (e *evaluation) tag() {
	tag := show(e.push.Tag)
	for _, p := range e.rules.Tags {
		switch {
		case !MatchBranch(p, e.push.Tag):
		case p == e.push.Tag:
			e.pass(RuleTag, "Tag %s is watched", tag)
			return
		default:
			e.pass(RuleTag, "Tag %s matches %s", tag, show(p))
			return
		}
	}
	if len(e.rules.Tags) == 0 {
		e.refuse(RuleTag, ReasonTagNotWatched, "Tag %s: tags do not deploy", tag)
		return
	}
	e.refuse(RuleTag, ReasonTagNotWatched, "Tag %s matches none of %s", tag, list(e.rules.Tags, 3))
}

func (e *evaluation) branch(context.Context) error {
	branch, watched := show(e.push.Branch), show(e.rules.Branch)
	switch {
	case !MatchBranch(e.rules.Branch, e.push.Branch):
		e.refuse(RuleBranch, ReasonBranchNotWatched, "Branch %s is not watched; watching %s", branch, watched)
	case IsGlob(e.rules.Branch):
		e.pass(RuleBranch, "Branch %s matches %s", branch, watched)
	default:
		e.pass(RuleBranch, "Branch %s is watched", branch)
	}
	return nil
}

func (e *evaluation) skipPhrase(ctx context.Context) error {
	phrases := e.rules.Phrases()
	if len(phrases) == 0 {
		return nil
	}
	message := e.push.Message
	if !e.push.MessageKnown {
		c, err := e.look(ctx)
		if err != nil {
			return err
		}
		if c == nil {
			e.pass(RuleSkipPhrase, "The head commit's message is not known")
			return nil
		}
		message = c.Message
	}
	message = strings.ToLower(message)
	for _, p := range phrases {
		if p != "" && strings.Contains(message, strings.ToLower(p)) {
			e.refuse(RuleSkipPhrase, ReasonSkipPhrase, "The commit's message has %s", show(p))
			return nil
		}
	}
	e.pass(RuleSkipPhrase, "The commit's message has no skip phrase")
	return nil
}

func (e *evaluation) paths(ctx context.Context) error {
	if !e.rules.FiltersPaths() {
		return nil
	}
	all := func(why string) error {
		e.note("%s: all files count as changed.", why)
		e.pass(RulePaths, "%s, so all files count as changed", why)
		return nil
	}
	if e.push.Created {
		return all("The branch is new")
	}
	c, err := e.look(ctx)
	switch {
	case err != nil:
		return err
	case c == nil:
		e.pass(RulePaths, "Which files changed is not known, so all count as changed")
		return nil
	case c.First:
		return all("The branch is new")
	case c.BaseUnknown:
		return all("The commit before the push is no longer available")
	case c.Truncated:
		return all("Too many files changed to compare each")
	}
	return e.filter(ctx, c.Paths)
}

// filter looks for one path that counts.
func (e *evaluation) filter(ctx context.Context, changed []string) error {
	wants, ignores := compile(e.rules.Paths), compile(e.rules.PathsIgnore)
	example := ""
	for i, path := range changed {
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if ignores.match(path) {
			if example == "" {
				example = path
			}
			continue
		}
		if len(e.rules.Paths) == 0 || wants.match(path) {
			e.pass(RulePaths, "%s changed", show(path))
			return nil
		}
		example = path
	}
	wanted := "No file that counts changed"
	if len(e.rules.Paths) > 0 {
		wanted = "No file under " + list(e.rules.Paths, 3) + " changed"
	}
	ignored := ""
	if len(e.rules.PathsIgnore) > 0 {
		ignored = "; changes to " + list(e.rules.PathsIgnore, 3) + " do not count"
	}
	switch len(changed) {
	case 0:
		e.refuse(RulePaths, ReasonPathsUnchanged, "%s (the files are the same before and after the push)", wanted)
	case 1:
		e.refuse(RulePaths, ReasonPathsUnchanged, "%s (only %s changed%s)", wanted, show(example), ignored)
	default:
		e.refuse(RulePaths, ReasonPathsUnchanged, "%s (%d files changed, such as %s%s)", wanted, len(changed), show(example), ignored)
	}
	return nil
}

// look asks for the changes once; nil when they cannot be had. The error is ctx's.
func (e *evaluation) look(ctx context.Context) (*Changes, error) {
	if e.changes != nil || e.failed {
		return e.changes, nil
	}
	if e.push.Changes == nil {
		e.failed = true
		e.note("What the push changed could not be found out, so it deploys.")
		return nil, nil
	}
	c, err := e.push.Changes(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		e.failed, e.verdict.Unknown = true, err
		e.note("What the push changed could not be found out (%s), so it deploys.", public(err))
		return nil, nil
	}
	e.changes = &c
	return e.changes, nil
}

func (e *evaluation) note(format string, args ...any) {
	e.verdict.Notes = append(e.verdict.Notes, fmt.Sprintf(format, args...))
}

// public is what people may read of an error: the message made for them, never a chain of causes.
func public(err error) string {
	e := apierr.From(err)
	if e.Reason() == apierr.ReasonInternal {
		return "the changed files could not be found out"
	}
	return strings.TrimRight(e.Message(), ".")
}

// maxShown cuts names in messages.
const maxShown = 120

// show makes a name from outside fit for a sentence: one line, not too long.
func show(name string) string {
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			name = fmt.Sprintf("%q", name)
			break
		}
	}
	if r := []rune(name); len(r) > maxShown {
		return string(r[:maxShown-1]) + "…"
	}
	return name
}

// list shows the first names of a list.
func list(names []string, most int) string {
	shown := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		shown = append(shown, show(n))
	}
	out := strings.Join(shown, ", ")
	if more := len(names) - most; more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}
