package registry

import "time"

// sighting is a lease of another process as this one saw it first, on its own clock.
type sighting struct {
	holder string
	epoch  int64
	since  time.Time // monotonic
}

// heldFor says how long to wait until a lease may be taken over: 0 once it was seen unchanged for
// takeover.
func (s *schedule) heldFor(id, holder string, epoch int64, takeover time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, ok := s.leases[id]
	if !ok || seen.holder != holder || seen.epoch != epoch {
		seen = sighting{holder: holder, epoch: epoch, since: time.Now()}
		s.leases[id] = seen
	}
	return max(takeover-time.Since(seen.since), 0)
}

// forget ends watching a lease.
func (s *schedule) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, id)
}
