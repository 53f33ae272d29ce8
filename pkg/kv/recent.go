package kv

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	recentKeys  = 256         // values that a bucket remembers for the next update of their keys
	recentBytes = 32 << 10    // how large a value is remembered
	recentLife  = time.Minute // how long one is
)

// recent is what this process wrote last, so that the next update of the same key need not ask for it. It
// may be behind the store: what is made of it is stored by compare-and-set, and nothing else is done with it.
// It forgets after a while, because a bucket that is restored counts its revisions anew.
type recent struct {
	now func() time.Time

	mu     sync.Mutex
	values *simplelru.LRU[string, written] // nil: nothing is remembered
}

type written struct {
	data []byte
	rev  uint64
	at   time.Time
}

func newRecent() *recent {
	values, err := simplelru.NewLRU[string, written](recentKeys, nil)
	if err != nil {
		panic(err) // a size below one: cannot happen
	}
	return &recent{now: time.Now, values: values}
}

// keep remembers a value unless a newer one is.
func (r *recent) keep(key string, data []byte, rev uint64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.values.Peek(key); ok && old.rev > rev {
		return
	}
	if len(data) > recentBytes {
		r.values.Remove(key)
		return
	}
	r.values.Add(key, written{data, rev, r.now()})
}

func (r *recent) forget(key string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values.Remove(key)
}

func (r *recent) find(key string) (data []byte, rev uint64, ok bool) {
	if r == nil {
		return nil, 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.values.Get(key)
	if ok && r.now().Sub(w.at) > recentLife {
		r.values.Remove(key)
		ok = false
	}
	return w.data, w.rev, ok
}
