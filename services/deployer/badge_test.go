package deployer_test

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestBadge_theLinkShowsTheAppUntilItIsRevoked(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	if a := b.create("web", withHooks()); a.GetBadge() || a.GetBadgePath() != "" {
		t.Fatalf("a badge nobody asked for: %v", a)
	}
	turn := func(on bool) string {
		t.Helper()
		a := b.update("web", &deployerv1.App{Badge: on}, "badge")
		if a.GetBadge() != on {
			t.Fatalf("badge: %v, want %v", a.GetBadge(), on)
		}
		return strings.TrimSuffix(strings.TrimPrefix(a.GetBadgePath(), "/badges/"), ".svg")
	}
	read := func(key string) (deployerv1.ReadBadgeResponse_State, error) {
		resp, err := b.client.ReadBadge(t.Context(), &deployerv1.ReadBadgeRequest{Key: key})
		return resp.GetState(), err
	}
	first := turn(true)
	if got, err := read(first); err != nil || got != deployerv1.ReadBadgeResponse_NONE {
		t.Errorf("before anything was deployed: %v, %v", got, err)
	}
	if strings.Contains(first, "web") || strings.Contains(first, workspace) || len(first) < 40 {
		t.Errorf("the link %q tells or can be guessed", first)
	}
	if again := turn(true); again != first {
		t.Error("saving what is so already revoked the link")
	}
	if key := turn(false); key != "" {
		t.Errorf("off, with the link %q", key)
	}
	second := turn(true)
	for _, key := range []string{first, "AAAA", "no base64!", second + "A", strings.Repeat("A", len(second))} {
		if _, err := read(key); !apierr.Has(err, apierr.ReasonNotFound) || key == second {
			t.Errorf("key %q: %v, want NOT_FOUND", key, err)
		}
	}
	b.deploy("web")
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if got, err := read(second); err != nil || got != deployerv1.ReadBadgeResponse_LIVE {
		t.Errorf("once it is live: %v, %v", got, err)
	}
	b.update("web", withHooks(hookAt(postSetup, "fail", "false")), "hooks")
	b.deploy("web")
	b.deployed("web", deployerv1.Deployment_FAILED)
	if got, err := read(second); err != nil || got != deployerv1.ReadBadgeResponse_FAILED {
		t.Errorf("after one failed: %v, %v", got, err)
	}
}
