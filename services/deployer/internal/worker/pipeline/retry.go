package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

var (
	// errLocked says that another process holds the app's directory: it may be stopped with the
	// lock in its hands.
	errLocked = errors.New("pipeline: the app's directory is locked")
	// errPoison says that every worker that ran the deployment died.
	errPoison = errors.New("pipeline: its workers die")
)

// origin says where a failure lies. What lies outside the commit may end without anybody pushing: the
// push is then deployed after all.
type origin int

const (
	inCommit    origin = iota // the same commit, or the app's settings, fail the same way again
	atBitbucket               // Bitbucket, git, the token, limits
	onServer                  // the server's disk, its workers
)

// belief says when a failure is taken for what it says.
type belief int

const (
	final   belief = iota // at once
	doubted               // when it has come for minutes while a witness says that the rest is well
	passing               // never: the deployment waits, up to lane.RetryLimit
)

type kind struct {
	origin origin
	belief belief
}

// kinds are the reasons of failures. One that is missing lies on the server, and is doubted.
var kinds = map[string]kind{
	reasonHookFailed:                 {inCommit, final},
	reasonHookTimedOut:               {inCommit, final},
	reasonTimeout:                    {inCommit, final},
	reasonCodeConfig:                 {inCommit, final},
	reasonNoDirectory:                {inCommit, final},
	reasonShared:                     {inCommit, final},
	remote.ReasonRepositoryTooLarge:  {inCommit, final},
	remote.ReasonTreeRefused:         {inCommit, final},
	remote.ReasonSubmoduleRefused:    {inCommit, final},
	remote.ReasonLFSFailed:           {inCommit, final},
	remote.ReasonFileTooLarge:        {inCommit, final},
	remote.ReasonCommitNotInBranch:   {inCommit, final},
	string(apierr.ReasonReleaseGone): {inCommit, final},

	string(apierr.ReasonRepositoryNotFound): {atBitbucket, doubted},
	string(apierr.ReasonBranchNotFound):     {atBitbucket, doubted},
	remote.ReasonTagNotFound:                {atBitbucket, doubted},
	remote.ReasonCommitGone:                 {atBitbucket, doubted},
	remote.ReasonGitFailed:                  {atBitbucket, doubted},
	string(apierr.ReasonAccessRefused):      {atBitbucket, doubted},
	string(apierr.ReasonAccessRestricted):   {atBitbucket, final}, // Bitbucket's own words say why
	string(apierr.ReasonScopeMissing):       {atBitbucket, final},
	string(apierr.ReasonWorkspaceExcluded):  {atBitbucket, final}, // an admin narrowed the workspace; widened again, it is tried again

	string(apierr.ReasonBitbucketUnavailable): {atBitbucket, passing},
	string(apierr.ReasonBitbucketRateLimited): {atBitbucket, passing},
	string(apierr.ReasonTokenExpired):         {atBitbucket, passing},
	string(apierr.ReasonReconnectRequired):    {atBitbucket, passing},
	string(apierr.ReasonConsumerRefused):      {atBitbucket, passing},
	string(apierr.ReasonNotConnected):         {atBitbucket, passing},

	remote.ReasonDiskFull:                   {onServer, passing},
	reasonLocked:                            {onServer, passing},
	string(apierr.ReasonStorageUnavailable): {onServer, passing},
	string(apierr.ReasonServiceUnavailable): {onServer, passing},
	string(apierr.ReasonTimeout):            {onServer, passing},
	string(apierr.ReasonCanceled):           {onServer, passing},
	string(apierr.ReasonRateLimited):        {onServer, passing},
	reasonWorkerDied:                        {onServer, final},
	reasonNoHookRunner:                      {onServer, final},
	reasonReleaseFailed:                     {onServer, doubted},
}

const (
	reasonTimeout       = "DEPLOYMENT_TIMEOUT"
	reasonCodeConfig    = "CODE_CONFIG_INVALID"
	reasonLocked        = "RELEASE_LOCKED"
	reasonWorkerDied    = "WORKER_DIED"
	reasonReleaseFailed = "RELEASE_FAILED"
	// reasonShared is how a shared path that cannot be had is told apart here; people read RELEASE_FAILED.
	reasonShared = "SHARED_PATH"
)

// failure is what an error means for the deployment.
type failure struct {
	kind
	reason, message string
	retryAfter      time.Duration
	// store says that our own store is away: nothing can be written down, the wake-up is tried
	// again.
	store bool
}

func failureOf(reason, message string) failure {
	k, ok := kinds[reason]
	if !ok {
		k = kind{onServer, doubted}
	}
	return failure{kind: k, reason: reason, message: message}
}

// classify decides where a failure lies, and whether it is for good, for now, or our own store's.
func classify(err error) failure {
	var m *remote.Error
	var public *apierr.Error
	var failed *failedHook
	var shared *release.SharedError
	switch {
	case errors.As(err, &failed):
		t := failureOf(failed.reason, failed.message)
		if failed.server {
			t.origin = onServer
		}
		return t
	case errors.Is(err, errTimeout):
		return failureOf(reasonTimeout, "The deployment took longer than a deployment may, and was stopped. Look at the log for the step that hangs.")
	case errors.As(err, &m):
		t := failureOf(m.Reason, m.Message)
		t.retryAfter = m.RetryAfter
		switch {
		case m.Doubtful:
			t.kind = kind{atBitbucket, doubted}
		case m.Temporary:
			t.belief = passing
		}
		return t
	case errors.Is(err, kv.ErrUnavailable), errors.Is(err, kv.ErrConflict), errors.Is(err, stream.ErrTemporary):
		return failure{store: true}
	case errors.Is(err, errLocked):
		return failureOf(reasonLocked, "Another worker still holds the lock on the app's directory. The deployment is tried again.")
	case errors.Is(err, errPoison):
		return failureOf(reasonWorkerDied, "Every worker that ran this deployment stopped answering before it was done: it crashed or was killed. Look at the deployer's memory and log, then deploy again.")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return failureOf(remote.ReasonDiskFull, "The server's disk is full. Make room; the deployment then goes on by itself.")
	case errors.Is(err, program.ErrDamaged):
		return failureOf(remote.ReasonGitFailed, "The repository could not be read even after it was fetched anew. See the deployer's log.")
	case errors.As(err, &shared):
		t := failureOf(reasonShared, fmt.Sprintf("The shared path %q cannot be set up. %s", shared.Path, shared.Message))
		t.reason = reasonReleaseFailed
		return t
	case errors.As(err, &public):
		t := failureOf(string(public.Reason()), public.Message())
		t.retryAfter = public.RetryAfter()
		return t
	}
	return failureOf(reasonReleaseFailed, "The release could not be made on the server. See the deployer's log for what its system said.")
}

// retryLater puts the pending deployment back to waiting, and has it tried again after a backoff.
func (a *attempt) retryLater(ctx context.Context, cause error, t failure, doubt *storev1.Doubt, why *deployerv1.DeploymentError, res lane.Result) error {
	w := a.w
	l, _, err := w.cfg.Dispatcher.Get(ctx, a.key)
	if err != nil {
		return err
	}
	pause := w.cfg.Backoff(l.GetHold().GetFailures(), t.reason)
	if t.retryAfter > 0 { // who asks us to wait knows for how long
		pause = t.retryAfter
	}
	wake := w.cfg.Now().Add(pause)
	w.cfg.Logger.InfoContext(ctx, "deployment waits", slog.String(logs.KeyReason, t.reason), slog.Int64(logs.KeyRetryIn, pause.Milliseconds()), logs.Err(cause))
	a.say("Waiting: %s The next try is in %v.", why.GetMessage(), pause.Round(time.Second))
	err = a.end(ctx, "returned", func(l *storev1.Lane) error {
		if err := lane.Doubt(l, a.run.GetEpoch(), doubt); err != nil {
			return err
		}
		return lane.RetryLater(l, a.run.GetEpoch(), why, wake, res)
	})
	if err != nil {
		return err
	}
	return w.cfg.Alarm.At(ctx, a.key, wake)
}

// DefaultBackoff is 5 s doubling up to the interval at which repositories are polled; that at once
// where Bitbucket limits us. The count of failures is in the lane, where it outlives processes, so that
// the pause is worked out from it and not kept by a backoff in memory.
func DefaultBackoff(most time.Duration) func(failures int32, reason string) time.Duration {
	return func(failures int32, reason string) time.Duration {
		d := min(5*time.Second<<min(failures, 10), most)
		if reason == string(apierr.ReasonBitbucketRateLimited) {
			d = most
		}
		return d - rand.N(d/4+1)
	}
}

// Witness is asked about a failure that may be a passing untruth.
type Witness interface {
	// Well tells whether all but what failed is well, as far as Bitbucket's other interface says.
	// confirmed says that it says the same of what failed.
	Well(ctx context.Context, workspace, repository, branch, reason string) (well, confirmed bool)
}
