package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// flight is one refresh, or the wait for another process's. It is not golang.org/x/sync/singleflight, in
// which a panic ends the process, and which takes new work while the process ends. rec, the record at its end, and err are
// set before done is closed.
type flight struct {
	done chan struct{}
	rec  *authstorev1.Integration // shared by all who waited: not to be changed
	err  error
}

// join returns the workspace's flight, starting one if there is none. A flight belongs to no caller:
// it keeps the values of the context of the one who started it, but neither its end nor its deadline.
func (m *Manager) join(ctx context.Context, workspace string, want rotation.Want) *flight {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.flights[workspace]; f != nil {
		return f
	}
	f := &flight{done: make(chan struct{})}
	if m.closed {
		f.err = errClosing
		close(f.done)
		return f
	}
	m.flights[workspace] = f
	ctx = context.WithoutCancel(ctx)
	m.work.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				m.cfg.Logger.ErrorContext(ctx, "panic in a token refresh", slog.String(logs.KeyWorkspace, workspace),
					slog.Any(logs.KeyErr, r), slog.String(logs.KeyStack, string(debug.Stack())))
				f.err = fmt.Errorf("panic in the token refresh of workspace %s", workspace)
			}
			m.mu.Lock()
			delete(m.flights, workspace)
			m.mu.Unlock()
			close(f.done)
		}()
		f.rec, f.err = m.fly(ctx, workspace, want)
	})
	return f
}

var errClosing = apierr.New(apierr.ReasonServiceUnavailable, "This part of Devpilot is restarting. Try again in a moment.", apierr.WithRetryAfter(time.Second))

// fly sees to it that the want is met, by another process or by itself. It returns the record when
// it has something to offer, and else why not.
func (m *Manager) fly(ctx context.Context, workspace string, want rotation.Want) (*authstorev1.Integration, error) {
	var seen staleness
	pause, attempts := m.time.Poll, 0
	for {
		rec, rev, err := m.getRev(ctx, workspace)
		if err != nil {
			return nil, err
		}
		c := m.Consumer()
		verb, denial := rotation.Decide(rec, m.question(want, c, seen.longer(rev, m.time.TakeOver)))
		switch verb {
		case rotation.Serve:
			return rec, nil
		case rotation.Deny:
			return nil, status.Denied(denial, rec, c, m.cfg.Now())
		case rotation.Wait:
			if err := m.rest(pause, m.closing); err != nil {
				return nil, err
			}
			pause = min(pause*3/2, m.time.MaxPoll)
		case rotation.Renew:
			if attempts++; attempts > maxAttempts {
				return nil, status.Denied(rotation.NotDenied, rec, c, m.cfg.Now())
			}
			if closed(m.closing) {
				return nil, errClosing
			}
			if done, err := m.reprove(ctx, rec); done != nil || err != nil {
				return done, err
			}
			if done, err := m.attempt(ctx, rec, rev, want); done != nil || err != nil {
				return done, err
			}
		}
	}
}

// reprove asks whether Bitbucket accepts again a token that it rejected although it was new: with an
// outage the reason for it ends. It returns the record if so, and an error until it is time for
// another refresh; neither where that is the way.
func (m *Manager) reprove(ctx context.Context, rec *authstorev1.Integration) (*authstorev1.Integration, error) {
	if rec.GetFailure().GetKind() != authstorev1.Failure_REJECTED {
		return nil, nil
	}
	v, err := m.probed(ctx, rec)
	if err != nil {
		return nil, err
	}
	now := m.cfg.Now()
	if v == rejected && now.Sub(rec.GetLastRefreshTime().AsTime()) >= rotation.RejectedRetry {
		return nil, nil
	}
	s, err := m.settle(ctx, rec.GetWorkspace(), nil, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
		switch {
		case cur.GetConnectionId() != rec.GetConnectionId() || cur.GetGeneration() != rec.GetGeneration() || cur.GetFailure().GetKind() != authstorev1.Failure_REJECTED:
			return nil, rotation.Overtaken
		case v == accepted:
			return rotation.AcceptAgain(cur), rotation.Recorded
		default:
			return rotation.RejectFresh(cur, m.cfg.Consumer.Fingerprint, now), rotation.Recorded
		}
	})
	if err != nil || s.out != rotation.Recorded {
		return nil, err
	}
	m.reschedule(ctx, rec.GetWorkspace(), s.rec, s.rev)
	if v == accepted {
		return s.rec, nil
	}
	return nil, status.Denied(rotation.Failing, s.rec, m.Consumer(), now)
}

// maxAttempts bounds a flight whose record does not come to rest.
const maxAttempts = 8

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// staleness observes a record's revision by this process's monotonic clock. No wall clock and no
// other process's clock has a say in who may take a lease over.
type staleness struct {
	rev   uint64
	since time.Time
}

func (s *staleness) longer(rev uint64, than time.Duration) bool {
	now := time.Now()
	if s.since.IsZero() || rev != s.rev {
		s.rev, s.since = rev, now
		return false
	}
	return now.Sub(s.since) >= than
}

// rest pauses for about d, unless quit is closed.
func (m *Manager) rest(d time.Duration, quit <-chan struct{}) error {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-quit:
		return errClosing
	}
}

// attempt takes the lease, spends a refresh token and settles what came of it. It returns the record
// when that holds the answer. Neither a record nor an error means that somebody else was faster, or
// the record moved on: look again.
func (m *Manager) attempt(ctx context.Context, rec *authstorev1.Integration, rev uint64, want rotation.Want) (*authstorev1.Integration, error) {
	begin := time.Now()
	ws := rec.GetWorkspace()
	// The caller saw Rejected of the generation it named; a newer token is not rejected.
	reject := want.Rejected && rec.GetConnectionId() == want.SeenConnection && rec.GetGeneration() == want.Seen
	next, at := rotation.Acquire(rec, m.cfg.Self, m.cfg.Now(), rotation.AcquireOptions{RejectAccess: reject})
	if _, err := m.cfg.Integrations.CompareAndSet(ctx, ws, next, rev); err != nil {
		if errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrNotFound) {
			return nil, nil
		}
		// It may have been stored: then it is our own lease, which the next flight takes again.
		return nil, fmt.Errorf("take the refresh lease of workspace %s: %w", ws, err)
	}
	if at.TookOver {
		m.cfg.Metrics.takeovers.Inc()
		m.cfg.Logger.WarnContext(ctx, "refresh lease taken over from a silent process", slog.String(logs.KeyWorkspace, ws))
	}
	r := m.spend(ctx, ws, at, begin)
	s, err := m.finish(ctx, ws, at, r)
	if err != nil {
		return nil, err
	}
	m.report(ctx, ws, at, r, s, time.Since(begin))
	m.reschedule(ctx, ws, s.rec, s.rev)
	switch {
	case r.unreadable != nil:
		return nil, unreadable(r.unreadable)
	case s.out == rotation.Stored || s.out == rotation.StoredBefore:
		return s.rec, nil
	case s.out == rotation.Recorded:
		return nil, status.Denied(rotation.Failing, s.rec, m.Consumer(), m.cfg.Now())
	}
	return nil, nil // dropped, kept as a spare, overtaken
}

// result is what Bitbucket made of an attempt: exactly one of answer, refusal and trouble is set.
type result struct {
	answer  *rotation.Answer
	refusal *rotation.Refusal
	trouble *rotation.Trouble
	cause   error // for the log
	// unreadable is set when a stored token could not be opened, which no retry mends.
	unreadable error
}

// spend tries the candidates in their order until one is not refused. begin is when the attempt
// began: the time is checked again before each call, because a process that was stopped for a while
// must not spend a token that another one has taken over meanwhile.
func (m *Manager) spend(ctx context.Context, ws string, at rotation.Attempt, begin time.Time) result {
	ctx, cancel := context.WithTimeout(ctx, m.time.Refresh-time.Since(begin))
	defer cancel()
	fp := m.cfg.Consumer.Fingerprint
	var refusal rotation.Refusal
	var last, sealed error
	for _, c := range at.Candidates {
		token, err := m.cfg.Tokens.OpenRefresh(ws, c.Sealed)
		if err != nil {
			sealed = err
			continue
		}
		if refusal.Began.IsZero() {
			refusal.Began = m.cfg.Now()
		}
		if time.Since(begin) >= m.time.Refresh {
			return result{trouble: &rotation.Trouble{Fingerprint: fp, Jitter: rand.Float64()}, cause: context.DeadlineExceeded}
		}
		grant, err := m.cfg.Bitbucket.Refresh(ctx, token)
		if err == nil {
			return m.answered(ws, c, grant)
		}
		last = err
		var oe *bitbucket.OAuthError
		if !errors.As(err, &oe) || oe.Class == bitbucket.OAuthTransient {
			tr := rotation.Trouble{Fingerprint: fp, Jitter: rand.Float64()}
			if oe != nil {
				tr.Status, tr.RetryAfter, tr.RateLimited = oe.Status, oe.RetryAfter, oe.Status == http.StatusTooManyRequests
			}
			return result{trouble: &tr, cause: err}
		}
		refusal.Status = oe.Status
		if refusal.Consumer = oe.Class == bitbucket.OAuthConsumerMisconfigured; refusal.Consumer {
			break // the other tokens would fare no better
		}
	}
	if last == nil { // none could even be opened
		return result{trouble: &rotation.Trouble{Unreadable: true, Fingerprint: fp, Jitter: rand.Float64()}, cause: sealed, unreadable: sealed}
	}
	refusal.Fingerprint, refusal.Jitter = fp, rand.Float64()
	return result{refusal: &refusal, cause: last}
}

// answered seals what Bitbucket answered.
func (m *Manager) answered(ws string, spent rotation.Candidate, g bitbucket.Grant) result {
	refresh, id, err := m.cfg.Tokens.SealRefresh(ws, g.RefreshToken)
	if err != nil {
		return result{trouble: &rotation.Trouble{Fingerprint: m.cfg.Consumer.Fingerprint}, cause: err}
	}
	access, err := m.cfg.Tokens.SealAccess(ws, g.AccessToken)
	if err != nil {
		return result{trouble: &rotation.Trouble{Fingerprint: m.cfg.Consumer.Fingerprint}, cause: err}
	}
	return result{answer: &rotation.Answer{
		Spent: spent.ID, RefreshID: id, Refresh: refresh, Access: access,
		Expiry: g.Expiry, Scopes: g.Scopes, Fingerprint: m.cfg.Consumer.Fingerprint,
	}}
}

// finish stores a result. An answer is stored however long the store takes, as long as the process
// lives: nobody else has it. The others may be given up; the lease is then taken over one day.
func (m *Manager) finish(ctx context.Context, ws string, at rotation.Attempt, r result) (settled, error) {
	limit := m.abort
	if r.answer == nil {
		limit = nil
	}
	return m.settle(ctx, ws, limit, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
		switch {
		case r.answer != nil:
			return rotation.StoreAnswer(cur, at, *r.answer, m.cfg.Now())
		case r.refusal != nil:
			refusal := *r.refusal
			refusal.Evidence = m.cfg.Index.Evidence(ws, m.cfg.Consumer.Key, m.cfg.Consumer.Fingerprint)
			return rotation.RecordRefusal(cur, at, refusal, m.cfg.Now())
		default:
			return rotation.RecordTrouble(cur, at, *r.trouble, m.cfg.Now())
		}
	})
}

// settled is the record after a write: nil when it is gone.
type settled struct {
	rec *authstorev1.Integration
	rev uint64
	out rotation.Outcome
}

// settleTries bounds writes that may be given up.
const settleTries = 8

// settle stores what decide makes of the record as it is, by compare-and-set, again from the start
// while others win or the store is away: until abort is closed, or with nil a few times.
func (m *Manager) settle(ctx context.Context, ws string, abort <-chan struct{}, decide func(*authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome)) (settled, error) {
	pause := 10 * time.Millisecond
	for try := 1; ; try++ {
		cur, rev, err := m.getRev(ctx, ws)
		if err == nil {
			next, out := decide(cur)
			if next == nil {
				return settled{cur, rev, out}, nil
			}
			if rev, err = m.cfg.Integrations.CompareAndSet(ctx, ws, next, rev); err == nil {
				return settled{next, rev, out}, nil
			}
		}
		contended := errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrNotFound)
		if !contended && !errors.Is(err, kv.ErrUnavailable) || abort == nil && try == settleTries {
			return settled{}, fmt.Errorf("store the result of a token refresh of workspace %s: %w", ws, err)
		}
		if !contended && try == 1 {
			m.cfg.Logger.WarnContext(ctx, "the result of a token refresh waits for the store", slog.String(logs.KeyWorkspace, ws), logs.Err(err))
		}
		if m.rest(pause, abort) != nil {
			return settled{}, fmt.Errorf("store the result of a token refresh of workspace %s before the process ended: %w", ws, err)
		}
		pause = min(2*pause, m.time.MaxPoll)
	}
}

// report tells log and metrics what came of an attempt.
func (m *Manager) report(ctx context.Context, ws string, at rotation.Attempt, r result, s settled, took time.Duration) {
	name, level := resultStored, slog.LevelInfo
	switch {
	case s.out == rotation.Dropped:
		name = resultDropped
	case s.out == rotation.KeptAsSpare:
		name, level = resultSpare, slog.LevelWarn
	case s.out == rotation.Overtaken:
		name = resultOvertaken
	case r.refusal != nil && s.rec.GetReconnectRequired():
		name, level = resultGivenUp, slog.LevelError
	case r.refusal != nil:
		name, level = resultRefused, slog.LevelWarn
		m.doubt(ws, s.rec)
	case r.trouble != nil && r.trouble.RateLimited:
		name, level = resultRateLimited, slog.LevelWarn
	case r.trouble != nil:
		name, level = resultUnavailable, slog.LevelWarn
	}
	m.cfg.Metrics.refreshes.WithLabelValues(name).Inc()
	attrs := []slog.Attr{
		slog.String(logs.KeyWorkspace, ws), slog.String(logs.KeyConnection, at.ConnectionID),
		slog.String(logs.KeyReason, name), logs.Duration(took),
	}
	if r.cause != nil {
		attrs = append(attrs, logs.Err(r.cause))
	}
	m.cfg.Logger.LogAttrs(ctx, level, "token refresh", attrs...)
}

// doubt asks for a witness when a refusal may be the consumer's fault and nobody has refreshed since
// to tell.
func (m *Manager) doubt(ws string, rec *authstorev1.Integration) {
	e := m.cfg.Index.Evidence(ws, m.cfg.Consumer.Key, m.cfg.Consumer.Fingerprint)
	if e.Others && e.LastSuccess.Before(rec.GetFailure().GetSinceTime().AsTime()) {
		m.onDoubt(ws)
	}
}
