package token

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

// Walkers list the workspaces of the two buckets, for the sweep.
type Walkers struct {
	Integrations func(ctx context.Context) iter.Seq2[string, error]
	Schedules    func(ctx context.Context) iter.Seq2[string, error]
}

// Keeper looks after integrations that nobody asks for. Every replica runs one; the lease in the
// record keeps them from refreshing the same connection.
type Keeper struct {
	m       *Manager
	walkers Walkers
	slots   *semaphore.Weighted

	mu sync.Mutex
	// later holds back what could not be mended just now: the schedule still says that it is due.
	later map[string]time.Time
	// witnesses are connections to be refreshed ahead of time, so that it becomes known whether a
	// refusal was the consumer's fault.
	witnesses map[string]witness
}

type witness struct {
	at, doubt time.Time // when to refresh, and since when there is doubt
}

// keeperSlots bounds how many integrations a keeper looks after at a time.
const keeperSlots = 8

// holdBack is for how long a connection is left alone that was due and could not be renewed.
const holdBack = time.Minute

// NewKeeper makes the manager's keeper; Run starts it.
func NewKeeper(m *Manager, w Walkers) *Keeper {
	k := &Keeper{
		m: m, walkers: w, slots: semaphore.NewWeighted(keeperSlots),
		later: map[string]time.Time{}, witnesses: map[string]witness{},
	}
	m.onDoubt = k.callWitness
	return k
}

// Run keeps until ctx is done. What it has begun by then goes on as the manager's flights.
func (k *Keeper) Run(ctx context.Context) error {
	scan := time.NewTicker(k.m.time.Scan)
	defer scan.Stop()
	sweep := time.NewTimer(k.m.time.Sweep/2 + rand.N(k.m.time.Sweep))
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-scan.C:
			k.scan(ctx)
		case <-sweep.C:
			if err := k.Sweep(ctx); err != nil && ctx.Err() == nil {
				k.m.cfg.Logger.WarnContext(ctx, "sweep of the schedules failed", logs.Err(err))
			}
			sweep.Reset(k.m.time.Sweep/2 + rand.N(k.m.time.Sweep))
		}
	}
}

// scan looks after all that is due, as many at a time as there are slots.
func (k *Keeper) scan(ctx context.Context) {
	now := k.m.cfg.Now()
	for _, ws := range k.m.cfg.Index.Due(now, k.stagger) {
		if k.held(ws, now) {
			continue
		}
		k.spawn(ctx, ws, k.tend)
	}
	for _, ws := range k.dueWitnesses(now) {
		k.spawn(ctx, ws, k.testify)
	}
}

// spawn runs one task once there is a slot for it.
func (k *Keeper) spawn(ctx context.Context, ws string, task func(context.Context, string) error) {
	if k.slots.Acquire(ctx, 1) != nil {
		return // stopping
	}
	k.hold(ws)
	begun := k.m.goWork(func() {
		defer k.slots.Release(1)
		if err := task(ctx, ws); err != nil && ctx.Err() == nil && !apierr.Has(err, apierr.ReasonServiceUnavailable) {
			k.m.cfg.Logger.DebugContext(ctx, "integration not mended", slog.String(logs.KeyWorkspace, ws), logs.Err(err))
		}
	})
	if !begun {
		k.slots.Release(1)
	}
}

// stagger is how much later than due this replica comes: another replica's number is another one.
func (k *Keeper) stagger(ws string, due time.Time) time.Duration {
	if k.m.time.Stagger <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", k.m.cfg.Self, ws, due.Unix())
	return time.Duration(h.Sum64() % uint64(k.m.time.Stagger))
}

func (k *Keeper) held(ws string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	until, ok := k.later[ws]
	if ok && !until.After(now) {
		delete(k.later, ws)
		ok = false
	}
	return ok
}

func (k *Keeper) hold(ws string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.later[ws] = k.m.cfg.Now().Add(holdBack)
}

func (k *Keeper) letGo(ws string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.later, ws)
}

// tend does what one integration needs: a refresh, a tidying, or nothing but a corrected schedule.
func (k *Keeper) tend(ctx context.Context, ws string) error {
	scheduled := k.m.cfg.Index.Get(ws).GetRevision()
	rec, rev, err := k.m.getRev(ctx, ws)
	if err != nil {
		return err
	}
	if rec == nil {
		k.m.reschedule(ctx, ws, nil, scheduled)
		k.letGo(ws)
		return nil
	}
	now := k.m.cfg.Now()
	due, renew, want := rotation.Upkeep(rec, k.lastUse(ws), spread(rec.GetConnectionId()), now)
	switch {
	case due.After(now):
	case renew:
		if _, err := k.m.obtain(ctx, ws, rec, want); err != nil {
			return err
		}
		k.letGo(ws)
		return nil
	default:
		s, err := k.m.settle(ctx, ws, nil, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
			if cur == nil {
				return nil, rotation.Dropped
			}
			return rotation.Tidy(cur, now), rotation.Recorded
		})
		if err != nil {
			return err
		}
		rec, rev = s.rec, s.rev
	}
	k.m.reschedule(ctx, ws, rec, rev)
	k.letGo(ws)
	return nil
}

func (k *Keeper) lastUse(ws string) time.Time {
	last := k.m.lastUse(ws)
	if s := k.m.cfg.Index.Get(ws); s.GetLastUseTime() != nil && s.GetLastUseTime().AsTime().After(last) {
		last = s.GetLastUseTime().AsTime()
	}
	return last
}

// callWitness picks a connection whose refresh will tell whether the refusal of ws is the consumer's
// fault: after the lock-out that the refusal may have brought about, before ws is tried again.
func (k *Keeper) callWitness(ws string) {
	now := k.m.cfg.Now()
	w := k.m.cfg.Index.Witness(ws, k.m.cfg.Consumer.Key, k.m.cfg.Consumer.Fingerprint)
	if w == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.witnesses[w]; !ok {
		k.witnesses[w] = witness{at: now.Add(rotation.LockOut + time.Minute), doubt: now}
	}
}

func (k *Keeper) dueWitnesses(now time.Time) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var due []string
	for ws, w := range k.witnesses {
		if !w.at.After(now) {
			due = append(due, ws)
		}
	}
	return due
}

// testify refreshes a witness, unless it was refreshed since the doubt arose.
func (k *Keeper) testify(ctx context.Context, ws string) error {
	k.mu.Lock()
	w := k.witnesses[ws]
	delete(k.witnesses, ws)
	k.mu.Unlock()
	k.letGo(ws)
	rec, err := k.m.get(ctx, ws)
	if err != nil || rec == nil || !rec.GetLastRefreshTime().AsTime().Before(w.doubt) {
		return err
	}
	_, err = k.m.obtain(ctx, ws, rec, rotation.Want{Force: true, SeenConnection: rec.GetConnectionId(), Seen: rec.GetGeneration()})
	return err
}

// Sweep checks every schedule against its integration. It mends what a process left that died
// between the two writes.
func (k *Keeper) Sweep(ctx context.Context) error {
	seen := map[string]struct{}{}
	var errs []error
	for ws, err := range k.walkers.Integrations(ctx) {
		if err != nil {
			return fmt.Errorf("sweep: list the integrations: %w", err)
		}
		seen[ws] = struct{}{}
		errs = append(errs, k.check(ctx, ws))
	}
	for ws, err := range k.walkers.Schedules(ctx) {
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("sweep: list the schedules: %w", err))...)
		}
		if _, ok := seen[ws]; !ok {
			errs = append(errs, k.check(ctx, ws))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) check(ctx context.Context, ws string) error {
	scheduled := k.m.cfg.Index.Get(ws).GetRevision()
	rec, rev, err := k.m.getRev(ctx, ws)
	if err != nil {
		return err
	}
	if rec == nil {
		rev = scheduled // an integration that was connected since has a newer one
	}
	return k.m.updateSchedule(ctx, ws, rec, rev)
}
