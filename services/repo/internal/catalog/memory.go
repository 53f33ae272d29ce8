package catalog

import (
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxRemembered is how many repositories are kept in memory over all workspaces: some 40 MB.
const maxRemembered = 100_000

// memory keeps the snapshots that were used last. It counts their repositories, where the library counts
// entries: a workspace may have one repository or 20,000.
type memory struct {
	limit int

	mu   sync.Mutex
	used *simplelru.LRU[string, *remembered] // by workspace
	size int
}

// remembered is what is known about a workspace's list. Its fields are guarded by memory.mu; the
// snapshot itself never changes.
type remembered struct {
	snapshot *Snapshot
	// failure says why the last renewal came to nothing, and retryAt when the next may be tried.
	failure *Failure
	retryAt time.Time
	// unsaved is set while the store could not take the snapshot.
	unsaved bool
}

func newMemory(limit int) *memory {
	m := &memory{limit: limit}
	m.used, _ = simplelru.NewLRU(math.MaxInt, func(_ string, r *remembered) { m.size -= weight(r.snapshot) }) // its error is for sizes below 1
	return m
}

// get returns what is known about a connection's list; zero for nothing.
func (m *memory) get(workspace, connection string) remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.used.Peek(workspace)
	if !ok || r.snapshot.Connection != connection {
		return remembered{}
	}
	m.used.Get(workspace) // used last
	return *r
}

// put remembers a snapshot unless a newer one of the same connection is there, and forgets what was
// not used for longest. A snapshot is remembered at least until the next one, whatever its size.
func (m *memory) put(workspace string, s *Snapshot, unsaved bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.used.Peek(workspace); ok && r.snapshot.Connection == s.Connection && r.snapshot.FetchTime.After(s.FetchTime) {
		return
	}
	m.used.Remove(workspace)
	m.used.Add(workspace, &remembered{snapshot: s, unsaved: unsaved})
	m.size += weight(s)
	for m.size > m.limit && m.used.Len() > 1 {
		m.used.RemoveOldest()
	}
}

// failed notes why the list of a connection could not be renewed.
func (m *memory) failed(workspace, connection string, f Failure, retryAt time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.used.Peek(workspace); ok && r.snapshot.Connection == connection {
		r.failure, r.retryAt = &f, retryAt
	}
}

// saved notes that the store has the snapshot after all.
func (m *memory) saved(workspace string, s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.used.Peek(workspace); ok && r.snapshot == s {
		r.unsaved = false
	}
}

func (m *memory) drop(workspace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used.Remove(workspace)
}

// weight counts an empty list too, or there could be any number of them.
func weight(s *Snapshot) int { return len(s.Repositories) + 10 }

// localRefresh is the interval between refreshes where the store cannot tell.
type localRefresh struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time
}

func newLocalRefresh(now func() time.Time) *localRefresh {
	return &localRefresh{now: now, last: map[string]time.Time{}}
}

// allow lets one refresh per interval through.
func (l *localRefresh) allow(key string, interval time.Duration) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for k, at := range l.last {
		if now.Sub(at) >= interval {
			delete(l.last, k)
		}
	}
	if at, ok := l.last[key]; ok {
		return interval - now.Sub(at)
	}
	l.last[key] = now
	return 0
}
