package token

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/status"
)

// Config is what a Manager needs. All but Timing and Now is required.
type Config struct {
	// Self names this process; no two processes have the same, not even one after the other.
	Self         string
	Integrations Integrations
	Schedules    Schedules
	Index        *Index
	Bitbucket    Refresher
	Prober       Prober
	Tokens       Sealer
	// Consumer is what Devpilot is set up with; its Health is filled in from the Index.
	Consumer rotation.Consumer
	Logger   *slog.Logger
	Metrics  *Metrics
	Timing   Timing
	Now      func() time.Time // the wall clock; nil: time.Now
}

// Manager hands out tokens. It is safe for concurrent use.
type Manager struct {
	cfg  Config
	time Timing

	mu      sync.Mutex
	flights map[string]*flight // by workspace
	probes  map[string]*probe  // by workspace
	uses    map[string]time.Time
	closed  bool
	work    sync.WaitGroup
	closing chan struct{} // closed first: those who only wait give up
	abort   chan struct{} // closed last: answers that still cannot be stored are lost
	// onDoubt is told of a refusal that may be the consumer's fault.
	onDoubt func(workspace string)
}

// NewManager does no I/O.
func NewManager(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Manager{
		cfg: cfg, time: cfg.Timing.withDefaults(),
		flights: map[string]*flight{}, probes: map[string]*probe{}, uses: map[string]time.Time{},
		closing: make(chan struct{}), abort: make(chan struct{}), onDoubt: func(string) {},
	}
}

// Consumer is the OAuth consumer as it stands now.
func (m *Manager) Consumer() rotation.Consumer {
	c := m.cfg.Consumer
	c.Health = m.cfg.Index.Health(c.Fingerprint)
	return c
}

// Issue hands out an access token that lives at least minLife. rejected is the SHA-256 of a token
// that Bitbucket answered 401 for. If it is the stored one, Bitbucket is asked whether it accepts that
// elsewhere: it is handed out again if so, and renewed first if not. Errors are *apierr.Error or
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
		case v == undecided:
			return Token{}, errUndecided
		case v == rejected && rotation.RejectedAgain(rec, m.cfg.Now()):
			return Token{}, m.rejectFresh(ctx, rec)
		}
		want.Rejected = v == rejected
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

func (m *Manager) question(w rotation.Want, c rotation.Consumer, stale bool) rotation.Question {
	return rotation.Question{Want: w, Consumer: c, Self: m.cfg.Self, LeaseStale: stale, Now: m.cfg.Now()}
}

// get reads the integration from the leader; nil when there is none.
func (m *Manager) get(ctx context.Context, workspace string) (*authstorev1.Integration, error) {
	rec, _, err := m.getRev(ctx, workspace)
	return rec, err
}

func (m *Manager) getRev(ctx context.Context, workspace string) (*authstorev1.Integration, uint64, error) {
	rec, rev, err := m.cfg.Integrations.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the integration of workspace %s: %w", workspace, err)
	}
	return rec, rev, nil
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

// rejectFresh stores that even the newest token was answered with 401, and returns what to say.
func (m *Manager) rejectFresh(ctx context.Context, seen *authstorev1.Integration) error {
	now := m.cfg.Now()
	s, err := m.settle(ctx, seen.GetWorkspace(), nil, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
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

const scheduleTimeout = 4 * time.Second // for writing what is due

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

// goWork runs f in the background; shutdown waits for it. It does nothing once the manager is
// closed.
func (m *Manager) goWork(f func()) (begun bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.work.Go(f)
	}
	return !m.closed
}

// Close lets no flight begin, and waits for those under way: a refresh whose answer is not stored is
// a lost connection. It returns an error when they take longer than the drain time.
func (m *Manager) Close() error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.closing)
	}
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		m.work.Wait()
		close(done)
	}()
	timer := time.NewTimer(m.time.Drain)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	}
	close(m.abort)
	<-done
	return errors.New("token refreshes were cut by the shutdown")
}

// spread is a number in [0, 1) of the connection's own.
func spread(connectionID string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(connectionID))
	return float64(h.Sum32()) / (1 << 32)
}
