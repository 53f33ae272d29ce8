package hosting

import (
	"container/list"
	"sync"
)

// lru is a cache bounded by the sum of its entries' costs; the least recently used leave first. Safe for
// concurrent use.
type lru[K comparable, V any] struct {
	mu        sync.Mutex
	max, used int64
	entries   map[K]*list.Element
	order     *list.List // front: most recently used
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

func newLRU[K comparable, V any](maxCost int64) *lru[K, V] {
	return &lru[K, V]{max: maxCost, entries: make(map[K]*list.Element), order: list.New()}
}

func (l *lru[K, V]) get(key K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	if !ok {
		var zero V
		return zero, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*lruEntry[K, V]).value, true
}

// add keeps a value, unless it alone would cost more than the whole cache may.
func (l *lru[K, V]) add(key K, value V, cost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[key]; ok {
		l.remove(e)
	}
	if cost > l.max {
		return
	}
	l.entries[key] = l.order.PushFront(&lruEntry[K, V]{key: key, value: value, cost: cost})
	l.used += cost
	for l.used > l.max {
		l.remove(l.order.Back())
	}
}

func (l *lru[K, V]) remove(e *list.Element) {
	entry := l.order.Remove(e).(*lruEntry[K, V])
	delete(l.entries, entry.key)
	l.used -= entry.cost
}
