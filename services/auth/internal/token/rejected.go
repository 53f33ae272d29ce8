package token

import (
	"context"
	"log/slog"

	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// Beside the steps: a token that Bitbucket rejects although it has just issued it.

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
	s, err := m.store(ctx, rec.GetWorkspace(), nil, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
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

// rejectFresh stores that even the newest token was answered with 401, and returns what to say.
func (m *Manager) rejectFresh(ctx context.Context, seen *authstorev1.Integration) error {
	now := m.cfg.Now()
	s, err := m.store(ctx, seen.GetWorkspace(), nil, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
		if cur.GetConnectionId() != seen.GetConnectionId() || cur.GetGeneration() != seen.GetGeneration() {
			return nil, rotation.Overtaken
		}
		return rotation.RejectFresh(cur, m.cfg.Consumer.Fingerprint, now), rotation.Recorded
	})
	if err != nil {
		return err
	}
	if s.out != rotation.Recorded {
		return status.Denied(rotation.NotDenied, s.rec, m.Consumer(), now)
	}
	m.reschedule(ctx, seen.GetWorkspace(), s.rec, s.rev)
	m.cfg.Logger.WarnContext(ctx, "bitbucket rejects a token that it has just issued", slog.String(logs.KeyWorkspace, seen.GetWorkspace()), slog.String(logs.KeyConnection, seen.GetConnectionId()))
	return status.Denied(rotation.Failing, s.rec, m.Consumer(), now)
}
