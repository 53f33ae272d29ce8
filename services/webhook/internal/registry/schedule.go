package registry

import (
	"sync"
	"time"
)

// schedule is what this process reconciles, and when. One webhook is worked on by one goroutine at a
// time; a look that falls due meanwhile follows.
type schedule struct {
	mu      sync.Mutex
	timers  map[string]*time.Timer // by webhook id
	ready   []task
	queued  map[string]bool
	running map[string]bool
	again   map[string]task // fell due while running
	wake    chan struct{}
	closed  bool
	waiters map[string]map[chan struct{}]struct{}
	leases  map[string]sighting
}

// task is a webhook to reconcile.
type task struct {
	workspace, id string
	hurry         bool // a person waits
}

func newSchedule() *schedule {
	return &schedule{
		timers: map[string]*time.Timer{}, queued: map[string]bool{}, running: map[string]bool{}, again: map[string]task{},
		wake: make(chan struct{}, 1), waiters: map[string]map[chan struct{}]struct{}{},
		leases: map[string]sighting{},
	}
}

// at has the webhook reconciled after d, in place of what was planned before.
func (s *schedule) at(workspace, id string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if t := s.timers[id]; t != nil {
		t.Stop()
	}
	s.timers[id] = time.AfterFunc(max(d, 0), func() { s.push(task{workspace: workspace, id: id}) })
}

// drop forgets what was planned.
func (s *schedule) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.timers[id]; t != nil {
		t.Stop()
		delete(s.timers, id)
	}
}

// now has the webhook reconciled at once, for somebody who waits.
func (s *schedule) now(workspace, id string) {
	s.push(task{workspace: workspace, id: id, hurry: true})
}

func (s *schedule) push(t task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case s.running[t.id]:
		t.hurry = t.hurry || s.again[t.id].hurry
		s.again[t.id] = t
	case s.queued[t.id]:
		if t.hurry { // to the front
			for i := range s.ready {
				if s.ready[i].id == t.id {
					s.ready = append(s.ready[:i], s.ready[i+1:]...)
					break
				}
			}
			s.ready = append([]task{t}, s.ready...)
		}
	case t.hurry:
		s.queued[t.id] = true
		s.ready = append([]task{t}, s.ready...)
	default:
		s.queued[t.id] = true
		s.ready = append(s.ready, t)
	}
	s.signal()
}

func (s *schedule) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes a webhook whose look is due. hurryOnly leaves those for which nobody waits.
func (s *schedule) next(hurryOnly bool) (task, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 || hurryOnly && !s.ready[0].hurry {
		return task{}, false
	}
	t := s.ready[0]
	s.ready = s.ready[1:]
	delete(s.queued, t.id)
	s.running[t.id] = true
	if len(s.ready) > 0 {
		s.signal()
	}
	return t, true
}

// finished ends a look and tells those who wait.
func (s *schedule) finished(t task) {
	s.mu.Lock()
	again, ok := s.again[t.id]
	delete(s.running, t.id)
	delete(s.again, t.id)
	for c := range s.waiters[t.id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	if ok {
		s.push(again)
	}
	s.signal()
}

// subscribe returns a channel that is told each time the webhook was reconciled.
func (s *schedule) subscribe(id string) chan struct{} {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiters[id] == nil {
		s.waiters[id] = map[chan struct{}]struct{}{}
	}
	s.waiters[id][c] = struct{}{}
	return c
}

func (s *schedule) unsubscribe(id string, c chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiters[id], c)
	if len(s.waiters[id]) == 0 {
		delete(s.waiters, id)
	}
}

// close stops all timers; nothing falls due any more.
func (s *schedule) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for id, t := range s.timers {
		t.Stop()
		delete(s.timers, id)
	}
}
