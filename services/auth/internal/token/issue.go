package token

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// Step 1 of a token: what the record says is handed out, or a flight is waited for.

// Issue hands out an access token that lives at least minLife. rejected is the SHA-256 of a token
// that Bitbucket answered 401 for. If it is the stored one, Bitbucket is asked whether it accepts that
// elsewhere: it is handed out again if so, and renewed first if not. Where our own budget leaves no call
// for the question, a refresh answers it too: the token endpoint is not counted. Errors are *apierr.Error or
// errors of pkg/kv.
func (m *Manager) Issue(ctx context.Context, workspace string, minLife time.Duration, rejected []byte) (Token, error) {
	tok, err := m.issue(ctx, workspace, minLife, rejected)
	result := "ok"
	if err != nil {
		result = string(apierr.ReasonOf(kv.ToAPI(err)))
	}
	m.cfg.Metrics.issued.WithLabelValues(result).Inc()
	return tok, err
}

func (m *Manager) issue(ctx context.Context, workspace string, minLife time.Duration, sha []byte) (Token, error) {
	rec, err := m.get(ctx, workspace)
	if err != nil {
		return Token{}, err
	}
	want := rotation.Want{MinLife: minLife, SeenConnection: rec.GetConnectionId(), Seen: rec.GetGeneration()}
	if rec != nil && len(sha) > 0 && !rec.GetAccess().GetRejected() && m.isAccessToken(rec, sha) {
		v, err := m.probed(ctx, rec)
		switch {
		case err != nil:
			return Token{}, err
		case v == undecided, v == heldBack && rotation.RejectedAgain(rec, m.cfg.Now()):
			return Token{}, errUndecided
		case v == rejected && rotation.RejectedAgain(rec, m.cfg.Now()):
			return Token{}, m.rejectFresh(ctx, rec)
		}
		want.Rejected = v == rejected || v == heldBack
	}
	rec, err = m.obtain(ctx, workspace, rec, want)
	if err != nil {
		return Token{}, err
	}
	m.noteUse(ctx, rec)
	return m.open(rec)
}

// Refresh renews the tokens because a person asked, and returns the integration. After a refusal it
// repeats the stored answer with a retry time; right after a success it does nothing.
func (m *Manager) Refresh(ctx context.Context, workspace string) (*authstorev1.Integration, error) {
	rec, err := m.get(ctx, workspace)
	if err != nil {
		return nil, err
	}
	if rec.GetFailure() == nil && m.cfg.Now().Sub(rec.GetLastRefreshTime().AsTime()) < recently {
		return m.obtain(ctx, workspace, rec, rotation.Want{SeenConnection: rec.GetConnectionId(), Seen: rec.GetGeneration()})
	}
	return m.obtain(ctx, workspace, rec, rotation.Want{
		Force: true, Person: true, SeenConnection: rec.GetConnectionId(), Seen: rec.GetGeneration(),
	})
}

// obtain returns a record that meets the want, waiting for flights as needed. rec is what the caller
// has just read.
func (m *Manager) obtain(ctx context.Context, workspace string, rec *authstorev1.Integration, want rotation.Want) (*authstorev1.Integration, error) {
	// A flight that was under way may have wanted less. After the second of our own there is nothing
	// more to hope for.
	for range 3 {
		c := m.Consumer()
		verb, denial := rotation.Decide(rec, m.question(want, c, false))
		switch verb {
		case rotation.Serve:
			return rec, nil
		case rotation.Deny:
			return nil, status.Denied(denial, rec, c, m.cfg.Now())
		case rotation.Wait, rotation.Renew:
		}
		f := m.join(ctx, workspace, want)
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, slow(ctx)
		}
		if f.err != nil {
			return nil, f.err
		}
		rec = f.rec
	}
	return nil, status.Denied(rotation.NotDenied, rec, m.Consumer(), m.cfg.Now())
}

// slow is the answer to a caller who cannot wait any longer; the flight goes on.
func slow(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("wait for the token refresh: %w", ctx.Err())
	}
	return apierr.New(apierr.ReasonTokenExpired, "The token is being renewed at Bitbucket, which takes longer than usual. Try again in a moment.",
		apierr.WithRetryAfter(5*time.Second), apierr.WithCause(ctx.Err()))
}

// open turns a record into the token it holds.
func (m *Manager) open(rec *authstorev1.Integration) (Token, error) {
	access, err := m.cfg.Tokens.OpenAccess(rec.GetWorkspace(), rec.GetAccess().GetSealed())
	if err != nil {
		return Token{}, unreadable(err)
	}
	t := Token{
		Access: access, ConnectionID: rec.GetConnectionId(), SiteURL: rec.GetSiteUrl(), APIURL: rec.GetApiUrl(),
		AccountUUID: rec.GetAccount().GetUuid(),
	}
	if e := rec.GetAccess().GetExpireTime(); e != nil {
		t.ExpireTime = e.AsTime()
	}
	return t, nil
}

// unreadable is the answer when the keyset in use cannot open what is stored.
func unreadable(err error) error {
	return apierr.New(apierr.ReasonReconnectRequired, status.Unreadable, apierr.WithCause(err))
}

func (m *Manager) isAccessToken(rec *authstorev1.Integration, sha []byte) bool {
	access, err := m.cfg.Tokens.OpenAccess(rec.GetWorkspace(), rec.GetAccess().GetSealed())
	if err != nil {
		return false // it is not handed out either
	}
	sum := sha256.Sum256([]byte(access.Reveal()))
	return subtle.ConstantTimeCompare(sum[:], sha) == 1
}
