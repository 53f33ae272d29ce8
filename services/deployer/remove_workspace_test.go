package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// keysOf lists the keys of a workspace in a bucket, whatever its records are.
func (b *bench) keysOf(bucket, workspace string) []string {
	b.t.Helper()
	open, err := kv.Open[storev1.App](b.t.Context(), b.nats.JS(), kv.Config{Name: bucket})
	if err != nil {
		b.t.Fatal(err)
	}
	var found []string
	for key, err := range open.Keys(b.t.Context(), ">") {
		if err != nil {
			b.t.Fatal(err)
		}
		if key == workspace || strings.HasPrefix(key, workspace+".") {
			found = append(found, key)
		}
	}
	return found
}

// A workspace that is removed leaves no app, no record of one, no release and no branch that webhook is to watch; and
// takes nothing of another workspace along.
func TestRemoveWorkspace_leavesNothingOfItAndAllOfOthers(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "x", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	b.create("idle", web(false))
	b.push("two")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	const other = "acme-inc-2" // begins as the other does
	elsewhere := testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: other, Role: identity.RoleOwner})
	if _, err := b.client.CreateApp(elsewhere, &deployerv1.CreateAppRequest{Workspace: other, AppId: "web", App: web(false)}); err != nil {
		t.Fatal(err)
	}
	buckets := []string{"deployer-apps", "deployer-repositories", "deployer-reconcile", "deployer-codeconfigs", "deployer-seen", "deployer-deployments", "deployer-connections"}
	before := map[string]int{}
	for _, bucket := range buckets {
		before[bucket] = len(b.keysOf(bucket, other))
	}
	remove := func(ctx context.Context) (*deployerv1.RemoveWorkspaceResponse, error) {
		return b.client.RemoveWorkspace(ctx, &deployerv1.RemoveWorkspaceRequest{Workspace: workspace})
	}
	for _, who := range []context.Context{b.admin, elsewhere} {
		_, err := remove(who)
		b.wantReason(err, apierr.ReasonPermissionDenied)
	}
	owner := testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: workspace, Role: identity.RoleOwner})
	testkit.Eventually(t, timeout, func() error {
		r, err := remove(owner)
		if err != nil || r.GetLeft() > 0 || len(r.GetServersAway()) > 0 {
			return fmt.Errorf("left %v: %w", r, err)
		}
		return nil
	})
	_, err := b.client.GetApp(b.member, &deployerv1.GetAppRequest{Workspace: workspace, App: "web"})
	b.wantReason(err, apierr.ReasonAppNotFound)
	for _, bucket := range buckets {
		if got := b.keysOf(bucket, workspace); len(got) != 0 {
			t.Errorf("%s still has %v", bucket, got)
		}
		if got := len(b.keysOf(bucket, other)); got < before[bucket] || bucket == "deployer-apps" && got != 1 {
			t.Errorf("%s of the other workspace has %d records, had %d", bucket, got, before[bucket])
		}
	}
	for _, name := range []string{"current", "releases"} {
		if _, err := os.Lstat(filepath.Join(b.cfg.DataDir, "apps", workspace, "web", name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	b.world.do(func() {
		if w := b.world.watches[repoID]; w == nil || w.GetWorkspace() != workspace || len(w.GetWatches()) != 0 {
			t.Errorf("webhook was told last: %v", w)
		}
	})
	if r, err := remove(owner); err != nil || r.GetLeft() != 0 {
		t.Errorf("once more: %v, %v", r, err)
	}
}

// A server that is away keeps nobody waiting; it removes what it has when it is back.
func TestRemoveWorkspace_aServerThatIsAway(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "x", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	b.push("two")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.stopOne()
	b.cfg.Worker = false
	b.start()
	owner := testkit.As(t.Context(), t, b.keys, identity.Identity{Workspace: workspace, Role: identity.RoleOwner})
	testkit.Eventually(t, timeout, func() error {
		r, err := b.client.RemoveWorkspace(owner, &deployerv1.RemoveWorkspaceRequest{Workspace: workspace})
		if err != nil || r.GetLeft() > 0 || len(r.GetServersAway()) != 1 || r.GetServersAway()[0] != "default" {
			return fmt.Errorf("left %v: %w", r, err)
		}
		return nil
	})
	current := filepath.Join(b.cfg.DataDir, "apps", workspace, "web", "current")
	if _, err := os.Lstat(current); err != nil {
		t.Fatalf("nobody could remove it yet: %v", err)
	}
	b.stopOne()
	b.cfg.Worker = true
	b.start()
	testkit.Eventually(t, timeout, func() error {
		if _, err := os.Lstat(current); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("it is still there: %w", err)
		}
		return nil
	})
}
