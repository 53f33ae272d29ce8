package pipeline

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Gate decides whether a push deploys.
type Gate interface {
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
	if asked == "" || asked == found.Hash || a.job.GetTag() != "" {
		return tree, fullName, found.Hash, nil
	}
	verdict, err := a.verdict(ctx, asked, found)
	if err != nil || verdict.Deploys {
		if err != nil {
			tree.Close()
			return nil, "", "", err
		}
		a.say("The branch has moved on from %s to %s: deploying that.", short(asked), short(found.Hash))
		return tree, fullName, found.Hash, nil
	}
	tree.Close()
	a.say("The branch has moved on to %s, which does not deploy. %s. Deploying %s.", short(found.Hash), verdict.Message, short(asked))
	a.exact = asked
	tree, fullName, err = a.fetch(ctx)
	var m *mirror.Error
	if errors.As(err, &m) && (m.Reason == mirror.ReasonCommitGone || m.Reason == mirror.ReasonCommitNotInBranch) {
		return nil, "", "", errCancelled{verdict.Reason, fmt.Sprintf(
			"The branch was forced from %s to %s, which does not deploy. %s.", short(asked), short(found.Hash), verdict.Message)}
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
		"The history of %s does not contain %s, which was live: the branch was forced to another history, or the repository was replaced.", short(hash), short(live))}
}

// verdict is what the app's rules say of a head that nobody told us of, or whose push did not deploy.
// What a person asks for is deployed whatever they say.
func (a *attempt) verdict(ctx context.Context, asked string, head mirror.Commit) (rules.Verdict, error) {
	if a.w.cfg.Gate == nil || !lane.Automatic(a.job.GetTrigger()) {
		return rules.Verdict{Deploys: true}, nil
	}
	return a.w.cfg.Gate.Decide(ctx, a.app, policy.Push{
		Branch: a.job.GetBranch(), Old: asked, New: head.Hash, Message: head.Message, MessageKnown: true,
	})
}
