package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// stage is one of the stages of DESIGN.md#words, in their order. A stage without work of its
// own passes at once.
type stage struct {
	id    deployerv1.Deployment_Stage
	share int32 // what its own work counts for in the progress
	work  func(a *attempt, ctx context.Context) error
}

func plan() []stage {
	return []stage{
		{deployerv1.Deployment_PRE_EXECUTION, 5, (*attempt).prepare},
		{deployerv1.Deployment_PRE_SOURCE_CONTROL, 5, nil},
		{deployerv1.Deployment_SOURCE_CONTROL, 70, (*attempt).sourceControl},
		{deployerv1.Deployment_POST_SOURCE_CONTROL, 5, nil},
		{deployerv1.Deployment_POST_SETUP, 5, nil},
		{deployerv1.Deployment_RELEASE, 5, (*attempt).release},
		{deployerv1.Deployment_POST_RELEASE, 5, nil},
	}
}

// stages takes the deployment through all stages; a rollback has no source to fetch and prepare.
func (a *attempt) stages(ctx context.Context) error {
	for _, s := range plan() {
		if a.isRollback() && s.id > deployerv1.Deployment_PRE_EXECUTION && s.id < deployerv1.Deployment_RELEASE {
			continue
		}
		a.progress.enter(s.id)
		if err := a.stage(ctx, s); err != nil {
			a.skipRest(s.id)
			return err
		}
		_, _, till := a.span(s.id)
		a.progress.leave(till)
	}
	return nil
}

// stage does a stage's own work, then its hooks. Of a release that an earlier attempt put live only
// what comes after is left.
func (a *attempt) stage(ctx context.Context, s stage) error {
	if s.work != nil && !a.switched {
		if err := s.work(a, ctx); err != nil {
			return err
		}
	}
	live := s.id == deployerv1.Deployment_POST_RELEASE
	if !live && (a.switched || a.isRollback()) {
		return nil
	}
	// A stop of the whole deployment counts between the stages too.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return a.runHooks(ctx, s)
}

func (a *attempt) isRollback() bool { return a.job.GetDirectory() != "" }

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
	a.claimed = true
	current, err := a.w.cfg.Releases.Current(a.key.Workspace, a.key.App)
	if err != nil {
		return err
	}
	ours := release.NumberOf(current) == a.job.GetNumber() || a.isRollback() && current == a.job.GetDirectory()
	if ours && a.run.GetHash() != "" {
		a.directory, a.switched, a.commit = current, true, a.run.GetHash()
		a.say("The release went live in an earlier attempt; only the stages after it are left.")
		return a.prepareRelease(ctx)
	}
	if a.isRollback() {
		return a.rollBack(ctx)
	}
	if a.job.GetDeaths() >= maxDeaths {
		return errPoison
	}
	return a.wanted()
}

// rollBack makes sure that the release to go back to is still there.
func (a *attempt) rollBack(ctx context.Context) error {
	a.directory = a.job.GetDirectory()
	there, err := a.w.cfg.Releases.Has(a.key.Workspace, a.key.App, a.directory)
	if err != nil {
		return err
	}
	if !there {
		return apierr.Newf(apierr.ReasonReleaseGone, "The release of deployment %d is no longer on the server. Redeploy its commit instead.", a.job.GetSourceNumber())
	}
	a.say("Going back to the release of deployment %d.", a.job.GetSourceNumber())
	if _, err := a.w.cfg.Dispatcher.Change(ctx, a.key, func(l *storev1.Lane) error {
		return lane.TakeRelease(l, a.run.GetEpoch())
	}); err != nil {
		return err
	}
	a.commit = a.job.GetHash()
	return a.prepareRelease(ctx)
}

// sourceControl fetches the branch, fixes the commit and checks it out.
func (a *attempt) sourceControl(ctx context.Context) error {
	err := a.fetchAndCheckOut(ctx)
	if errors.Is(err, program.ErrDamaged) {
		a.say("The mirror of the repository is damaged; it is fetched anew.")
		if err := a.w.cfg.Source.Discard(ctx, a.key.Workspace, a.app.GetRepository()); err != nil {
			return err
		}
		err = a.fetchAndCheckOut(ctx)
	}
	if err != nil {
		return err
	}
	return a.prepareRelease(ctx)
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
	fetching, span := a.trace(ctx, "fetch", tracing.About{Repository: a.app.GetRepository()})
	tree, fullName, branchHead, err := a.choose(fetching)
	span.End(err)
	if err != nil {
		return err
	}
	defer tree.Close()
	head := tree.Head()
	a.say("Commit %s by %s: %s", bitbucket.ShortHash(head.Hash), head.AuthorName, firstLine(head.Message))
	notes := a.lost(ctx, tree)
	if err := a.fixCommit(ctx, head, branchHead, fullName, notes); err != nil {
		return err
	}
	for _, note := range notes {
		a.say("%s", note)
	}
	if !a.app.GetSource().GetLfs() {
		if found, err := tree.HasLFSPointers(ctx); err != nil {
			return err
		} else if found {
			a.say("Some files are Git LFS pointers and are deployed as pointers: switch Git LFS on in the app's settings to fetch their content.")
		}
	}
	begin := time.Now()
	placing, span := a.trace(ctx, "checkout", tracing.About{})
	stats, err := a.place(placing, tree)
	span.End(err)
	if err != nil {
		return err
	}
	if err := a.checkDirectory(head); err != nil {
		return err
	}
	if a.app.GetSource().GetFullHistory() {
		if err := a.writeGit(ctx, tree); err != nil {
			return err
		}
	}
	a.spare = tree.Copier()
	kept := ""
	if stats.Kept > 0 {
		kept = fmt.Sprintf(" (%d of them had been prepared)", stats.Kept)
	}
	a.say("Checked out %d files%s, %s, in %v.", stats.Files, kept, size(stats.Bytes), time.Since(begin).Round(time.Millisecond))
	return nil
}

// checkDirectory makes sure that the app's directory is in the tree: hooks work there.
func (a *attempt) checkDirectory(head mirror.Commit) error {
	name := a.app.GetSource().GetDirectory()
	if name == "" {
		return nil
	}
	dir, err := a.w.cfg.Releases.Open(a.key.Workspace, a.key.App, a.directory)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	// A link that leads out of the release is refused by dir.
	if info, err := dir.Stat(name); err != nil || !info.IsDir() {
		return &remote.Error{
			Reason: reasonNoDirectory, Err: err,
			Message: fmt.Sprintf("Commit %s has no directory %s, which the app says is its own. Push one that has it, or change the app's directory.", bitbucket.ShortHash(head.Hash), name),
		}
	}
	return nil
}

// reasonNoDirectory says that a commit lacks the app's directory.
const reasonNoDirectory = "DIRECTORY_NOT_FOUND"

// writeGit gives the release a .git directory, for hooks that read the history.
func (a *attempt) writeGit(ctx context.Context, tree Tree) error {
	dir, err := a.w.cfg.Releases.Open(a.key.Workspace, a.key.App, a.directory)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return tree.WriteGit(ctx, dir)
}

// source is what is fetched: the head of the branch, whatever that is by now, or an exact commit: that of
// a redeploy, or the push before a head that does not deploy.
func (a *attempt) source(fullName string) mirror.Source {
	options := a.app.GetSource()
	src := mirror.Source{
		Workspace: a.key.Workspace, Repository: a.app.GetRepository(), FullName: fullName, Branch: a.job.GetBranch(), Tag: a.job.GetTag(),
		FullHistory: options.GetFullHistory(), Submodules: options.GetSubmodules(), LFS: options.GetLfs(),
		SubmoduleWorkspaces: options.GetSubmoduleWorkspaces(), Directory: options.GetDirectory(),
		Notice: func(text string) { a.say("%s", text) },
	}
	if src.Tag != "" {
		src.Branch = ""
	}
	if a.job.GetAttempt() <= 1 { // a second attempt asks Bitbucket itself
		src.Asked, src.Expected = a.job.GetAskTime().AsTime(), a.job.GetHash()
	}
	if a.job.GetPinned() {
		src.Commit, src.Known = a.job.GetHash(), true
	}
	if a.exact != "" {
		src.Commit = a.exact
	}
	return src
}

func (a *attempt) what() string {
	switch {
	case a.job.GetPinned() && a.job.GetTag() != "" && a.job.GetTrigger() == deployerv1.Deployment_MANUAL:
		return fmt.Sprintf("tag %s (%s)", a.job.GetTag(), bitbucket.ShortHash(a.job.GetHash()))
	case a.job.GetPinned():
		return "commit " + bitbucket.ShortHash(a.job.GetHash())
	case a.exact != "":
		return "commit " + bitbucket.ShortHash(a.exact)
	case a.job.GetTag() != "":
		return "tag " + a.job.GetTag()
	}
	return "branch " + a.job.GetBranch()
}

// prepareRelease finishes the tree that was checked out: its shared paths, and what its own file
// says.
func (a *attempt) prepareRelease(ctx context.Context) error {
	if err := a.readFile(ctx); err != nil {
		return err
	}
	if len(a.settings.SharedPaths) == 0 {
		return nil
	}
	var err error
	a.shared, err = a.w.cfg.Releases.Shared(ctx, a.key.Workspace, a.key.App, a.directory, a.run.GetEpoch(), a.settings.SharedPaths)
	return err
}

// release switches current.
func (a *attempt) release(ctx context.Context) (err error) {
	// From here on a stop of the process no longer cuts in: the switch and its record belong
	// together.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.checkHeaders()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	ctx, span := a.trace(ctx, "switch", tracing.About{})
	defer func() { span.End(err) }()
	if err := a.announce(ctx); err != nil {
		if errors.Is(err, release.ErrStale) {
			return lane.ErrLost
		}
		return err
	}
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

// announce has what serves the releases know this one before it is live.
func (a *attempt) announce(ctx context.Context) error {
	if a.w.cfg.Announce == nil {
		return nil
	}
	k := &storev1.Kept{Serve: a.serve, Shared: a.shares}
	serve := apps.ServeKept(a.app, k)
	return a.w.cfg.Announce(ctx, a.key.Workspace, a.key.App, a.run.GetEpoch(), a.generation, release.SiteRelease{
		Number: a.job.GetNumber(), Directory: a.directory, Hash: a.commit, Serve: serve.GetDirectory(), Fallback: serve.GetFallback(), Shared: apps.Shared(a.app, k),
	})
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
