package token

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// Step 2: one flight for each workspace and process reads the record until it holds what is wanted, or
// attempts a refresh.

// flight is one refresh, or the wait for another process's. It is not golang.org/x/sync/singleflight, in
// which a panic ends the process, and which takes new work while the process ends. rec, the record at its
// end, and err are set before done is closed.
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

// fly sees to it that the want is met, by another process or by itself. It returns the record when
// it has something to offer, and else why not.
func (m *Manager) fly(ctx context.Context, workspace string, want rotation.Want) (*authstorev1.Integration, error) {
	var seen staleness
	pauses, attempts := stream.Pauses(m.time.Poll, m.time.MaxPoll), 0
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
			if err := m.rest(pauses.NextBackOff(), m.closing); err != nil {
				return nil, err
			}
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

// maxAttempts bounds a flight whose record does not come to rest.
const maxAttempts = 8

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
