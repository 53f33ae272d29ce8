package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// update brings one deployment's status at Bitbucket up to date.
type update struct {
	*Sender
	key    lane.Key
	number int32
	asked  time.Time // when the event came
}

// target is where a status goes.
type target struct {
	repository string // id
	fullName   string
	connection string
}

// maxSends bounds one update: a record only goes forward, over two statuses.
const maxSends = 4

// run sends what the record calls for, and again while it moves on.
func (l update) run(ctx context.Context) error {
	stale := false // what we sent last is outdated, and may have come after what another process sent
	for range maxSends {
		rec, _, err := l.cfg.Records.Get(ctx, l.key.Record(l.number))
		if errors.Is(err, kv.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("status: read deployment: %w", err)
		}
		w, ok := want(rec)
		if !ok {
			return nil
		}
		t, ok, err := l.target(ctx, rec)
		if err != nil || !ok {
			return err
		}
		mark := l.mark(rec, w, t.connection)
		if l.sent.has(mark) || !stale && l.marked(ctx, mark) {
			return nil
		}
		if err := l.close(ctx, rec, w, t); err != nil {
			return err
		}
		if skip, err := l.outdated(ctx, w); err != nil || skip {
			return err
		}
		if !w.end() {
			l.open(ctx, rec, w, t)
		}
		sending, span := tracing.Start(tracing.Continue(ctx, rec.GetTraceparent()), l.cfg.Tracer, "commit status", tracing.About{
			Workspace: l.key.Workspace, App: l.key.App, Repository: t.repository, Deployment: l.number,
		})
		sent, err := l.send(sending, w, t)
		span.End(err)
		if err != nil || !sent {
			return err
		}
		l.remember(ctx, mark)
		stale = true
	}
	return nil
}

// target finds out where to send; not ok where nothing is to be sent.
func (l update) target(ctx context.Context, rec *storev1.Deployment) (t target, ok bool, err error) {
	a, err := l.cfg.Apps.App(ctx, l.key)
	if apierr.Has(err, apierr.ReasonAppNotFound) {
		return t, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("status: read app: %w", err)
	}
	if a.GetCommitStatusOff() || a.GetGeneration() != rec.GetGeneration() {
		return t, false, nil
	}
	c, err := l.cfg.Connections.Get(ctx, l.key.Workspace)
	if err != nil {
		return t, false, fmt.Errorf("status: read connection: %w", err)
	}
	if c.GetDisconnected() || c.GetConnectionId() == "" {
		return t, false, nil
	}
	idx, err := l.cfg.Apps.Index(ctx, l.key.Workspace, a.GetRepository())
	if err != nil {
		return t, false, fmt.Errorf("status: read repository: %w", err)
	}
	return target{repository: a.GetRepository(), fullName: idx.GetFullName(), connection: c.GetConnectionId()}, true, nil
}

// outdated tells whether a newer deployment of the same commit has started, or took this one's
// place: the status is then that one's.
func (l update) outdated(ctx context.Context, w wanted) (bool, error) {
	same := func(number int32, started bool) (same, found bool, err error) {
		rec, _, err := l.cfg.Records.Get(ctx, l.key.Record(number))
		if errors.Is(err, kv.ErrNotFound) {
			return false, false, nil
		}
		if err != nil {
			return false, false, fmt.Errorf("status: read newer deployment: %w", err)
		}
		d := rec.GetDeployment()
		return d.GetCommit().GetHash() == w.hash && (!started || d.GetStartTime() != nil), true, nil
	}
	if w.twin > 0 {
		if twin, _, err := same(w.twin, false); err != nil || twin {
			return twin, err
		}
	}
	for n := l.number + 1; n <= l.number+maxNewer; n++ {
		newer, found, err := same(n, true)
		if err != nil || newer || !found {
			return newer, err
		}
	}
	return false, nil
}

// send makes the call. Not sent and without an error means that it is given up.
func (l update) send(ctx context.Context, w wanted, t target) (sent bool, err error) {
	now := l.cfg.Now()
	workspace := l.key.Workspace + "/" + t.connection
	repository := workspace + "/" + t.repository
	commit := repository + "/" + w.hash
	key := commit + "/" + l.key.App
	if h, held := l.backoffs.held(now, workspace, repository, commit, key); held {
		if h.refused {
			l.count("refused")
			return false, nil
		}
		return false, l.later(ctx, w, now, h.cause)
	}
	slug, _, _ := strings.Cut(t.fullName, "/")
	account := l.account(l.key.Workspace, t.fullName).Background()
	callCtx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = account.SetBuildStatus(callCtx, bitbucket.RefByID(slug, t.repository, t.fullName), w.hash, bitbucket.BuildStatus{
		Key: Key(l.key, t.connection), State: w.state, Name: "Devpilot: " + l.key.App, URL: link(l.cfg.PublicURL, l.key, l.number),
		Description: l.cfg.Mask(w.description), RefName: w.branch,
	})
	if err == nil {
		l.backoffs.clear(workspace, repository, commit, key)
		l.count("sent")
		return true, nil
	}
	if ctx.Err() != nil {
		return false, ctx.Err() // our own stop: the event comes again
	}
	switch how := judge(err); how.what {
	case temporary:
		l.backoffs.trouble(now, workspace, how.wait, err)
		return false, l.later(ctx, w, now, err)
	case temporaryThere:
		l.backoffs.trouble(now, repository, how.wait, err)
		return false, l.later(ctx, w, now, err)
	case refusedAccount:
		l.refused(ctx, now, workspace, err)
	case refusedRepository:
		l.refused(ctx, now, repository, err)
		if how.widens && l.backoffs.second(now, workspace, repository) {
			l.refused(ctx, now, workspace, err)
		}
	case refusedCommit:
		l.refused(ctx, now, commit, err)
	case refusedKey:
		l.refused(ctx, now, key, err)
		if how.widens && l.backoffs.second(now, repository, key) {
			l.refused(ctx, now, repository, err)
		}
	}
	return false, nil
}

func (l update) refused(ctx context.Context, now time.Time, name string, err error) {
	l.count("refused")
	if l.backoffs.refuse(now, name, err) {
		l.cfg.Logger.WarnContext(ctx, "commit status refused", logs.Err(err), slog.Int64(logs.KeyRetryIn, refusedBackoff.Milliseconds()))
	}
}

// later leaves the event to come again, as long as that makes sense. Where calls are short it makes sense
// for long: the status is not wrong, it is only its turn after others. When its turn comes, what is sent is
// how the deployment stands by then.
func (l update) later(ctx context.Context, w wanted, now time.Time, err error) error {
	most, short := timeout, limited(err)
	if short {
		most = shortTimeout
	}
	switch {
	case !w.end() && !short:
		l.count("dropped")
		return nil
	case now.Sub(l.asked) > most:
		l.count("dropped")
		l.cfg.Logger.WarnContext(ctx, "commit status given up", slog.String(logs.KeyState, string(w.state)), slog.String(logs.KeyCommit, w.hash), logs.Err(err))
		return nil
	}
	l.count("waiting")
	// Unanswered, the event comes again after Retry: no delayed refusal, which would be a line in
	// the log for each try.
	return stream.ErrLeave
}

// limited tells that a call was held back for want of budget: by our own count, or by Bitbucket's.
func limited(err error) bool {
	return bitbucket.IsKind(err, bitbucket.KindRateLimited) || apierr.Has(err, apierr.ReasonBitbucketRateLimited)
}

// What a failed call means for others.
type meaning int

const (
	temporary      meaning = iota
	temporaryThere         // an answer says something about the repository that it was given for
	refusedAccount
	refusedRepository
	refusedCommit
	refusedKey // of one commit
)

type judgement struct {
	what   meaning
	wait   time.Duration // what Bitbucket asked for, with temporary and temporaryThere
	widens bool          // a second refusal like it says that it is about more
}

// judge reads an error of SetBuildStatus.
func judge(err error) judgement {
	var e *bitbucket.Error
	if !errors.As(err, &e) {
		return judgeToken(err)
	}
	switch e.Kind {
	case bitbucket.KindNetwork:
		return judgement{what: temporary}
	case bitbucket.KindRateLimited, bitbucket.KindUnavailable, bitbucket.KindBadResponse, bitbucket.KindUnknown, bitbucket.KindRefused:
		return judgement{what: temporaryThere, wait: e.RetryAfter}
	case bitbucket.KindScopeMissing, bitbucket.KindCallRemoved:
		return judgement{what: refusedAccount}
	case bitbucket.KindUnauthorized:
		// Bitbucket answers it about one repository to credentials that are good elsewhere.
		return judgement{what: refusedRepository, widens: true}
	case bitbucket.KindAccessRestricted, bitbucket.KindGone:
		return judgement{what: refusedRepository}
	case bitbucket.KindForbidden:
		// It may be that another account made this one (BITBUCKET.md#build-statuses).
		return judgement{what: refusedKey, widens: true}
	case bitbucket.KindInvalid:
		return judgement{what: refusedKey}
	case bitbucket.KindNotFound:
		// 404 is the repository or the commit (BITBUCKET.md#build-statuses): the careful reading.
		return judgement{what: refusedCommit}
	}
	return judgement{what: refusedKey}
}

// judgeToken reads an error of the token source.
func judgeToken(err error) judgement {
	e := apierr.From(err)
	switch e.Reason() { //nolint:exhaustive // the rest is told by its kind
	case apierr.ReasonNotConnected, apierr.ReasonReconnectRequired, apierr.ReasonScopeMissing, apierr.ReasonConsumerRefused:
		return judgement{what: refusedAccount}
	}
	return judgement{what: temporary, wait: e.RetryAfter()}
}
