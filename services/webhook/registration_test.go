package webhook_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func TestSetWatches_registersOneHook(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main", "staging")
	if err := inState(webhookv1.Webhook_ACTIVE)(w); err != nil {
		t.Fatal(err)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
	h := s.hooks(fullName)[0]
	if h.UUID != w.GetBitbucketUuid() || !strings.Contains(h.Description, workspace) {
		t.Errorf("hook %+v, webhook %v", h, w)
	}
	if got := strings.Join(w.GetBranches(), " "); got != "main staging" {
		t.Errorf("branches %q", got)
	}
	if want := s.bitbucket.SiteURL() + "/acme/web/admin/webhooks"; w.GetSettingsUrl() != want {
		t.Errorf("settings URL %s, want %s", w.GetSettingsUrl(), want)
	}
	if len(w.GetId()) < 22 || strings.Trim(w.GetId(), "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		t.Errorf("id %q can be guessed or needs escaping", w.GetId())
	}

	// A real push reaches it, signed as it should be.
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	d := r.await(w.GetId(), 1)[0]
	if d.GetNumber() != 1 || d.GetAnswerStatus() != 202 || len(d.GetChanges()) != 1 || d.GetChanges()[0].GetRef() != "main" {
		t.Errorf("delivery %v", d)
	}
	attempts, err := s.control.Deliveries(s.background(), "", 0)
	if err != nil || len(attempts) != 1 || attempts[0].Status != 202 || attempts[0].Outcome != emulator.OutcomeSucceeded {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
	if e := s.pushEvents(); len(e) != 1 || e[0].GetId() != w.GetId()+".1.0" || e[0].GetRef() != "main" {
		t.Errorf("events %v", e)
	}
}

func TestSetWatches_twoReplicasAtOnceMakeOneHook(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	a, b := s.start(), s.start()
	if err := s.control.SetLatency(s.background(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			w, err := []*replica{a, b}[i%2].setWatches(fullName, web, "main")
			if err != nil {
				t.Errorf("SetWatches: %v", err)
			}
			ids[i] = w.GetId()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("several webhooks for one repository: %v", ids)
		}
	}
	w := a.eventually(ids[0], inState(webhookv1.Webhook_ACTIVE))
	s.wantHooks(fullName, w.GetUrl(), 1)
	list, err := b.people.ListWebhooks(b.as(identity.RoleMember), &webhookv1.ListWebhooksRequest{Workspace: workspace})
	if err != nil || len(list.GetWebhooks()) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestRegister_takesOverHooksWithItsURLAndDeletesExtras(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	secret := r.secret(w.GetId())

	// Others' hooks fill more than a page of 100; ours, lost and added twice by hand, come after.
	if err := s.control.RemoveHook(s.background(), w.GetBitbucketUuid()); err != nil {
		t.Fatal(err)
	}
	for i := range 105 {
		s.addHook(emulator.Hook{URL: fmt.Sprintf("https://ci.example.com/%d", i)})
	}
	first := s.addHook(emulator.Hook{URL: w.GetUrl(), Events: []string{"repo:fork"}})
	s.addHook(emulator.Hook{URL: w.GetUrl()})
	s.addHook(emulator.Hook{URL: w.GetUrl() + "x"}) // not exactly ours

	resp, err := r.people.RepairWebhook(r.admin(), &webhookv1.RepairWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if err != nil {
		t.Fatalf("RepairWebhook: %v", err)
	}
	got := resp.GetWebhook()
	if got.GetState() != webhookv1.Webhook_ACTIVE || got.GetBitbucketUuid() != first.UUID {
		t.Errorf("webhook %v, want ACTIVE with hook %s", got, first.UUID)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
	if n := len(s.hooks(fullName)); n != 107 {
		t.Errorf("%d hooks, want 107: others' must stay", n)
	}
	// The hook that was taken over has our secret now.
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", nil); err != nil {
		t.Fatal(err)
	}
	if d := r.await(w.GetId(), 1)[0]; d.GetAnswerStatus() != 202 {
		t.Errorf("delivery %v", d)
	}
	if r.secret(w.GetId()) != secret {
		t.Error("repairing changed the secret")
	}
}

func (s *stack) addHook(h emulator.Hook) emulator.HookState {
	s.t.Helper()
	added, err := s.control.AddHook(s.background(), fullName, h)
	if err != nil {
		s.t.Fatalf("add a hook: %v", err)
	}
	return added
}

func TestRegister_notAdminThenByHandThenGranted(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	s.permission("write")
	r := s.start()
	w := r.watch(fullName, web, "main")
	if w.GetState() != webhookv1.Webhook_NOT_REGISTERED || w.GetReason() != "NOT_REPOSITORY_ADMIN" {
		t.Fatalf("webhook %v", w)
	}
	steps := strings.Join(w.GetManualSteps(), "\n")
	for _, part := range []string{w.GetUrl(), "Repository push", w.GetSettingsUrl()} {
		if !strings.Contains(steps, part) {
			t.Errorf("the steps do not say %q:\n%s", part, steps)
		}
	}
	_, err := r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if !apierr.Has(err, apierr.ReasonNotRepositoryAdmin) {
		t.Fatalf("RegisterWebhook without the right: %v", err)
	}
	if w = r.get(w.GetId()); w.GetRetryTime() == nil {
		t.Error("nothing says when Devpilot tries again by itself")
	}

	// Somebody who is admin adds it by hand.
	added := s.addHook(emulator.Hook{URL: w.GetUrl(), Secret: r.secret(w.GetId()), Description: "by hand"})
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", nil); err != nil {
		t.Fatal(err)
	}
	w = r.eventually(w.GetId(), inState(webhookv1.Webhook_MANUAL))
	if w.GetReason() != "" || w.GetLastVerifiedTime() == nil || w.GetLastDelivery() != 1 || len(w.GetManualSteps()) != 0 {
		t.Errorf("webhook by hand: %v", w)
	}
	// Still no right: it stays as it is, and the call says why.
	_, err = r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if !apierr.Has(err, apierr.ReasonNotRepositoryAdmin) {
		t.Errorf("RegisterWebhook of a webhook by hand: %v", err)
	}
	if err := inState(webhookv1.Webhook_MANUAL)(r.get(w.GetId())); err != nil {
		t.Error(err)
	}

	s.permission("admin")
	resp, err := r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if err != nil {
		t.Fatalf("RegisterWebhook with the right: %v", err)
	}
	if w = resp.GetWebhook(); w.GetState() != webhookv1.Webhook_ACTIVE || w.GetBitbucketUuid() != added.UUID {
		t.Errorf("webhook %v, want ACTIVE with the hook %s that was added by hand", w, added.UUID)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
}

func (s *stack) permission(p string) {
	s.t.Helper()
	if err := s.control.SetPermission(s.background(), fullName, "jane-dev", p); err != nil {
		s.t.Fatalf("set the permission: %v", err)
	}
}

func TestSetWatches_emptySetRemovesTheHook(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	if w := r.watch("acme/api", emulator.SeededUUID("repository", "acme/api")); w != nil {
		t.Errorf("an empty set made a webhook: %v", w)
	}
	w := r.watch(fullName, web, "main")
	s.addHook(emulator.Hook{URL: w.GetUrl()}) // an extra goes too
	if got := r.watch(fullName, web); got.GetState() != webhookv1.Webhook_REMOVED || got.GetBitbucketUuid() != "" {
		t.Errorf("webhook %v, want REMOVED", got)
	}
	s.wantHooks(fullName, w.GetUrl(), 0)

	// Watched again: the same webhook, URL and secret.
	again := r.watch(fullName, web, "main")
	if again.GetId() != w.GetId() || again.GetState() != webhookv1.Webhook_ACTIVE {
		t.Errorf("webhook %v, want %s ACTIVE", again, w.GetId())
	}
	// Gone at Bitbucket already: that is what was wanted.
	if err := s.control.RemoveHook(s.background(), again.GetBitbucketUuid()); err != nil {
		t.Fatal(err)
	}
	if err := inState(webhookv1.Webhook_REMOVED)(r.watch(fullName, web)); err != nil {
		t.Error(err)
	}

	// No longer an admin: left behind, and said.
	r.watch(fullName, web, "main")
	s.permission("write")
	left := r.watch(fullName, web)
	if left.GetState() != webhookv1.Webhook_LEFT_ON_BITBUCKET || left.GetReason() != "NOT_REPOSITORY_ADMIN" || len(left.GetManualSteps()) == 0 {
		t.Errorf("webhook %v, want LEFT_ON_BITBUCKET", left)
	}
	stored := len(r.deliveries(left.GetId()))
	testkit.Eventually(t, timeout, func() error {
		status, message, err := deliver(post{url: left.GetUrl(), secret: r.secret(left.GetId()), body: pushBody("main", hash(1))})
		if err == nil && status < 300 {
			stored++ // also while the watched copy has not caught up
		}
		if err != nil || status != 200 || !strings.Contains(message, "no app uses") {
			return fmt.Errorf("delivery to a webhook left behind: %d %q: %w", status, message, err)
		}
		return nil
	})
	r.await(left.GetId(), stored) // none is learned from any more
	// Used again it counts, although Devpilot may still not look after it.
	if again := r.watch(fullName, web, "main"); again.GetState() != webhookv1.Webhook_NOT_REGISTERED {
		t.Errorf("webhook %v, want NOT_REGISTERED", again)
	}
	testkit.Eventually(t, timeout, func() error {
		status, message, err := deliver(post{url: left.GetUrl(), secret: r.secret(left.GetId()), body: pushBody("main", hash(3))})
		if err != nil || status != 202 {
			return fmt.Errorf("delivery to a webhook in use again: %d %q: %w", status, message, err)
		}
		return nil
	})
	r.eventually(left.GetId(), inState(webhookv1.Webhook_MANUAL))
	if err := inState(webhookv1.Webhook_LEFT_ON_BITBUCKET)(r.watch(fullName, web)); err != nil {
		t.Error(err)
	}
	if _, err := r.people.DismissWebhook(r.admin(), &webhookv1.DismissWebhookRequest{Workspace: workspace, Webhook: left.GetId()}); err != nil {
		t.Fatalf("DismissWebhook: %v", err)
	}
	list, err := r.people.ListWebhooks(r.admin(), &webhookv1.ListWebhooksRequest{Workspace: workspace})
	if err != nil || len(list.GetWebhooks()) != 0 {
		t.Errorf("list after dismissing: %v, %v", list, err)
	}
	testkit.Eventually(t, timeout, func() error {
		if status, _, err := deliver(post{url: left.GetUrl(), secret: "x", body: pushBody("main", hash(2))}); err != nil || status != 404 {
			return fmt.Errorf("delivery to a dismissed webhook: %d: %w", status, err)
		}
		return nil
	})
}

func TestRegister_repositoryUnderAnotherName(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	if err := s.control.RenameRepository(s.background(), fullName, "website"); err != nil {
		t.Fatal(err)
	}
	r := s.start()
	// The name we were told is old, the id is not.
	w := r.watch("gone/web", web, "main")
	if err := inState(webhookv1.Webhook_ACTIVE)(w); err != nil {
		t.Fatal(err)
	}
	if _, err := s.control.Commit(s.background(), "acme/website", "main", "Change", nil); err != nil {
		t.Fatal(err)
	}
	r.await(w.GetId(), 1)
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetRepositoryFullName() != "acme/website" {
			return fmt.Errorf("name %s", w.GetRepositoryFullName())
		}
		return nil
	})
}

func TestSetWatches_olderSetNeverReplacesNewer(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	set := func(version int64, branch string) *webhookv1.Webhook {
		resp, err := r.deployer.SetWatches(r.background(), &webhookv1.SetWatchesRequest{
			Workspace: workspace, Repository: "{" + strings.ToUpper(web) + "}", RepositoryFullName: fullName, Version: version, Wait: true,
			Watches: []*webhookv1.Watch{{App: "web", Branch: branch}},
		})
		if err != nil {
			t.Fatalf("SetWatches: %v", err)
		}
		return resp.GetWebhook()
	}
	set(5, "main")
	if got := set(4, "old").GetBranches(); len(got) != 1 || got[0] != "main" {
		t.Errorf("branches %v", got)
	}
	if got := set(6, "next"); got.GetBranches()[0] != "next" || got.GetRepository() != web {
		t.Errorf("webhook %v", got)
	}
	batch, err := r.deployer.BatchGetWebhooks(r.background(), &webhookv1.BatchGetWebhooksRequest{
		Workspace: workspace, Repositories: []string{web, emulator.SeededUUID("repository", "acme/api")},
	})
	if err != nil || len(batch.GetWebhooks()) != 1 || batch.GetWebhooks()[0].GetRepository() != web {
		t.Errorf("BatchGetWebhooks: %v, %v", batch, err)
	}
}
