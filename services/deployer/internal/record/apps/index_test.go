package apps_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// renamed is a Bitbucket that answers once it is let.
type renamed struct {
	asked atomic.Int32
	first chan struct{} // closed when somebody asks
	let   chan struct{}
}

func (r *renamed) Repository(ctx context.Context, _, id string) (*repov1.Repository, error) {
	if r.asked.Add(1) == 1 {
		close(r.first)
	}
	select {
	case <-r.let:
		return &repov1.Repository{Id: id, FullName: "acme/site", BitbucketWorkspaceId: "home"}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A name in doubt is asked for once, by however many who need it, and by nobody later.
func TestFullName_aDoubtCostsOneQuestion(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), testkit.Logger(t).Logger)
	if err != nil {
		t.Fatal(err)
	}
	bitbucket := &renamed{first: make(chan struct{}), let: make(chan struct{})}
	r := &apps.Records{Store: st, Repositories: bitbucket, Reminders: &reminder.Book{Bucket: st.Due}, Now: time.Now}
	if _, err := r.ChangeIndex(t.Context(), "ws", "repo", func(idx *storev1.RepositoryIndex) {
		idx.FullName, idx.DoubtedBy = "acme/web", "acme/site"
		idx.Watches = []*storev1.Watch{{App: "web", Branch: "main", AutoDeploy: true}}
	}); err != nil {
		t.Fatal(err)
	}
	var askers sync.WaitGroup
	ask := func() {
		if name, err := r.FullName(t.Context(), "ws", "repo"); err != nil || name != "acme/site" {
			t.Errorf("%q, %v", name, err)
		}
	}
	for range 8 {
		askers.Go(ask)
	}
	<-bitbucket.first
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := r.FullName(gone, "ws", "repo"); err == nil {
		t.Error("who gives up waiting for another's question is answered")
	}
	close(bitbucket.let)
	askers.Wait()
	ask()
	if n := bitbucket.asked.Load(); n != 1 {
		t.Errorf("%d questions", n)
	}
}
