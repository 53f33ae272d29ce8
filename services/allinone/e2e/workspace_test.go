package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

// deletedWorkspace deletes a workspace whose app is live, while the processes that do it are killed where there are
// several: nothing of it is left at Bitbucket, on the server's disk, on its address or in the store, and whoever asks is
// told.
func deletedWorkspace(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "deleted-workspace", "site")
	n, other := s.tenant(t, "deleted"), s.tenant(t, "deleted-2")
	served := newApp("web", repo, "main")
	served["app"].(object)["serve"] = object{"directory": "."}
	n.api.must("POST", n.path("/apps"), served)
	n.hooked("web")
	other.app("web", repo, "main")
	hash := site.commit(t, repo, "main", "before")
	n.live("web", hash)
	other.live("web", hash)
	address := fmt.Sprint(n.api.get(n.path("/apps/web"))["liveUrl"])
	if status, _, _ := s.visit(t, address); status != http.StatusOK {
		t.Fatalf("%s answers %d", address, status)
	}
	sealed := n.sealed()
	preview := n.api.get(n.path("/deletion"))
	if hooks := objects(preview["webhooks"]); preview["appsCount"] != 1.0 || len(hooks) != 1 || hooks[0]["stays"] != nil || preview["account"] != jane {
		t.Errorf("what goes: %v", preview)
	}

	n.api.must("DELETE", "/v1/workspaces/deleted", nil)
	if running, ok := s.stack.(*processes); ok {
		for _, service := range []string{"gateway", "deployer", "webhook", "auth"} {
			victim := running.replicas[service][0]
			victim.Kill()
			victim.Start()
			awaitReady(t, victim.ops)
		}
	}
	n.api.refused("GET", n.path("/apps"), nil, "WORKSPACE_BEING_DELETED")
	testkit.Eventually(t, timeout, func() error {
		hooks, err := site.Hooks(t.Context(), repo.name)
		if err != nil || len(hooks) != 1 { // the other workspace's
			return fmt.Errorf("Bitbucket has %d webhooks: %w", len(hooks), err)
		}
		if _, err := os.Lstat(filepath.Join(s.releases(), "apps", n.workspace, "web", "current")); !os.IsNotExist(err) {
			return fmt.Errorf("the release is still there: %w", err)
		}
		if status, _, _ := s.visit(t, address); status == http.StatusOK {
			return fmt.Errorf("%s is still served", address)
		}
		if look := n.onDisk(sealed); len(look.found) > 0 {
			return fmt.Errorf("still on disk: %v", look.found)
		}
		return nil
	})
	hash = site.commit(t, repo, "main", "after")
	other.live("web", hash)
	if w := n.api.get("/v1/workspaces/deleted"); w["state"] != "DELETING" || dig(w, "deletion", "deletedBy") != "Local owner" {
		t.Errorf("it says %v", w)
	}
}
