package keymutex

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

func TestLock_oneAtATimePerKeyAndNothingIsRemembered(t *testing.T) {
	var m Map
	held := map[string]*int{"a": new(int), "b": new(int)}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			key := []string{"a", "b"}[i%2]
			unlock, err := m.Lock(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			*held[key]++ // a race where two hold it
			unlock()
		})
	}
	all.Wait()
	if *held["a"] != 100 || *held["b"] != 100 {
		t.Errorf("held %d and %d times", *held["a"], *held["b"])
	}
	if len(m.keys) != 0 {
		t.Errorf("%d keys are remembered", len(m.keys))
	}
}

func TestLock_anotherKeyWaitsForNobody(t *testing.T) {
	var m Map
	for i := range 3 {
		unlock, err := m.Lock(t.Context(), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
	}
}

func TestLock_aWaiterGivesUpAndTheNextOneGetsIt(t *testing.T) {
	var m Map
	unlock, err := m.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := m.Lock(ctx, "a")
		gaveUp <- err
	}()
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("it gave up with %v", err)
	}
	unlock()
	again, err := m.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if len(m.keys) != 0 {
		t.Errorf("%d keys are remembered", len(m.keys))
	}
}
