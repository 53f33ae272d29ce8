package status

import (
	"sync"
	"time"
)

const (
	firstHold   = 15 * time.Second // pause after a first refusal of a status
	mostHold    = 5 * time.Minute  // longest pause between two tries of a status
	refusedHold = 15 * time.Minute // pause after Bitbucket refused a status for good
	maxHolds    = 10_000           // pauses that are remembered
)

// holds remembers for whom Bitbucket has lately not taken statuses. Safe for concurrent use.
type holds struct {
	mu     sync.Mutex
	by     map[string]hold
	doubts map[string]doubt
}

type hold struct {
	until    time.Time
	failures int  // in a row
	refused  bool // for good, as far as we can tell
	cause    error
}

// held returns the first hold that is in force.
func (h *holds) held(now time.Time, names ...string) (hold, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range names {
		if held, ok := h.by[n]; ok && now.Before(held.until) {
			return held, true
		}
	}
	return hold{}, false
}

// trouble holds back for as long as Bitbucket asked for, and else for a while that grows.
func (h *holds) trouble(now time.Time, name string, asked time.Duration, cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failures := h.by[name].failures + 1
	pause := min(firstHold<<min(failures-1, 10), mostHold)
	if asked > 0 {
		pause = min(asked, refusedHold)
	}
	h.put(now, name, hold{until: now.Add(pause), failures: failures, cause: cause})
}

// refuse holds back for long; it tells whether that is news.
func (h *holds) refuse(now time.Time, name string, cause error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, again := h.by[name]
	h.put(now, name, hold{until: now.Add(refusedHold), refused: true, cause: cause})
	return !again
}

// doubt is the first of those within something that were refused.
type doubt struct {
	name  string
	until time.Time
}

// second notes that name, which is part of all, was refused, and tells whether another part of it was so
// lately, without a success since: only then is all of it refused.
func (h *holds) second(now time.Time, all, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if first, ok := h.doubts[all]; ok && now.Before(first.until) && first.name != name {
		return true
	}
	if h.doubts == nil || len(h.doubts) >= maxHolds {
		h.doubts = map[string]doubt{}
	}
	h.doubts[all] = doubt{name: name, until: now.Add(refusedHold)}
	return false
}

// clear forgets, after a success.
func (h *holds) clear(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range names {
		delete(h.by, n)
		delete(h.doubts, n)
	}
}

// put keeps the map small: what is over goes first, then everything, as it only saves calls.
func (h *holds) put(now time.Time, name string, v hold) {
	if len(h.by) >= maxHolds {
		for n, old := range h.by {
			if !now.Before(old.until) {
				delete(h.by, n)
			}
		}
		if len(h.by) >= maxHolds {
			clear(h.by)
		}
	}
	if h.by == nil {
		h.by = map[string]hold{}
	}
	h.by[name] = v
}

// recent remembers the names it was given last, at least n and at most twice as many. Safe for
// concurrent use.
type recent struct {
	mu       sync.Mutex
	n        int
	new, old map[string]bool
}

func (r *recent) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.new == nil || len(r.new) >= r.n {
		r.new, r.old = map[string]bool{}, r.new
	}
	r.new[name] = true
}

func (r *recent) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.new[name] || r.old[name]
}

// turns lets one goroutine at a time work on a thing; the others leave it to that one, which is told
// to look again. Safe for concurrent use.
type turns struct {
	mu sync.Mutex
	by map[string]bool // whether somebody came meanwhile
}

// take is false when another goroutine has the turn; it will look again.
func (t *turns) take(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.by[name]; taken {
		t.by[name] = true
		return false
	}
	if t.by == nil {
		t.by = map[string]bool{}
	}
	t.by[name] = false
	return true
}

// again is true when somebody came meanwhile; otherwise the turn has ended.
func (t *turns) again(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[name] {
		t.by[name] = false
		return true
	}
	delete(t.by, name)
	return false
}

// end ends the turn, whoever came.
func (t *turns) end(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, name)
}
