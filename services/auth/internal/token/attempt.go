package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// Step 3: an attempt takes the lease, spends a refresh token and has the result stored.

// attempt takes the lease, spends a refresh token and stores what came of it. It returns the record
// when that holds the answer. Neither a record nor an error means that somebody else was faster, or
// the record moved on: read it again.
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
func (m *Manager) finish(ctx context.Context, ws string, at rotation.Attempt, r result) (stored, error) {
	limit := m.abort
	if r.answer == nil {
		limit = nil
	}
	return m.store(ctx, ws, limit, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
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

// report tells log and metrics what came of an attempt.
func (m *Manager) report(ctx context.Context, ws string, at rotation.Attempt, r result, s stored, took time.Duration) {
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
