package timequeue_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/control/timequeue"
)

// TestQueue_isWhatAWalkWouldFind holds the queue against a map that is walked.
func TestQueue_isWhatAWalkWouldFind(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	var q timequeue.Queue
	model := map[string]time.Time{}
	for step := range 20_000 {
		key := fmt.Sprint(r.IntN(50))
		now := start.Add(time.Duration(r.IntN(100)) * time.Second)
		switch r.IntN(4) {
		case 0, 1:
			q.Set(key, now)
			model[key] = now
		case 2:
			q.Remove(key)
			delete(model, key)
		default:
			got, ok := q.Pop(now)
			first, some := earliest(model)
			if ok != (some && !model[first].After(now)) || ok && !model[got].Equal(model[first]) {
				t.Fatalf("seed %d, step %d: popped %q (%v), the earliest is %q at %v, now %v", seed, step, got, ok, first, model[first], now)
			}
			delete(model, got)
		}
		first, some := earliest(model)
		if at, ok := q.Next(); ok != some || ok && !at.Equal(model[first]) || q.Len() != len(model) {
			t.Fatalf("seed %d, step %d: next %v (%v) of %d, want %v of %d", seed, step, at, ok, q.Len(), model[first], len(model))
		}
		at, ok := q.At(key)
		if want, there := model[key]; ok != there || !at.Equal(want) {
			t.Fatalf("seed %d, step %d: %q at %v (%v)", seed, step, key, at, ok)
		}
	}
}

func earliest(model map[string]time.Time) (key string, ok bool) {
	for k, at := range model {
		if !ok || at.Before(model[key]) {
			key, ok = k, true
		}
	}
	return key, ok
}
