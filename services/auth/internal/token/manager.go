package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
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

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// rest pauses for d, unless quit is closed.
func (m *Manager) rest(d time.Duration, quit <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-quit:
		return errClosing
	}
}

var errClosing = apierr.New(apierr.ReasonServiceUnavailable, "This part of Devpilot is restarting. Try again in a moment.", apierr.WithRetryAfter(time.Second))

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
