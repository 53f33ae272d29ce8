package webhook_test

import (
	"fmt"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Nothing is registered, repaired or removed in a Bitbucket workspace that an admin narrowed the workspace away
// from; a webhook that is there stays, and what was refused is done as soon as the workspace is widened.
func TestNarrowed_webhooksOutsideAreLeftAloneUntilTheyAreInsideAgain(t *testing.T) {
	s := newStack(t)
	r := s.start()
	s.auth.connect("c1")
	web, docs := emulator.SeededUUID("repository", "acme/web"), emulator.SeededUUID("repository", "acme/api")
	before := r.watch("acme/web", web, "main")
	if before.GetState() != webhookv1.Webhook_ACTIVE {
		t.Fatalf("before anybody narrowed: %v", before)
	}
	hooks := func(name string, want int) {
		t.Helper()
		list, err := s.control.Hooks(t.Context(), name)
		if err != nil || len(list) != want {
			t.Errorf("%s has the webhooks %v, %v, want %d", name, list, err, want)
		}
	}
	stands := func(id string, state webhookv1.Webhook_State, reason string) {
		t.Helper()
		r.eventually(id, func(w *webhookv1.Webhook) error {
			if w.GetState() != state || w.GetReason() != reason {
				return fmt.Errorf("%v %s %q", w.GetState(), w.GetReason(), w.GetMessage())
			}
			return nil
		})
	}
	excluded := string(apierr.ReasonWorkspaceExcluded)

	s.auth.narrow(emulator.SeededUUID("workspace", "elsewhere"))
	after := r.watch("acme/api", docs, "main")
	stands(after.GetId(), webhookv1.Webhook_NOT_REGISTERED, excluded)
	hooks("acme/api", 0)
	for _, id := range []string{before.GetId(), after.GetId()} {
		if _, err := r.people.RepairWebhook(r.admin(), &webhookv1.RepairWebhookRequest{Workspace: workspace, Webhook: id}); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
			t.Errorf("repaired: %v", err)
		}
	}
	hooks("acme/web", 1)
	r.watch("acme/web", web) // its last app is deleted meanwhile
	stands(before.GetId(), webhookv1.Webhook_LEFT_ON_BITBUCKET, excluded)
	hooks("acme/web", 1)

	s.auth.narrow(emulator.SeededUUID("workspace", "acme"))
	stands(after.GetId(), webhookv1.Webhook_ACTIVE, "")
	hooks("acme/api", 1)
	stands(before.GetId(), webhookv1.Webhook_REMOVED, "")
	hooks("acme/web", 0)
}
