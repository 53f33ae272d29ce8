package pipeline

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Policy holds an app's rules against a push.
type Policy interface {
	Decide(ctx context.Context, a *storev1.App, p policy.Push) (rules.Verdict, error)
}

// choose fetches what is deployed: the branch's head, whatever that is by now, if the app's rules let it
// through. Otherwise it is the commit that was pushed: the newest push that they let through. head is
// the branch's head.
func (a *attempt) choose(ctx context.Context) (tree Tree, fullName, head string, err error) {
	a.exact = ""
	if tree, fullName, err = a.fetch(ctx); err != nil {
		return nil, "", "", err
	}
	found := tree.Head()
	asked := a.job.GetHash()
	if asked == found.Hash || a.job.GetTag() != "" {
		return tree, fullName, found.Hash, nil
	}
	deploys, reason, message, err := a.letsThrough(ctx, asked, found)
	if err != nil || deploys {
		if err != nil {
			tree.Close()
			return nil, "", "", err
		}
		if asked != "" {
			a.say("The branch has moved on from %s to %s: deploying that.", bitbucket.ShortHash(asked), bitbucket.ShortHash(found.Hash))
		}
		return tree, fullName, found.Hash, nil
	}
	tree.Close()
	if asked == "" {
		return nil, "", "", errCancelled{reason, fmt.Sprintf("The branch is at %s by now, which does not deploy. %s.", bitbucket.ShortHash(found.Hash), message)}
	}
	a.say("The branch has moved on to %s, which does not deploy. %s. Deploying %s.", bitbucket.ShortHash(found.Hash), message, bitbucket.ShortHash(asked))
	a.exact = asked
	tree, fullName, err = a.fetch(ctx)
	var m *remote.Error
	if errors.As(err, &m) && (m.Reason == remote.ReasonCommitGone || m.Reason == remote.ReasonCommitNotInBranch) {
		return nil, "", "", errCancelled{reason, fmt.Sprintf(
			"The branch was forced from %s to %s, which does not deploy. %s.", bitbucket.ShortHash(asked), bitbucket.ShortHash(found.Hash), message)}
	}
	return tree, fullName, found.Hash, err
}

// lost says that what is live is not in the history of what was fetched, where that is known: by the
// delivery, or by what the mirror has. Nobody is asked for it.
func (a *attempt) lost(ctx context.Context, tree Tree) []string {
	hash, live := tree.Head().Hash, a.before.GetHash()
	leaves, forced := lane.Leaves(a.before, a.job, hash)
	if !leaves || !forced && !tree.Lacks(ctx, live) {
		return nil
	}
	return []string{fmt.Sprintf(
		"The history of %s does not contain %s, which was live: the branch was forced to another history, or the repository was replaced.", bitbucket.ShortHash(hash), bitbucket.ShortHash(live))}
}

// letsThrough tells whether a head to which the branch has moved on may be deployed instead of the commit
// that was asked for. What was decided about its own push holds; where nobody told us of that, the rules
// are asked. What a person asks for is deployed whatever they say.
func (a *attempt) letsThrough(ctx context.Context, asked string, head mirror.Commit) (deploys bool, reason, message string, err error) {
	if a.w.cfg.Policy == nil || !lane.Automatic(a.job.GetTrigger()) {
		return true, "", "", nil
	}
	l, _, err := a.w.cfg.Dispatcher.Get(ctx, a.key)
	if err != nil {
		return false, "", "", err
	}
	ref, old := lane.Branch(a.job.GetBranch()), asked
	seen := lane.HeadOf(l, a.app.GetRepository(), ref)
	switch {
	case lane.UndecidedOf(l, ref):
		return false, reasonUndecided, "What was pushed since is still being decided about", nil
	case lane.TurnedAway(seen, head.Hash):
		return false, reasonTurnedAway, "The app's rules turned that push away", nil
	case seen.GetHash() == head.Hash && seen.GetNumber() > 0:
		return true, "", "", nil
	case seen.GetHash() != "" && seen.GetHash() != head.Hash:
		old = seen.GetHash() // as for its delivery, when that comes
	case old == "":
		old = a.before.GetHash()
	}
	v, err := a.w.cfg.Policy.Decide(ctx, a.app, policy.Push{
		Branch: a.job.GetBranch(), Old: old, New: head.Hash, Message: head.Message, MessageKnown: true,
	})
	return v.Deploys, v.Reason, v.Message, err
}

const (
	// reasonUndecided is why a deployment does not take the branch's head: its push waits for a decision.
	reasonUndecided = "DECIDING"
	// reasonTurnedAway is the same where its push was turned away, by whichever rule.
	reasonTurnedAway = "TURNED_AWAY"
)
