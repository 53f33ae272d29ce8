package token

import (
	"iter"
	"maps"
	"sync"
	"time"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

// Index is a copy of all schedules in memory, fed by a watch. It is safe for concurrent use. It may
// be behind by the time that a change takes to arrive; nothing that depends on it goes wrong by that,
// only later.
type Index struct {
	ready func() bool

	mu      sync.RWMutex
	all     map[string]*authstorev1.Schedule // by workspace; values are never changed
	version uint64
	health  map[string]healthAt // by fingerprint
}

type healthAt struct {
	version uint64
	rotation.Health
}

// NewIndex makes an empty index. ready tells whether the watch has seen all schedules.
func NewIndex(ready func() bool) *Index {
	return &Index{ready: ready, all: map[string]*authstorev1.Schedule{}, health: map[string]healthAt{}}
}

// Set takes a change over; nil for a schedule that is gone.
func (x *Index) Set(workspace string, s *authstorev1.Schedule) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.version++
	if s == nil {
		delete(x.all, workspace)
		return
	}
	x.all[workspace] = s
}

// Get returns the workspace's schedule, or nil. It must not be modified.
func (x *Index) Get(workspace string) *authstorev1.Schedule {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.all[workspace]
}

// Ready reports whether the index has seen all schedules.
func (x *Index) Ready() bool { return x.ready() }

// Health is how the consumer of that fingerprint stands. Before the index is ready nobody is at
// fault: half of the schedules are not enough to pause for.
func (x *Index) Health(fingerprint string) rotation.Health {
	if !x.Ready() {
		return rotation.Health{}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	h, ok := x.health[fingerprint]
	if !ok || h.version != x.version {
		h = healthAt{x.version, rotation.HealthOf(maps.Values(x.all), fingerprint)}
		x.health[fingerprint] = h
	}
	return h.Health
}

// Evidence is what the other connections tell when the workspace's is refused. Before the index is
// ready there may be others that know better, so that the refusal does not count.
func (x *Index) Evidence(workspace, consumerKey, fingerprint string) rotation.Evidence {
	if !x.Ready() {
		return rotation.Evidence{Others: true}
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return rotation.EvidenceOf(maps.Values(x.all), workspace, consumerKey, fingerprint)
}

// Due yields the workspaces that are due at the given time, each a little later of its own: delay
// says how much.
func (x *Index) Due(now time.Time, delay func(workspace string, due time.Time) time.Duration) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var due []string
	for ws, s := range x.all {
		at := s.GetDueTime().AsTime()
		if !at.After(now) && !at.Add(delay(ws, at)).After(now) {
			due = append(due, ws)
		}
	}
	return due
}

// Witness finds a healthy connection of the consumer, other than the workspace's, whose refresh
// would tell whether the consumer or the workspace's connection is to blame; "" when there is none.
// It is the one renewed longest ago: its refresh is the least wasted.
func (x *Index) Witness(workspace, consumerKey, fingerprint string) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var best *authstorev1.Schedule
	for ws, s := range x.all {
		if ws == workspace || s.GetConsumerKey() != consumerKey || s.GetSuccessFingerprint() != fingerprint || s.GetState() != authstorev1.Schedule_CONNECTED {
			continue
		}
		if best == nil || s.GetLastSuccessTime().AsTime().Before(best.GetLastSuccessTime().AsTime()) {
			best = s
		}
	}
	return best.GetWorkspace()
}

// Count is the number of integrations per state.
func (x *Index) Count() map[authstorev1.Schedule_State]int {
	n := map[authstorev1.Schedule_State]int{}
	for s := range x.values() {
		n[s.GetState()]++
	}
	return n
}

// Workspaces is a snapshot of all that have a schedule.
func (x *Index) Workspaces() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]string, 0, len(x.all))
	for ws := range x.all {
		all = append(all, ws)
	}
	return all
}

func (x *Index) values() iter.Seq[*authstorev1.Schedule] {
	x.mu.RLock()
	all := maps.Clone(x.all)
	x.mu.RUnlock()
	return maps.Values(all)
}
