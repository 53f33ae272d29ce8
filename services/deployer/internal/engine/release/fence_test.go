package release_test

import (
	"errors"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
)

// An attempt that stood still while its app was moved away finds the fence raised: it announces and switches nothing.
func TestFence_shutsOutWhoClaimedBefore(t *testing.T) {
	t.Parallel()
	s, err := release.Open(t.Context(), t.TempDir(), "eu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Fence(t.Context(), "acme", "none", 9); err != nil { // nothing of it is here
		t.Fatal(err)
	}
	if err := s.Claim(t.Context(), "acme", "web", 5, 1); err != nil {
		t.Fatal(err)
	}
	r, err := s.Prepare("acme", "web", "1")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if err := s.Fence(t.Context(), "acme", "web", 4); err != nil { // a fence never goes down
		t.Fatal(err)
	}
	if err := s.Announce(t.Context(), "acme", "web", 5, 1, release.SiteRelease{Number: 1, Directory: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Fence(t.Context(), "acme", "web", 6); err != nil {
		t.Fatal(err)
	}
	if err := s.Announce(t.Context(), "acme", "web", 5, 1, release.SiteRelease{Number: 1, Directory: "1"}); !errors.Is(err, release.ErrStale) {
		t.Errorf("announced: %v", err)
	}
	if err := s.Switch(t.Context(), "acme", "web", 5, "1"); !errors.Is(err, release.ErrStale) {
		t.Errorf("switched: %v", err)
	}
	if current, err := s.Current("acme", "web"); err != nil || current != "" {
		t.Errorf("%q %v", current, err)
	}
}
