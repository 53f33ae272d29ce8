package decide

import (
	"context"
	"sync"
	"testing"
)

// A workspace whose decisions do not end holds up its own beyond its share, and nobody else's.
func TestShares_stalledOnesAreSetAside(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newShares(ctx)
	var mu sync.Mutex
	begun, release := 0, make(chan struct{})
	all := sync.WaitGroup{}
	for range 3 * perWorkspace {
		all.Add(1)
		s.submit("stalled", func(ctx context.Context) {
			defer all.Done()
			mu.Lock()
			begun++
			mu.Unlock()
			select {
			case <-release:
			case <-ctx.Done():
			}
		})
	}
	done := make(chan struct{})
	s.submit("other", func(context.Context) { close(done) })
	<-done
	mu.Lock()
	if begun > perWorkspace {
		t.Errorf("%d decisions of one workspace go on at a time, not %d", begun, perWorkspace)
	}
	mu.Unlock()
	close(release)
	all.Wait() // those beyond its share had their turn
	cancel()
	s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.owners) != 0 || s.going != 0 || s.working != 0 {
		t.Errorf("left: %d owners, %d going, %d working", len(s.owners), s.going, s.working)
	}
}
