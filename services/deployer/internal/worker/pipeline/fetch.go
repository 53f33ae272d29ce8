package pipeline

import (
	"context"
	"errors"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
)

// The UUID is the repository, but git asks by name, and another repository may have the name by now.
// What it answers counts only if it is known to be the repository's own: the commit is the one that a
// delivery, or a look that was proven, told of (a commit's hash is its content, whoever has it), or
// Bitbucket says at that moment, asked by the UUID, that the name is still the repository's. A push costs
// no such question.

// fetch fetches the branch, under the name that the repository has now.
func (a *attempt) fetch(ctx context.Context) (Tree, string, error) {
	apps, repository := a.w.cfg.Apps, a.app.GetRepository()
	fullName, err := apps.FullName(ctx, a.key.Workspace, repository)
	if err != nil {
		return nil, "", err
	}
	sure := false
	if !lane.Automatic(a.job.GetTrigger()) { // who presses a button can wait for the answer
		if name, err := apps.Renamed(ctx, a.key.Workspace, repository); err == nil {
			fullName, sure = name, true
		}
	}
	tree, err := a.fetchFrom(ctx, fullName)
	var serr error
	if err == nil && !sure {
		sure, serr = a.announced(ctx, tree.Head().Hash)
	}
	if err == nil && sure {
		return tree, fullName, nil
	}
	if serr == nil && (err == nil || aboutRepository(err)) {
		var name string
		switch name, serr = apps.Renamed(ctx, a.key.Workspace, repository); {
		case serr == nil && name != fullName:
			if err == nil {
				tree.Close()
			}
			a.say("The repository is called %s now.", name)
			tree, err = a.fetchFrom(ctx, name)
			return tree, name, err
		case err != nil:
			return nil, "", err // of the repository itself, or it cannot be told: the fetch's own words
		}
	}
	if err == nil && serr != nil {
		tree.Close()
		return nil, "", serr
	}
	return tree, fullName, err
}

// aboutRepository tells the failures that another repository of the same name may cause.
func aboutRepository(err error) bool {
	var m *remote.Error
	return remote.IsGone(err) || errors.As(err, &m) && !m.Temporary
}

// announced tells whether a commit is one that is known to be the repository's: that which the deployment
// was asked for, or the branch's or tag's head as it was seen last.
func (a *attempt) announced(ctx context.Context, hash string) (bool, error) {
	if hash == a.job.GetHash() {
		return true, nil
	}
	l, _, err := a.w.cfg.Dispatcher.Get(ctx, a.key)
	if err != nil {
		return false, err
	}
	ref := lane.Branch(a.job.GetBranch())
	if a.job.GetTag() != "" {
		ref = lane.Tag(a.job.GetTag())
	}
	return lane.HeadOf(l, a.app.GetRepository(), ref).GetHash() == hash, nil
}

// fetchFrom fetches under one name.
func (a *attempt) fetchFrom(ctx context.Context, fullName string) (Tree, error) {
	src := a.source(fullName)
	a.say("Fetching %s of %s.", a.what(), src.FullName)
	begin := time.Now()
	tree, err := a.w.cfg.Source.Fetch(ctx, src)
	if err != nil {
		return nil, err
	}
	fetched, _ := a.fetched()
	a.progress.within(0, fetched, 1, 1)
	a.say("Fetched in %v.", time.Since(begin).Round(time.Millisecond))
	return tree, nil
}
