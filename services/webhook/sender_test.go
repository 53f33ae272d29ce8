package webhook_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// from is the header that says which hook sent a request, as Bitbucket sends it and as its API has it.
func from(uuid string) map[string]string {
	return map[string]string{hook.HeaderHook: strings.ToUpper("{" + uuid + "}")}
}

// refusedRequests are those that people see.
func (r *replica) refusedRequests(w *webhookv1.Webhook, n int) (list []*webhookv1.Delivery) {
	r.t.Helper()
	testkit.Eventually(r.t, timeout, func() error {
		resp, err := r.people.ListDeliveries(r.admin(), &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: w.GetId(), Refused: true})
		if err != nil {
			return err
		}
		if list = resp.GetDeliveries(); len(list) != n {
			return fmt.Errorf("%d refused requests", len(list))
		}
		return nil
	})
	return list
}

// A signature that is refused says something of the hook that sent the request. Another one with our
// address, which somebody added, is looked for and deleted; the secret of ours is right, and said to be.
func TestSender_anotherHookOfOurAddressSaysNothingOfOurs(t *testing.T) {
	s, r, w := doubting(t)
	extra := s.addHook(emulator.Hook{URL: w.GetUrl(), Secret: "of somebody else"})
	before := s.hookCalls()
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	list := r.refusedRequests(w, 1)
	if list[0].GetHookUuid() != extra.UUID {
		t.Errorf("refused: %v", list[0])
	}
	testkit.Eventually(t, timeout, func() error {
		for _, h := range s.hooks(fullName) {
			if h.UUID == extra.UUID {
				return fmt.Errorf("the other one is still there: %+v", h)
			}
		}
		return nil
	})
	s.wantHooks(fullName, w.GetUrl(), 1)
	w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_REGISTERED))
	if w.GetLastRefusedTime() != nil {
		t.Errorf("ours was not refused: %v", w)
	}
	if n := s.hookCalls()["PUT"] - before["PUT"]; n != 0 {
		t.Errorf("the secret was written %d times", n)
	}
}

// A hook that somebody made in place of ours is not believed to have our secret.
func TestSender_aHookInPlaceOfOursGetsOurSecret(t *testing.T) {
	s, r, w := doubting(t)
	s.asAdmin(http.MethodDelete, w.GetBitbucketUuid(), nil)
	made := s.addHook(emulator.Hook{URL: w.GetUrl(), Secret: "of somebody else"})
	r.miss("one")
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetBitbucketUuid() != made.UUID {
			return fmt.Errorf("hook %s, want %s", w.GetBitbucketUuid(), made.UUID)
		}
		return wasRepaired(webhookv1.Webhook_DELETED)(w)
	})
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetLastVerifiedTime() == nil {
			return fmt.Errorf("no delivery with our secret: %v", w)
		}
		return nil
	})
}

// The address is wrong, so that its id says nothing, but the hook is ours and its secret too: somebody
// changed its URL to another one of this host.
func TestSender_aRequestToAWrongAddressIsTiedToItsHook(t *testing.T) {
	for name, path := range map[string]string{"another id": "/webhooks/bitbucket/abcdefghij0123456789", "no id": "/webhooks/bitbucket/typo"} {
		t.Run(name, func(t *testing.T) {
			s, r, w := doubting(t)
			s.edit(w, map[string]any{"url": s.publicURL + path})
			if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
				t.Fatal(err)
			}
			r.eventually(w.GetId(), wasRepaired(webhookv1.Webhook_URL_CHANGED))
			s.wantHooks(fullName, w.GetUrl(), 1)
			if d := r.refusedRequests(w, 1)[0]; d.GetAnswerStatus() != http.StatusNotFound || !strings.Contains(d.GetAnswerMessage(), "another address") {
				t.Errorf("refused: %v", d)
			}
		})
	}
}

// Whoever knows a hook's UUID but not its secret causes nothing by requests to addresses that are none.
func TestSender_aWrongAddressIsBelievedOfTheSignatureAlone(t *testing.T) {
	s, r, w := doubting(t)
	for i := range 30 {
		s.post(post{url: s.publicURL + "/webhooks/bitbucket/abcdefghij0123456789", secret: "another", body: pushBody("main", hash(i)), header: from(w.GetBitbucketUuid())})
	}
	s.post(post{url: w.GetUrl(), secret: "another", body: pushBody("main", hash(99)), header: from(w.GetBitbucketUuid())})
	if d := r.refusedRequests(w, 1)[0]; d.GetAnswerStatus() != http.StatusUnauthorized || d.GetHookUuid() != w.GetBitbucketUuid() {
		t.Errorf("refused: %v", d)
	}
}
