package sites

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

// A request that comes while what was saved is being written to the disk waits until it is there.
func TestAwaitSaved_alsoWhileItIsWritten(t *testing.T) {
	t.Parallel()
	log := testkit.Logger(t).Logger
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
	if err != nil {
		t.Fatal(err)
	}
	releases, err := release.Open(t.Context(), t.TempDir(), "default")
	if err != nil {
		t.Fatal(err)
	}
	r := New(releases, "default", log)
	r.copies, r.catchUp = store.NewCopies(st, nil), time.Minute
	r.writing["acme.web"] = struct{}{}
	written := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, waits := r.writing["acme.web"]
		return !waits
	}
	answered := make(chan bool, 1)
	go func() {
		r.awaitSaved(t.Context(), "acme.web")
		answered <- written()
	}()
	r.awaitSaved(t.Context(), "acme.other") // nobody waits for another app
	select {
	case <-answered:
		t.Fatal("it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	r.mu.Lock()
	delete(r.writing, "acme.web")
	r.wake()
	r.mu.Unlock()
	if !<-answered {
		t.Error("it was answered before")
	}
}
