// Package timequeue holds keys by the time at which each is due: what is due next is known without a
// walk over all that waits.
//
// Depends on nothing.
package timequeue

import (
	"container/heap"
	"time"
)

// Queue is not safe for concurrent use. Its zero value is empty.
type Queue struct {
	entries entries
	byKey   map[string]*entry
}

type entry struct {
	key string
	at  time.Time
	pos int
}

// Set makes a key due at a time, whenever it was due before.
func (q *Queue) Set(key string, at time.Time) {
	if e := q.byKey[key]; e != nil {
		e.at = at
		heap.Fix(&q.entries, e.pos)
		return
	}
	if q.byKey == nil {
		q.byKey = map[string]*entry{}
	}
	e := &entry{key: key, at: at}
	q.byKey[key] = e
	heap.Push(&q.entries, e)
}

// Remove takes a key out.
func (q *Queue) Remove(key string) {
	if e := q.byKey[key]; e != nil {
		heap.Remove(&q.entries, e.pos)
		delete(q.byKey, key)
	}
}

// Pop takes the key out that is due for longest; false when none is due by now.
func (q *Queue) Pop(now time.Time) (key string, ok bool) {
	if len(q.entries) == 0 || q.entries[0].at.After(now) {
		return "", false
	}
	key = q.entries[0].key
	q.Remove(key)
	return key, true
}

// Next is when the first key is due; false when there is none.
func (q *Queue) Next() (at time.Time, ok bool) {
	if len(q.entries) == 0 {
		return time.Time{}, false
	}
	return q.entries[0].at, true
}

// At is when a key is due; false when it is not in the queue.
func (q *Queue) At(key string) (at time.Time, ok bool) {
	e := q.byKey[key]
	if e == nil {
		return time.Time{}, false
	}
	return e.at, true
}

// Len is how many keys wait.
func (q *Queue) Len() int { return len(q.entries) }

// entries implements heap.Interface.
type entries []*entry

func (h entries) Len() int           { return len(h) }
func (h entries) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push implements heap.Interface.
func (h *entries) Push(x any) {
	e := x.(*entry) // heap.Push is called here only
	e.pos = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *entries) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
