package identity

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Bounds of what is remembered, so that nobody can make it grow: beyond them the entry that was not
// used for longest is forgotten, and signed or verified again.
const (
	maxCallers = 1024
	maxUsers   = 4096
)

// memory keeps values for a while that the wall clock must be in: one that was set ahead and back again leaves
// nothing behind that is good in the future alone. Safe for concurrent use.
type memory[K comparable, V any] struct{ entries *lru.Cache[K, entry[V]] }

type entry[V any] struct {
	value       V
	from, until time.Time
}

func newMemory[K comparable, V any](size int) memory[K, V] {
	entries, err := lru.New[K, entry[V]](size)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return memory[K, V]{entries}
}

func (m memory[K, V]) get(key K, now time.Time) (value V, ok bool) {
	e, ok := m.entries.Get(key)
	if now = now.Round(0); !ok || now.Before(e.from) || !now.Before(e.until) {
		return value, false
	}
	return e.value, true
}

func (m memory[K, V]) put(key K, value V, from, until time.Time) {
	m.entries.Add(key, entry[V]{value, from.Round(0), until.Round(0)})
}
