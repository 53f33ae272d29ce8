package installation_test

import (
	"errors"
	"testing"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// Whoever looks is told what a process would be, makes nothing and claims nothing.
func TestLook_findsWhatOpenWouldAndChangesNothing(t *testing.T) {
	js := kv.NewSession(testkit.JS(t), stream.Settings{Installation: "acme"})
	redis, ours, other := testkit.Redis(t).Client(), testkit.Keyset(t), testkit.Keyset(t)
	if id, err := installation.Look(t.Context(), js, seal.Shared(ours, "auth")); id != "" || err != nil {
		t.Errorf("nobody's: %q, %v", id, err)
	}
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		t.Errorf("%s was made", name)
	}
	i, err := installation.Open(t.Context(), installation.Config{JS: js, Redis: redis, Keysets: seal.Shared(ours, "auth"), Logger: logs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := installation.Look(t.Context(), js, seal.Shared(ours, "auth")); id != i.ID() || err != nil {
		t.Errorf("ours: %q, %v", id, err)
	}
	if _, err := installation.Look(t.Context(), js, seal.Shared(other, "auth")); !errors.Is(err, installation.ErrKeyset) {
		t.Errorf("another's: %v", err)
	}
	for id, want := range map[string]error{i.ID(): nil, "other": installation.ErrRedisOfOthers, "": nil} {
		if err := installation.LookRedis(t.Context(), redis, id); !errors.Is(err, want) {
			t.Errorf("Redis for %q: %v", id, err)
		}
	}
}
