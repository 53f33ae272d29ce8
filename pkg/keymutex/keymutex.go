// Package keymutex is a mutex for each key, whose waiters can give up. golang.org/x/sync's semaphores and
// singleflight have no keys, or share one caller's answer with the others, who then would not see what they
// asked for themselves.
//
// It depends on nothing.
package keymutex

import (
	"context"
	"sync"
)

// Map is a mutex for each key. Its zero value is ready, and it is safe for concurrent use. It remembers no
// key that nobody holds or waits for.
type Map struct {
	mu   sync.Mutex
	keys map[string]*lock
}

type lock struct {
	turn  chan struct{} // holds one element while the lock is free
	users int           // who holds it and who waits
}

// Lock waits until nobody else holds the key, in the order of the callers, and holds it until unlock is called,
// once. It gives up with ctx's error.
func (m *Map) Lock(ctx context.Context, key string) (unlock func(), err error) {
	m.mu.Lock()
	l := m.keys[key]
	if l == nil {
		l = &lock{turn: make(chan struct{}, 1)}
		l.turn <- struct{}{}
		if m.keys == nil {
			m.keys = map[string]*lock{}
		}
		m.keys[key] = l
	}
	l.users++
	m.mu.Unlock()
	select {
	case <-l.turn:
		return func() {
			l.turn <- struct{}{}
			m.leave(key, l)
		}, nil
	case <-ctx.Done():
		m.leave(key, l)
		return nil, ctx.Err()
	}
}

func (m *Map) leave(key string, l *lock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(m.keys, key)
	}
}
