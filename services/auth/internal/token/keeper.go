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

	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

// Walkers list the workspaces of the two buckets, for the sweep.
type Walkers struct {
	Integrations func(ctx context.Context) iter.Seq2[string, error]
	Schedules    func(ctx context.Context) iter.Seq2[string, error]
}

// Keeper renews tokens that nobody asks for at the moment. Every replica runs one; the lease in the
// record keeps them from refreshing the same connection.
type Keeper struct {
	m       *Manager
	walkers Walkers
	slots   *semaphore.Weighted

	mu sync.Mutex
	// charges are the integrations being worked on, and those that could not be mended just now although
	// their schedules may still say that they are due.
	charges map[string]charge
	// witnesses are connections to be refreshed ahead of time, so that it becomes known whether a
	// refusal was the consumer's fault.
	witnesses map[string]witness
}

type charge struct {
	busy  bool
	fails int       // in a row
	until time.Time // not before; by the monotonic clock
}

type witness struct {
	at, doubt time.Time // when to refresh, and since when there is doubt
}

// keeperSlots bounds how many integrations a keeper looks after at a time.
const keeperSlots = 8

// maxBackoff bounds the backoff of an integration that was due and could not be mended: from the pause
// between two scans on, doubling.
const maxBackoff = time.Minute

// NewKeeper makes the manager's keeper; Run starts it.
func NewKeeper(m *Manager, w Walkers) *Keeper {
	k := &Keeper{
		m: m, walkers: w, slots: semaphore.NewWeighted(keeperSlots),
		charges: map[string]charge{}, witnesses: map[string]witness{},
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
		k.spawn(ctx, ws, k.reconcile)
	}
	for _, ws := range k.dueWitnesses(now) {
		k.spawn(ctx, ws, k.testify)
	}
}

// spawn runs one task once there is a slot for it, unless the integration is being worked on already or
// in backoff.
func (k *Keeper) spawn(ctx context.Context, ws string, task func(context.Context, string) error) {
	if !k.take(ws) {
		return
	}
	if k.slots.Acquire(ctx, 1) != nil { // stopping
		k.give(ws, nil)
		return
	}
	begun := k.m.goWork(func() {
		defer k.slots.Release(1)
		err := task(ctx, ws)
		k.give(ws, err)
		if err != nil && ctx.Err() == nil {
			k.m.cfg.Logger.DebugContext(ctx, "integration not mended", slog.String(logs.KeyWorkspace, ws), logs.Err(err))
		}
	})
	if !begun {
		k.slots.Release(1)
		k.give(ws, nil)
	}
}

func (k *Keeper) take(ws string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.charges[ws]
	if c.busy || time.Now().Before(c.until) {
		return false
	}
	c.busy = true
	k.charges[ws] = c
	return true
}

// give ends the work on an integration. After an error it backs off: longer and longer, as its
// schedule may say that it is due for as long as nobody mends what is wrong.
func (k *Keeper) give(ws string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.charges, ws)
		return
	}
	c := charge{fails: k.charges[ws].fails + 1}
	c.until = time.Now().Add(min(k.m.time.Scan<<min(c.fails, 16), maxBackoff))
	k.charges[ws] = c
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

// reconcile does what one integration needs: a refresh, a tidying, or nothing but a corrected schedule.
func (k *Keeper) reconcile(ctx context.Context, ws string) error {
	scheduled := k.m.cfg.Index.Get(ws).GetRevision()
	rec, rev, err := k.m.getRev(ctx, ws)
	if err != nil {
		return err
	}
	if rec == nil {
		return k.m.updateSchedule(ctx, ws, nil, scheduled)
	}
	now := k.m.cfg.Now()
	due, renew, want := rotation.Upkeep(rec, k.lastUse(ws), spread(rec.GetConnectionId()), now)
	switch {
	case due.After(now):
	case renew:
		_, err := k.m.obtain(ctx, ws, rec, want)
		return err
	default:
		s, err := k.m.store(ctx, ws, nil, func(cur *authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome) {
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
	return k.m.updateSchedule(ctx, ws, rec, rev)
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
