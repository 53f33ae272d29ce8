package status

import (
	"sync"
	"time"

	retry "github.com/cenkalti/backoff/v5"
)

const (
	firstBackoff   = 15 * time.Second // pause after a first refusal of a status
	mostBackoff    = 5 * time.Minute  // longest pause between two tries of a status
	refusedBackoff = 15 * time.Minute // pause after Bitbucket refused a status for good
	maxBackoffs    = 10_000           // pauses that are remembered
)

// backoffs remembers for whom Bitbucket has lately not taken statuses. Safe for concurrent use.
type backoffs struct {
	mu     sync.Mutex
	by     map[string]backoff
	doubts map[string]doubt
}

type backoff struct {
	until   time.Time
	pauses  *retry.ExponentialBackOff // the next ones, while trouble lasts
	refused bool                      // for good, as far as we can tell
	cause   error
}

// held returns the first backoff that is in force.
func (h *backoffs) held(now time.Time, names ...string) (backoff, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range names {
		if held, ok := h.by[n]; ok && now.Before(held.until) {
			return held, true
		}
	}
	return backoff{}, false
}

// trouble holds back for as long as Bitbucket asked for, and else for a while that grows.
func (h *backoffs) trouble(now time.Time, name string, asked time.Duration, cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	pauses := h.by[name].pauses
	if pauses == nil {
		pauses = &retry.ExponentialBackOff{InitialInterval: firstBackoff, MaxInterval: mostBackoff, Multiplier: 2}
	}
	pause := pauses.NextBackOff()
	if asked > 0 {
		pause = min(asked, refusedBackoff)
	}
	h.put(now, name, backoff{until: now.Add(pause), pauses: pauses, cause: cause})
}

// refuse holds back for long; it tells whether that is news.
func (h *backoffs) refuse(now time.Time, name string, cause error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, again := h.by[name]
	h.put(now, name, backoff{until: now.Add(refusedBackoff), refused: true, cause: cause})
	return !again
}

// doubt is the first of those within something that were refused.
type doubt struct {
	name  string
	until time.Time
}

// second notes that name, which is part of all, was refused, and tells whether another part of it was so
// lately, without a success since: only then is all of it refused.
func (h *backoffs) second(now time.Time, all, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if first, ok := h.doubts[all]; ok && now.Before(first.until) && first.name != name {
		return true
	}
	if h.doubts == nil || len(h.doubts) >= maxBackoffs {
		h.doubts = map[string]doubt{}
	}
	h.doubts[all] = doubt{name: name, until: now.Add(refusedBackoff)}
	return false
}

// clear forgets, after a success.
func (h *backoffs) clear(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range names {
		delete(h.by, n)
		delete(h.doubts, n)
	}
}

// put keeps the map small: what is over goes first, then everything, as it only saves calls.
func (h *backoffs) put(now time.Time, name string, v backoff) {
	if len(h.by) >= maxBackoffs {
		for n, old := range h.by {
			if !now.Before(old.until) {
				delete(h.by, n)
			}
		}
		if len(h.by) >= maxBackoffs {
			clear(h.by)
		}
	}
	if h.by == nil {
		h.by = map[string]backoff{}
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
// to read the record again. Safe for concurrent use.
type turns struct {
	mu sync.Mutex
	by map[string]bool // whether somebody came meanwhile
}

// take is false when another goroutine has the turn; it will read the record again.
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
