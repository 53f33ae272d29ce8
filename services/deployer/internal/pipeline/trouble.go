package pipeline

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/release"
)

var (
	// errLocked says that another process holds the app's directory: it may be stopped with the
	// lock in its hands.
	errLocked = errors.New("pipeline: the app's directory is locked")
	// errPoison says that every worker that ran the deployment died.
	errPoison = errors.New("pipeline: its workers die")
)

// trouble is what an error means for the deployment.
type trouble struct {
	reason, message string
	temporary       bool
	retryAfter      time.Duration
	// store says that our own store is away: nothing can be written down, the wake-up is tried
	// again.
	store bool
}

// diagnose decides whether a failure is for good, for now, or our own store's.
func diagnose(err error) trouble {
	var m *mirror.Error
	var public *apierr.Error
	var failed *failedHook
	var shared *release.SharedError
	switch {
	case errors.As(err, &failed):
		return trouble{reason: failed.reason, message: failed.message}
	case errors.Is(err, errTimeout):
		return trouble{reason: "DEPLOYMENT_TIMEOUT", message: "The deployment took longer than a deployment may, and was stopped. Look at the log for the step that hangs."}
	case errors.As(err, &m):
		return trouble{reason: m.Reason, message: m.Message, temporary: m.Temporary, retryAfter: m.RetryAfter}
	case errors.Is(err, kv.ErrUnavailable), errors.Is(err, kv.ErrConflict), errors.Is(err, stream.ErrTemporary):
		return trouble{store: true}
	case errors.Is(err, errLocked):
		return trouble{reason: "RELEASE_LOCKED", temporary: true, message: "Another worker holds the app's directory and does not let go. The deployment is tried again."}
	case errors.Is(err, errPoison):
		return trouble{reason: "WORKER_DIED", message: "Every worker that ran this deployment stopped without a word. Look at the deployer's memory and log, then deploy again."}
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return trouble{reason: mirror.ReasonDiskFull, temporary: true, message: "The server's disk is full. Make room; the deployment then goes on by itself."}
	case errors.Is(err, mirror.ErrDamaged):
		return trouble{reason: mirror.ReasonGitFailed, message: "The repository could not be read even after it was fetched anew. See the deployer's log."}
	case errors.As(err, &shared):
		return trouble{reason: "RELEASE_FAILED", message: fmt.Sprintf("The shared path %q cannot be had. %s", shared.Path, shared.Message)}
	case errors.As(err, &public):
		return trouble{reason: string(public.Reason()), message: public.Message(), retryAfter: public.RetryAfter(), temporary: temporaryReason(public.Reason())}
	}
	return trouble{reason: "RELEASE_FAILED", message: "The release could not be made on the server. See the deployer's log for what its system said."}
}

// temporaryReason tells the reasons that go away without anybody changing the app: Bitbucket, its
// limits, tokens, our own neighbours.
func temporaryReason(r apierr.Reason) bool {
	return slices.Contains([]apierr.Reason{
		apierr.ReasonBitbucketUnavailable, apierr.ReasonBitbucketRateLimited, apierr.ReasonTokenExpired, apierr.ReasonReconnectRequired,
		apierr.ReasonConsumerRefused, apierr.ReasonNotConnected, apierr.ReasonStorageUnavailable, apierr.ReasonServiceUnavailable,
		apierr.ReasonTimeout, apierr.ReasonCanceled, apierr.ReasonRateLimited,
	}, r)
}

// DefaultBackoff is 5 s doubling to 5 min; a minute at least where Bitbucket limits us.
func DefaultBackoff(failures int32, reason string) time.Duration {
	d := min(5*time.Second<<min(failures, 10), 5*time.Minute)
	if reason == string(apierr.ReasonBitbucketRateLimited) {
		d = max(d, time.Minute)
	}
	return d - rand.N(d/4)
}
