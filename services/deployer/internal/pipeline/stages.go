package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/lane"
	"devpilot.io/bitbucket/services/deployer/internal/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/release"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// stage is one of the stages of design.md section 2, in their order. A stage without work of its
// own passes at once.
type stage struct {
	id   deployerv1.Deployment_Stage
	till int32 // progress when it is done, in percent
	work func(a *attempt, ctx context.Context) error
}

func plan() []stage {
	return []stage{
		{deployerv1.Deployment_PRE_EXECUTION, 5, (*attempt).prepare},
		{deployerv1.Deployment_PRE_SOURCE_CONTROL, 10, nil},
		{deployerv1.Deployment_SOURCE_CONTROL, 80, (*attempt).sourceControl},
		{deployerv1.Deployment_POST_SOURCE_CONTROL, 85, nil},
		{deployerv1.Deployment_POST_SETUP, 90, nil},
		{deployerv1.Deployment_RELEASE, 95, (*attempt).release},
		{deployerv1.Deployment_POST_RELEASE, 100, nil},
	}
}

// stages takes the deployment through all stages.
func (a *attempt) stages(ctx context.Context) error {
	for _, s := range plan() {
		a.progress.enter(s.id)
		if s.work != nil && !a.switched {
			if err := s.work(a, ctx); err != nil {
				return err
			}
		}
		a.progress.leave(s.till)
	}
	return nil
}

// prepare claims the app's directory. If a dead attempt of this deployment had gone live, only the
// record is left to finish.
func (a *attempt) prepare(ctx context.Context) error {
	if err := a.load(ctx); err != nil {
		return err
	}
	claimCtx, cancel := context.WithTimeoutCause(ctx, a.w.cfg.ClaimTimeout, errLocked)
	defer cancel()
	err := a.w.cfg.Releases.Claim(claimCtx, a.key.Workspace, a.key.App, a.run.GetEpoch(), a.firstEpoch)
	if err != nil {
		if errors.Is(context.Cause(claimCtx), errLocked) {
			return errLocked
		}
		return err
	}
	current, err := a.w.cfg.Releases.Current(a.key.Workspace, a.key.App)
	if err != nil {
		return err
	}
	if release.NumberOf(current) == a.job.GetNumber() && a.run.GetHash() != "" {
		a.directory, a.switched = current, true
		a.say("The release went live in an earlier attempt; only its record was missing.")
		return nil
	}
	if a.job.GetAttempt() > maxAttempts {
		return errPoison
	}
	return a.wanted()
}

// sourceControl fetches the branch, fixes the commit and checks it out.
func (a *attempt) sourceControl(ctx context.Context) error {
	err := a.fetchAndCheckOut(ctx)
	if !errors.Is(err, mirror.ErrDamaged) {
		return err
	}
	a.say("The mirror of the repository is damaged; it is fetched anew.")
	if err := a.w.cfg.Source.Discard(ctx, a.key.Workspace, a.app.GetRepository()); err != nil {
		return err
	}
	return a.fetchAndCheckOut(ctx)
}

// fetchAndCheckOut does it once more when the disk is short and room can be made.
func (a *attempt) fetchAndCheckOut(ctx context.Context) error {
	a.w.spares.abandon(a.key)
	err := a.fetchOnce(ctx)
	if a.makeRoom(ctx, err) {
		err = a.fetchOnce(ctx)
	}
	return err
}

func (a *attempt) fetchOnce(ctx context.Context) error {
	tree, fullName, err := a.fetch(ctx)
	if err != nil {
		return err
	}
	defer tree.Close()
	head := tree.Head()
	if asked := a.job.GetHash(); asked != "" && asked != head.Hash {
		a.say("The branch has moved on from %s to %s: deploying that.", short(asked), short(head.Hash))
	}
	a.say("Commit %s by %s: %s", short(head.Hash), head.AuthorName, firstLine(head.Message))
	if err := a.fixCommit(ctx, head, fullName); err != nil {
		return err
	}
	begin := time.Now()
	stats, err := a.place(ctx, tree)
	if err != nil {
		return err
	}
	a.spare = tree.Copier()
	kept := ""
	if stats.Kept > 0 {
		kept = fmt.Sprintf(" (%d of them had been prepared)", stats.Kept)
	}
	a.say("Checked out %d files%s, %s, in %v.", stats.Files, kept, size(stats.Bytes), time.Since(begin).Round(time.Millisecond))
	return nil
}

// fetch fetches the branch; a repository that is not found under its last name is looked up by its
// id and tried once under its new one.
func (a *attempt) fetch(ctx context.Context) (Tree, string, error) {
	apps := a.w.cfg.Apps
	fullName, err := apps.FullName(ctx, a.key.Workspace, a.app.GetRepository())
	if err != nil {
		return nil, "", err
	}
	src := mirror.Source{Workspace: a.key.Workspace, Repository: a.app.GetRepository(), FullName: fullName, Branch: a.job.GetBranch()}
	a.say("Fetching branch %s of %s.", src.Branch, src.FullName)
	begin := time.Now()
	tree, err := a.w.cfg.Source.Fetch(ctx, src)
	if mirror.IsGone(err) {
		if renamed, rerr := apps.Renamed(ctx, a.key.Workspace, a.app.GetRepository()); rerr == nil && renamed != fullName {
			a.say("The repository is called %s now.", renamed)
			src.FullName = renamed
			tree, err = a.w.cfg.Source.Fetch(ctx, src)
		}
	}
	if err != nil {
		return nil, "", err
	}
	a.progress.within(10, 20, 1, 1)
	a.say("Fetched in %v.", time.Since(begin).Round(time.Millisecond))
	return tree, src.FullName, nil
}

// release switches current.
func (a *attempt) release(ctx context.Context) error {
	// From here on a stop of the process no longer cuts in: the switch and its record belong
	// together.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := a.w.cfg.Releases.Switch(ctx, a.key.Workspace, a.key.App, a.run.GetEpoch(), a.directory); err != nil {
		if errors.Is(err, release.ErrStale) {
			return lane.ErrLost
		}
		return err
	}
	a.switched = true
	a.say("Release %s is live.", a.directory)
	return nil
}

func short(hash string) string {
	if len(hash) > 10 {
		return hash[:10]
	}
	return hash
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' || i > 200 {
			return s[:i]
		}
	}
	return s
}

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
