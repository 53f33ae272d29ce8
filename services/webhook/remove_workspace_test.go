package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func (r *replica) remove(ctx context.Context, erase bool) (*webhookv1.RemoveWorkspaceResponse, error) {
	return r.people.RemoveWorkspace(ctx, &webhookv1.RemoveWorkspaceRequest{Workspace: workspace, Erase: erase})
}

// removed waits until no webhook is worked on any more, and returns those that stay.
func (r *replica) removed() []*webhookv1.Webhook {
	r.t.Helper()
	var left []*webhookv1.Webhook
	testkit.Eventually(r.t, timeout, func() error {
		done, err := r.remove(r.as(identity.RoleOwner), false)
		if err != nil || done.GetWaiting() > 0 {
			return fmt.Errorf("%d wait: %w", done.GetWaiting(), err)
		}
		left = done.GetLeft()
		return nil
	})
	return left
}

// keysWith lists the keys of our buckets that tell of the workspace.
func (s *stack) keysWith(part string) []string {
	s.t.Helper()
	var found []string
	for name := range s.js.StreamNames(s.t.Context()).Name() {
		if !strings.HasPrefix(name, "KV_webhook-") {
			continue
		}
		st, err := s.js.Stream(s.t.Context(), name)
		if err != nil {
			s.t.Fatal(err)
		}
		info, err := st.Info(s.t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			s.t.Fatal(err)
		}
		for subject := range info.State.Subjects {
			if !strings.Contains(subject, part) {
				continue
			}
			m, err := st.GetLastMsgForSubject(s.t.Context(), subject)
			if err != nil {
				s.t.Fatal(err)
			}
			if len(m.Data) > 0 { // else it says that the key is gone
				found = append(found, subject)
			}
		}
	}
	return found
}

// A workspace that is removed leaves no hook of ours at Bitbucket, no secret, no delivery, and an address that nothing
// answers at. While Bitbucket does not answer it is waited for.
func TestRemoveWorkspace_leavesNoHookAndNoRecord(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r, other := s.start(), s.start()
	w := r.watch(fullName, web, "main")
	if status, message := s.post(post{url: w.GetUrl(), secret: r.secret(w.GetId()), body: pushBody("main", hash(1))}); status != http.StatusAccepted {
		t.Fatalf("the delivery was answered %d %s", status, message)
	}
	r.await(w.GetId(), 1)
	if len(s.keysWith(workspace)) == 0 {
		t.Fatal("no record is found, so that there is none later would prove nothing")
	}
	if _, err := r.remove(r.admin(), true); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("an admin: %v", err)
	}
	if done, err := r.remove(r.as(identity.RoleOwner), false); err != nil || done.GetWaiting() != 1 {
		t.Errorf("while an app watches: %v, %v", done, err)
	}
	fault := s.bitbucket.Inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Route: "/2.0/repositories/{workspace}/{repository}/hooks"})
	if _, err := r.setWatches(fullName, web); err != nil {
		t.Fatal(err)
	}
	if done, err := r.remove(r.as(identity.RoleOwner), false); err != nil || done.GetWaiting() != 1 || len(done.GetLeft()) != 0 {
		t.Errorf("while Bitbucket is away: %v, %v", done, err)
	}
	if err := s.control.RemoveFault(s.background(), fault); err != nil {
		t.Fatal(err)
	}
	if left := r.removed(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	s.wantHooks(fullName, w.GetUrl(), 0)
	for _, one := range []*replica{r, other} { // whoever dies on the way is followed by another one
		if _, err := one.remove(r.as(identity.RoleOwner), true); err != nil {
			t.Fatal(err)
		}
	}
	if found := s.keysWith(workspace); len(found) != 0 {
		t.Errorf("still there: %v", found)
	}
	testkit.Eventually(t, timeout, func() error {
		for range 2 { // both replicas
			status, _, err := deliver(post{url: w.GetUrl(), secret: "x", body: pushBody("main", hash(2))})
			if err != nil || status != http.StatusNotFound {
				return fmt.Errorf("a delivery was answered %d: %w", status, err)
			}
		}
		return nil
	})
}

// What Bitbucket does not let us remove is named, and holds up nothing.
func TestRemoveWorkspace_namesWhatStays(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	r.watch("acme/docs", emulator.SeededUUID("repository", "acme/docs"), "main") // no admin right there: never registered
	s.auth.disconnect()
	r.eventually(w.GetId(), inState(webhookv1.Webhook_LEFT_ON_BITBUCKET))
	if _, err := r.setWatches(fullName, web); err != nil {
		t.Fatal(err)
	}
	if _, err := r.setWatches("acme/docs", emulator.SeededUUID("repository", "acme/docs")); err != nil {
		t.Fatal(err)
	}
	left := r.removed()
	if len(left) != 1 || left[0].GetId() != w.GetId() || left[0].GetRepositoryFullName() != fullName || left[0].GetSettingsUrl() == "" {
		t.Errorf("left: %v", left)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
}
