package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// maxDeaths is how often a deployment is taken over whose workers die: whatever kills them is in
// the deployment.
const maxDeaths = 20

// attempt is one run of one deployment by this worker.
type attempt struct {
	w          *Worker
	key        lane.Key
	run        *storev1.Running
	job        *storev1.Job
	generation int64
	firstEpoch int64
	app        *storev1.App
	directory  string
	exact      string        // the commit to fetch where the branch's head does not deploy
	before     *storev1.Live // what is live as it begins
	unclaimed  bool          // neither the wish nor the lane knew a head of the branch
	log        Log
	progress   *progress
	begin      time.Time
	spare      tree.Copier // what can prepare the app's next deployment
	claimed    bool        // the app's directory is ours
	switched   bool        // the release is current

	settings  codeconfig.Settings // what the deployment does
	variables []settings.Variable
	commit    string                   // that is deployed, once it is known
	shared    []string                 // where the paths are that outlive the release
	serve     *deployerv1.ServeOptions // what the commit's own file serves
	shares    *storev1.SharedPaths     // and what it shares
	failure   error                    // how the stages ended
}

// errSuperseded ends a run whose commit is live already.
type errSuperseded struct{ by int32 }

func (e errSuperseded) Error() string {
	return fmt.Sprintf("pipeline: the commit is live as deployment %d", e.by)
}

var (
	// errStopped ends a run whose lane holds a wish to stop it.
	errStopped = errors.New("pipeline: the deployment is to stop")
	// errTimeout ends a run that takes longer than any may.
	errTimeout = errors.New("pipeline: the deployment took too long")
)

// errCancelled ends a run that is not wanted any more.
type errCancelled struct{ reason, message string }

func (e errCancelled) Error() string { return "pipeline: " + e.reason }

// run takes the claimed deployment through its stages and writes down how it ended. lane.ErrLost
// means that somebody else has it; any other error that nothing could be written down.
func (w *Worker) run(ctx context.Context, k lane.Key, l *storev1.Lane, verdict lane.Verdict) (err error) {
	w.busy.Add(1)
	defer w.busy.Add(-1)
	r := l.GetRunning()
	a := &attempt{
		w: w, key: k, run: r, job: r.GetJob(), generation: l.GetGeneration(), firstEpoch: l.GetFirstEpoch(), begin: w.cfg.Now(),
		directory: release.DirectoryName(r.GetJob().GetNumber(), r.GetJob().GetAttempt()),
		before:    l.GetLive(),
		unclaimed: r.GetJob().GetHash() == "" && l.GetHeads()[r.GetJob().GetBranch()].GetHash() == "",
	}
	ctx, span := a.trace(tracing.Continue(ctx, a.job.GetTraceparent()), "attempt", tracing.About{})
	defer func() { span.End(cmp.Or(err, a.failure)) }()
	ctx = logs.WithAttrs(ctx, slog.Int(logs.KeyDeployment, int(a.job.GetNumber())), slog.Int(logs.KeyAttempt, int(a.job.GetAttempt())))
	if err := w.cfg.Dispatcher.Flush(ctx, k, l); err != nil {
		return err
	}
	if a.log, err = w.cfg.Logs.Open(ctx, k, a.job.GetNumber(), a.generation, r.GetEpoch()); err != nil {
		return err
	}
	defer a.closeLog(ctx) // again where it is closed: harmless
	a.progress = newProgress(w.cfg.Records, k.Record(a.job.GetNumber()), a.generation, r.GetEpoch(), w.cfg.Now)
	defer a.progress.close()
	w.cfg.Logger.InfoContext(ctx, "deployment starts", slog.Int64("epoch", r.GetEpoch()), slog.Bool("took_over", verdict == lane.TakeOver))
	if verdict == lane.TakeOver {
		a.say("Attempt %d: the worker that ran this deployment before stopped answering; this one takes over.", a.job.GetAttempt())
	}
	err = a.guarded(ctx)
	a.failure = err
	a.progress.close()
	err = a.finish(ctx, err)
	w.spares.add(k, r.GetEpoch(), a.spare)
	return err
}

// trace begins a span of the attempt.
func (a *attempt) trace(ctx context.Context, name string, about tracing.About) (context.Context, tracing.Span) {
	about.Workspace, about.App, about.Deployment = a.key.Workspace, a.key.App, a.job.GetNumber()
	return tracing.Start(ctx, a.w.cfg.Tracer, name, about)
}

// guarded runs the stages while it watches the lane: they are cut as soon as the run is lost.
func (a *attempt) guarded(ctx context.Context) error {
	ctx, expire := context.WithTimeoutCause(ctx, a.w.cfg.Timeout, errTimeout)
	defer expire()
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	defer func() {
		cancel(nil)
		<-watched
	}()
	go func() {
		defer close(watched)
		_ = a.w.cfg.Lanes.Watch(ctx, a.key.String(), func(_ string, l *storev1.Lane, _ uint64) error {
			// A watch may still show what was before our claim.
			if l.GetEpoch() < a.run.GetEpoch() && l != nil {
				return nil
			}
			if _, err := lane.Mine(l, a.run.GetEpoch()); err != nil {
				cancel(lane.ErrLost)
				return err
			}
			if lane.Wished(l, a.run.GetEpoch()) != nil {
				cancel(errStopped)
			}
			return nil
		})
	}()
	err := a.stages(ctx)
	if err == nil {
		return nil
	}
	for _, why := range []error{lane.ErrLost, errStopped, errTimeout} {
		if errors.Is(context.Cause(ctx), why) {
			return why
		}
	}
	return err
}

// finish writes down how the run ended.
func (a *attempt) finish(ctx context.Context, err error) error {
	w := a.w
	res := lane.Result{
		Now: w.cfg.Now(), Stages: a.progress.records(), Directory: a.directory, Retention: a.app.GetRetention(), Serve: a.serve, Shared: a.shares, Live: a.switched,
	}
	if errors.Is(err, release.ErrStale) || errors.Is(err, lane.ErrLost) {
		w.cfg.Observe.Run(ctx, "lost", w.cfg.Now().Sub(a.begin))
		w.cfg.Logger.InfoContext(ctx, "deployment is another worker's by now")
		a.closeLog(ctx)
		return lane.ErrLost
	}
	var superseded errSuperseded
	var cancelled errCancelled
	switch {
	case err == nil:
		return a.completed(ctx, res)
	case errors.Is(err, errStopped):
		a.say("The deployment was stopped.")
		return a.end(ctx, "cancelled", func(l *storev1.Lane) error { return lane.Cancelled(l, a.run.GetEpoch(), res) })
	case errors.As(err, &superseded):
		a.say("Deployment %d has this commit live already: nothing to do.", superseded.by)
		return a.end(ctx, "superseded", func(l *storev1.Lane) error { return lane.Supersede(l, a.run.GetEpoch(), superseded.by, res) })
	case errors.Is(err, lane.ErrRepeated):
		a.say("%s is where it was before this push, whose delivery came again: nothing to do.", a.what())
		return a.end(ctx, "superseded", func(l *storev1.Lane) error { return lane.Repeated(l, a.run.GetEpoch(), a.app.GetRepository(), res) })
	case errors.As(err, &cancelled):
		a.say("Not deployed: %s", cancelled.message)
		why := &deployerv1.DeploymentError{Reason: cancelled.reason, Message: cancelled.message}
		return a.end(ctx, "cancelled", func(l *storev1.Lane) error {
			return lane.Fail(l, a.run.GetEpoch(), deployerv1.Deployment_CANCELLED, why, res)
		})
	case ctx.Err() != nil:
		a.say("The worker stops; the deployment is started again.")
		return a.yield(ctx, res, ctx.Err())
	case errors.Is(err, sandbox.ErrStalled):
		w.cfg.Logger.WarnContext(ctx, "worker stood still during a hook, which was ended", logs.Err(err))
		a.say("The worker was paused for a while (its process was stopped, or its machine slept), so the hook was ended; the deployment is started again.")
		return a.yield(ctx, res, err)
	}
	t := classify(err)
	if t.store {
		a.closeLog(ctx)
		return err
	}
	why := &deployerv1.DeploymentError{Reason: t.reason, Message: t.message}
	res.Outside, res.Remote = t.origin != inCommit, t.origin == atBitbucket
	doubt, well, believed := a.believe(ctx, t)
	if believed || a.switched {
		w.cfg.Logger.WarnContext(ctx, "deployment failed", slog.String(logs.KeyReason, t.reason), logs.Err(err))
		a.say("Failed: %s", t.message)
		return a.end(ctx, "failed", func(l *storev1.Lane) error {
			return lane.Fail(l, a.run.GetEpoch(), deployerv1.Deployment_FAILED, why, res)
		})
	}
	if doubt != nil && !well {
		why.Message += " Bitbucket's other answers do not agree with that, so it may pass."
	}
	if doubt != nil {
		why.Message += " Devpilot asks again before it believes that."
	}
	return a.retryLater(ctx, err, t, doubt, why, res)
}

// believe tells whether a failure is to be taken for the truth, and what is kept of one that is not yet.
// well is what the witness says of the rest.
func (a *attempt) believe(ctx context.Context, t failure) (doubt *storev1.Doubt, well, believed bool) {
	switch t.belief {
	case final:
		return nil, true, true
	case passing:
		return nil, true, false
	case doubted:
	}
	now := a.w.cfg.Now()
	well, confirmed := true, false
	if t.origin == atBitbucket && a.w.cfg.Witness != nil {
		well, confirmed = a.w.cfg.Witness.Well(ctx, a.key.Workspace, a.app.GetRepository(), a.job.GetBranch(), t.reason)
	}
	doubt = lane.Doubting(a.job, t.reason, well, now)
	// A branch that nobody said is there, and that both of Bitbucket's interfaces do not have, is not
	// there.
	unclaimed := t.reason == string(apierr.ReasonBranchNotFound) && confirmed && a.unclaimed
	return doubt, well, unclaimed || lane.Believed(doubt, a.w.cfg.Doubt, now)
}

// yield hands the deployment and its wake-up to whoever is next, and returns why.
func (a *attempt) yield(ctx context.Context, res lane.Result, why error) error {
	if err := a.end(ctx, "yielded", func(l *storev1.Lane) error { return lane.Yield(l, a.run.GetEpoch(), res) }); err != nil {
		return err
	}
	return why
}

func (a *attempt) completed(ctx context.Context, res lane.Result) error {
	w := a.w
	a.closeLog(ctx)
	l, err := w.decide(ctx, a.key, func(l *storev1.Lane) error { return lane.Complete(l, a.run.GetEpoch(), res) })
	if err != nil {
		return err
	}
	w.cfg.Observe.Run(ctx, "completed", w.cfg.Now().Sub(a.begin))
	if lane.Automatic(a.job.GetTrigger()) {
		w.cfg.Observe.Live(ctx, w.cfg.Now().Sub(a.job.GetAskTime().AsTime()))
	}
	w.cfg.Logger.InfoContext(ctx, "deployment is live", logs.Duration(w.cfg.Now().Sub(a.begin)))
	a.sweep(ctx, l)
	return nil
}

// sweep removes the releases that are not kept any more.
func (a *attempt) sweep(ctx context.Context, l *storev1.Lane) {
	w := a.w
	var keep []string
	for _, k := range l.GetKept() {
		if k.GetServer() == w.cfg.Server {
			keep = append(keep, k.GetDirectory())
		}
	}
	if err := w.cfg.Releases.Sweep(ctx, a.key.Workspace, a.key.App, a.run.GetEpoch(), keep); err != nil && !errors.Is(err, release.ErrStale) {
		// The next deployment sweeps again.
		w.cfg.Logger.WarnContext(ctx, "old releases not removed", logs.Err(err))
	}
}

// end writes an end that is no success, and removes what the attempt has left: its release may be
// live all the same, and is kept then.
func (a *attempt) end(ctx context.Context, result string, fn func(*storev1.Lane) error) error {
	a.closeLog(ctx)
	l, err := a.w.decide(ctx, a.key, fn)
	if err != nil {
		return err
	}
	a.w.cfg.Observe.Run(ctx, result, a.w.cfg.Now().Sub(a.begin))
	if a.claimed && ctx.Err() == nil {
		a.sweep(ctx, l)
	}
	return nil
}

func (a *attempt) closeLog(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	a.log.Close(ctx)
}

// say writes one of Devpilot's own lines to the log.
func (a *attempt) say(format string, args ...any) {
	a.log.Line(a.progress.stage(), deployerv1.LogRecord_SYSTEM, fmt.Sprintf(format, args...))
}

// fixCommit chooses the commit.
func (a *attempt) fixCommit(ctx context.Context, c mirror.Commit, head, fullName string, notes []string) error {
	commit := &deployerv1.DeploymentCommit{
		Hash: c.Hash, Message: c.Message, AuthorName: c.AuthorName, AuthorEmail: c.AuthorEmail,
		Url: a.w.cfg.SiteURL + "/" + fullName + "/commits/" + c.Hash,
	}
	if !c.Time.IsZero() {
		commit.Time = timestamppb.New(c.Time)
	}
	var live int32
	l, err := a.w.cfg.Dispatcher.Change(ctx, a.key, func(l *storev1.Lane) (err error) {
		live, err = lane.FixCommit(l, a.run.GetEpoch(), a.app.GetRepository(), commit, head, a.w.cfg.Now(), notes...)
		return err
	})
	if err != nil {
		return err
	}
	if live != 0 {
		return errSuperseded{live}
	}
	a.commit = commit.GetHash()
	if a.commit == a.job.GetHash() && a.job.GetAttempt() <= 1 && len(notes) == 0 {
		return nil // the record says so already; what else is known of the commit is written with what comes next
	}
	return a.w.cfg.Dispatcher.Flush(ctx, a.key, l)
}

// load reads what people saved.
func (a *attempt) load(ctx context.Context) error {
	app, err := a.w.cfg.Apps.App(ctx, a.key)
	if apierr.Has(err, apierr.ReasonAppNotFound) {
		return errCancelled{string(apierr.ReasonAppNotFound), "The app was deleted."}
	}
	if err != nil {
		return err
	}
	a.app, a.settings = app, settings.Of(app)
	if a.variables, err = a.w.cfg.Apps.Variables(app, a.job.GetBranch()); err != nil {
		return err
	}
	secrets := map[string]seal.Secret{}
	for _, v := range a.variables {
		if v.Secret {
			secrets[v.Name] = v.Value
		}
	}
	for _, name := range a.log.Hide(secrets) {
		a.say("The value of %s, or each of its lines, is too short to be masked in this log.", name)
	}
	return nil
}

// wanted tells whether the deployment is still to be: auto-deploy may have been switched off, or
// the branch changed, since it was asked for.
func (a *attempt) wanted() error {
	switch {
	case !lane.Automatic(a.job.GetTrigger()):
		return nil
	case !a.app.GetAutoDeploy():
		return errCancelled{"AUTO_DEPLOY_OFF", "Auto-deploy was switched off before this deployment started."}
	case a.job.GetTag() != "" && !rules.MatchTag(a.app.GetRules().GetTags(), a.job.GetTag()):
		return errCancelled{"TAG_NOT_WATCHED", fmt.Sprintf("The app no longer deploys the tag %s.", a.job.GetTag())}
	case a.job.GetTag() == "" && !rules.MatchBranch(a.app.GetBranch(), a.job.GetBranch()):
		return errCancelled{"BRANCH_NOT_WATCHED", fmt.Sprintf("The app watches %s now, no longer %s.", a.app.GetBranch(), a.job.GetBranch())}
	}
	return nil
}
