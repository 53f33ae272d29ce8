package catalog

import (
	"container/list"
	"sync"
	"time"
)

// maxRemembered is how many repositories are kept in memory over all workspaces: some 40 MB.
const maxRemembered = 100_000

// memory keeps the snapshots that were used last.
type memory struct {
	limit int

	mu    sync.Mutex
	order *list.List // of *remembered, used last in front
	by    map[string]*list.Element
	size  int
}

// remembered is what is known about a workspace's list. Its fields are guarded by memory.mu; the
// snapshot itself never changes.
type remembered struct {
	workspace string
	snapshot  *Snapshot
	// failure says why the last renewal came to nothing, and retryAt when the next may be tried.
	failure *Failure
	retryAt time.Time
	// unsaved is set while the store could not take the snapshot.
	unsaved bool
}

func newMemory(limit int) *memory {
	return &memory{limit: limit, order: list.New(), by: map[string]*list.Element{}}
}

// get returns what is known about a connection's list; zero for nothing.
func (m *memory) get(workspace, connection string) remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	el, ok := m.by[workspace]
	if !ok {
		return remembered{}
	}
	r := el.Value.(*remembered)
	if r.snapshot.Connection != connection {
		return remembered{}
	}
	m.order.MoveToFront(el)
	return *r
}

// put remembers a snapshot unless a newer one of the same connection is there, and forgets what was
// not used for longest. A snapshot is remembered at least until the next one, whatever its size.
func (m *memory) put(workspace string, s *Snapshot, unsaved bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el, ok := m.by[workspace]; ok {
		r := el.Value.(*remembered)
		if r.snapshot.Connection == s.Connection && r.snapshot.FetchTime.After(s.FetchTime) {
			return
		}
		m.removeLocked(el)
	}
	m.by[workspace] = m.order.PushFront(&remembered{workspace: workspace, snapshot: s, unsaved: unsaved})
	m.size += weight(s)
	for m.size > m.limit && m.order.Len() > 1 {
		m.removeLocked(m.order.Back())
	}
}

// failed notes why the list of a connection could not be renewed.
func (m *memory) failed(workspace, connection string, f Failure, retryAt time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el, ok := m.by[workspace]; ok {
		if r := el.Value.(*remembered); r.snapshot.Connection == connection {
			r.failure, r.retryAt = &f, retryAt
		}
	}
}

// saved notes that the store has the snapshot after all.
func (m *memory) saved(workspace string, s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el, ok := m.by[workspace]; ok {
		if r := el.Value.(*remembered); r.snapshot == s {
			r.unsaved = false
		}
	}
}

func (m *memory) drop(workspace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el, ok := m.by[workspace]; ok {
		m.removeLocked(el)
	}
}

func (m *memory) removeLocked(el *list.Element) {
	r := el.Value.(*remembered)
	m.order.Remove(el)
	delete(m.by, r.workspace)
	m.size -= weight(r.snapshot)
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
