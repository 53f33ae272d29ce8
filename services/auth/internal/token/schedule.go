package token

import (
	"context"
	"hash/fnv"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

// Step 5: the schedule follows the record.

// Changed brings the schedule in line with a record that somebody else wrote: a connect and its
// revision, or nil for a removal and the last revision there was. Failures are logged: the sweep
// mends them.
func (m *Manager) Changed(ctx context.Context, workspace string, rec *authstorev1.Integration, rev uint64) {
	if rec == nil {
		m.mu.Lock()
		delete(m.uses, workspace)
		delete(m.probes, workspace)
		m.mu.Unlock()
	}
	m.reschedule(ctx, workspace, rec, rev)
}

func (m *Manager) reschedule(ctx context.Context, workspace string, rec *authstorev1.Integration, rev uint64) {
	if err := m.updateSchedule(ctx, workspace, rec, rev); err != nil {
		m.cfg.Logger.WarnContext(ctx, "schedule not updated", slog.String(logs.KeyWorkspace, workspace), logs.Err(err))
	}
}

const scheduleTimeout = 4 * time.Second // for writing what is due

func (m *Manager) updateSchedule(ctx context.Context, workspace string, rec *authstorev1.Integration, rev uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), scheduleTimeout)
	defer cancel()
	return m.cfg.Schedules.Update(ctx, workspace, func(cur *authstorev1.Schedule) *authstorev1.Schedule {
		switch {
		case cur.GetRevision() > rev:
			return cur
		case rec == nil:
			return nil
		}
		last := m.lastUse(workspace)
		if cur.GetConnectionId() == rec.GetConnectionId() && cur.GetLastUseTime() != nil && cur.GetLastUseTime().AsTime().After(last) {
			last = cur.GetLastUseTime().AsTime()
		}
		return rotation.Schedule(rec, rev, last, spread(rec.GetConnectionId()), m.cfg.Now())
	})
}

// noteUse keeps the connection among those that are renewed ahead of expiry.
func (m *Manager) noteUse(ctx context.Context, rec *authstorev1.Integration) {
	ws, now := rec.GetWorkspace(), m.cfg.Now()
	m.mu.Lock()
	noted := m.uses[ws]
	fresh := now.Sub(noted) < used
	if !fresh {
		m.uses[ws] = now.Truncate(time.Second)
	}
	m.mu.Unlock()
	if fresh || now.Sub(m.cfg.Index.Get(ws).GetLastUseTime().AsTime()) < used {
		return
	}
	ctx = context.WithoutCancel(ctx)
	m.goWork(func() {
		if rec, rev, err := m.getRev(ctx, ws); err == nil && rec != nil { // else the next use tries again
			m.reschedule(ctx, ws, rec, rev)
		}
	})
}

func (m *Manager) lastUse(workspace string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uses[workspace]
}

// spread is a number in [0, 1) of the connection's own.
func spread(connectionID string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(connectionID))
	return float64(h.Sum32()) / (1 << 32)
}
