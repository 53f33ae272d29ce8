package registry

import (
	"testing"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// TestNewName_aLateDeliverySetsNoOldNameBack: a name comes out of deliveries until the repository had it.
func TestNewName_aLateDeliverySetsNoOldNameBack(t *testing.T) {
	t.Parallel()
	rec := &storev1.WebhookRecord{}
	deliver := func(name string) {
		if newName(rec, name) {
			rename(rec, name)
		}
	}
	for _, step := range []struct{ delivered, want string }{
		{"acme/auto1", "acme/auto1"}, {"", "acme/auto1"}, {"acme/auto1-legacy", "acme/auto1-legacy"}, {"acme/auto1", "acme/auto1-legacy"},
		{"acme/third", "acme/third"}, {"acme/auto1-legacy", "acme/third"}, {"acme/auto1", "acme/third"},
	} {
		if deliver(step.delivered); rec.GetRepositoryFullName() != step.want {
			t.Errorf("after %q it is called %q, want %q", step.delivered, rec.GetRepositoryFullName(), step.want)
		}
	}
	rename(rec, "acme/auto1") // the deployer asked Bitbucket: it has the name again
	if deliver("acme/third"); rec.GetRepositoryFullName() != "acme/auto1" {
		t.Errorf("it is called %q", rec.GetRepositoryFullName())
	}
}
