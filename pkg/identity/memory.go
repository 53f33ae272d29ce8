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

// memory keeps values until a time. Safe for concurrent use.
type memory[K comparable, V any] struct{ entries *lru.Cache[K, entry[V]] }

type entry[V any] struct {
	value V
	until time.Time
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
	if !ok || !now.Before(e.until) {
		return value, false
	}
	return e.value, true
}

func (m memory[K, V]) put(key K, value V, until time.Time) {
	m.entries.Add(key, entry[V]{value, until})
}
