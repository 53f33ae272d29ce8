package hosting

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// lru is a cache bounded by the sum of its entries' costs; the least recently used leave first. Safe for
// concurrent use. The library counts entries: the sum, and when it is too large, are ours.
type lru[K comparable, V any] struct {
	mu        sync.Mutex
	max, used int64
	entries   *simplelru.LRU[K, lruEntry[V]]
}

type lruEntry[V any] struct {
	value V
	cost  int64
}

func newLRU[K comparable, V any](maxCost int64) *lru[K, V] {
	l := &lru[K, V]{max: maxCost}
	entries, err := simplelru.NewLRU(math.MaxInt, func(_ K, e lruEntry[V]) { l.used -= e.cost })
	if err != nil {
		panic(err) // the size is positive
	}
	l.entries = entries
	return l
}

func (l *lru[K, V]) get(key K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries.Get(key)
	return e.value, ok
}

// add keeps a value, unless it alone would cost more than the whole cache may.
func (l *lru[K, V]) add(key K, value V, cost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries.Remove(key)
	if cost > l.max {
		return
	}
	l.entries.Add(key, lruEntry[V]{value, cost})
	for l.used += cost; l.used > l.max; {
		l.entries.RemoveOldest()
	}
}
