package status

import (
	"context"
	"net/http"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// TestSender_aRefusalOfOneKeySaysNothingOfOthers: another account made the status of one commit, and only that
// account may overwrite it. Two refusals of the same say no more than one.
func TestSender_aRefusalOfOneKeySaysNothingOfOthers(t *testing.T) {
	w := newWorld(t)
	if err := w.control.SetPermission(t.Context(), "acme/web", "jane-dev", "write"); err != nil {
		t.Fatal(err)
	}
	w.theirs(w.commit)
	w.run(w.sender())
	w.record(1, completed)
	w.settled()
	w.record(2, completed)
	w.settled()
	if n := w.calls(); n != 2 { // one is theirs
		t.Errorf("%d calls, want 1 of ours", n-1)
	}
	next := w.next("two")
	w.record(3, func(d *deployerv1.Deployment) { completed(d); d.Commit.Hash = next })
	w.settled()
	if got := w.states(); got[next] != "SUCCESSFUL" || got[w.commit] != "FAILED" {
		t.Errorf("statuses %v", got)
	}
	// The success in between tells that one more refusal is again about its own commit.
	third, fourth := w.next("three"), w.next("four")
	w.theirs(third)
	w.record(4, func(d *deployerv1.Deployment) { completed(d); d.Commit.Hash = third })
	w.settled()
	w.record(5, func(d *deployerv1.Deployment) { completed(d); d.Commit.Hash = fourth })
	w.settled()
	if got := w.states(); got[third] != "FAILED" || got[fourth] != "SUCCESSFUL" {
		t.Errorf("statuses %v", got)
	}
}

// renewing gives another token for one that was rejected.
type renewing struct{ *world }

func (r renewing) Token(ctx context.Context, _, _ string, rejected seal.Secret) (seal.Secret, error) {
	if rejected.IsZero() {
		return r.token, nil
	}
	pair, err := r.control.IssueTokens(ctx, "jane-dev")
	return seal.NewSecret(pair.AccessToken), err
}

// TestSender_a401OfOneRepositorySaysNothingOfOthers, to new tokens as well, until a second one answers it.
func TestSender_a401OfOneRepositorySaysNothingOfOthers(t *testing.T) {
	w := newWorld(t)
	w.run(w.sender(func(c *Config) { c.Tokens = renewing{w} }))
	deploys := func(number int32, repository string) string {
		t.Helper()
		refs, err := w.control.Refs(t.Context(), repository)
		if err != nil {
			t.Fatal(err)
		}
		hash := refs["refs/heads/main"]
		w.set(func() { w.app.Repository = emulator.SeededUUID("repository", repository) })
		w.record(number, func(d *deployerv1.Deployment) { completed(d); d.Commit.Hash = hash })
		w.settled()
		return w.states()[hash]
	}
	refuses := func(repository string) {
		t.Helper()
		if _, err := w.control.Inject(t.Context(), emulator.Fault{Method: "POST", Route: statusRoute, Repository: repository, Status: http.StatusUnauthorized}); err != nil {
			t.Fatal(err)
		}
	}
	refuses("acme/web")
	if got := deploys(1, "acme/web"); got != "" {
		t.Fatalf("web's status is %s", got)
	}
	if got := deploys(2, "acme/api"); got != "SUCCESSFUL" {
		t.Errorf("api's status is %q after a 401 of web", got)
	}
	w.offset.Store(int64(refusedBackoff + time.Second))
	refuses("acme/api")
	deploys(3, "acme/web")
	deploys(4, "acme/api")
	calls := w.calls()
	if got := deploys(5, "acme/docs"); got != "" || w.calls() != calls {
		t.Errorf("mobile's status is %q, %d calls after two repositories refused", got, w.calls()-calls)
	}
}

// theirs has another account set the status of a commit under our key.
func (w *world) theirs(commit string) {
	w.t.Helper()
	pair, err := w.control.IssueTokens(w.t.Context(), "acme-admin")
	if err != nil {
		w.t.Fatal(err)
	}
	admin := w.client.As(bitbucket.TokenSourceFunc(func(context.Context, seal.Secret) (seal.Secret, error) {
		return seal.NewSecret(pair.AccessToken), nil
	}))
	err = admin.SetBuildStatus(w.t.Context(), bitbucket.RefByID("acme", w.app.GetRepository(), "acme/web"), commit, bitbucket.BuildStatus{
		Key: Key(lane.Key{Workspace: "acme", App: "web"}, "connection-1"), State: bitbucket.BuildFailed, Name: "theirs", URL: "https://ci.example.com/1",
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) next(content string) string {
	w.t.Helper()
	hash, err := w.control.Commit(w.t.Context(), "acme/web", "main", content, map[string]string{"index.html": content})
	if err != nil {
		w.t.Fatal(err)
	}
	return hash
}

// states are the statuses at Bitbucket, by commit.
func (w *world) states() map[string]string {
	w.t.Helper()
	list, err := w.control.Statuses(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, s := range list {
		out[s.Commit] = s.State
	}
	return out
}
