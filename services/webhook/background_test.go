package webhook_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

func TestRegister_goesOnInTheBackground(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Timing.RetryFirst = 100 * time.Millisecond }
	s.auth.connect("c1")
	fault := s.bitbucket.Inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Route: "/2.0/repositories/{workspace}/{repository}/hooks"})
	r := s.start()
	w := r.watch(fullName, web, "main")
	if w.GetState() != webhookv1.Webhook_PENDING || w.GetReason() != "BITBUCKET_UNAVAILABLE" || w.GetRetryTime() == nil {
		t.Fatalf("webhook %v, want PENDING with a reason and a time", w)
	}
	// The work survives the process that began it.
	r.stop()
	if err := s.control.RemoveFault(s.background(), fault); err != nil {
		t.Fatal(err)
	}
	r = s.start()
	w = r.eventually(w.GetId(), inState(webhookv1.Webhook_ACTIVE))
	if w.GetReason() != "" || w.GetMessage() != "" || w.GetRetryTime() != nil {
		t.Errorf("webhook %v still complains", w)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
}

func TestRegister_rateLimitIsPassedOnWithItsTime(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	s.bitbucket.Inject(emulator.Fault{
		Kind: emulator.FaultRateLimited, Route: "/2.0/repositories/{workspace}/{repository}/hooks", Headers: map[string]string{"Retry-After": "90"},
	})
	_, err := r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	var e *apierr.Error
	if !errors.As(err, &e) || e.Reason() != apierr.ReasonBitbucketRateLimited || e.RetryAfter() < 80*time.Second {
		t.Fatalf("RegisterWebhook: %v", err)
	}
	w = r.get(w.GetId())
	if w.GetState() != webhookv1.Webhook_ACTIVE || w.GetRetryTime().AsTime().Before(time.Now().Add(time.Minute)) {
		t.Errorf("webhook %v: registered it stays, and is tried again no sooner than Bitbucket said", w)
	}
}

func TestRegister_lostAnswerOfTheCreateMakesNoSecondHook(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Timing.RetryFirst = 50 * time.Millisecond }
	s.auth.connect("c1")
	s.bitbucket.Inject(emulator.Fault{
		Kind: emulator.FaultLostAnswer, Method: "POST", Route: "/2.0/repositories/{workspace}/{repository}/hooks", Times: 1,
	})
	r := s.start()
	w := r.watch(fullName, web, "main")
	w = r.eventually(w.GetId(), inState(webhookv1.Webhook_ACTIVE))
	s.wantHooks(fullName, w.GetUrl(), 1)
}

func TestRegister_saysWhatIsMissing(t *testing.T) {
	s := newStack(t)
	r := s.start()
	w := r.watch(fullName, web, "main")
	if w.GetState() != webhookv1.Webhook_NOT_REGISTERED || w.GetReason() != "NOT_CONNECTED" {
		t.Errorf("not connected: %v", w)
	}
	s.auth.scopes = []string{"account", "repository"}
	s.auth.connect("c1")
	w = r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetState() != webhookv1.Webhook_NOT_REGISTERED || w.GetReason() != "SCOPE_MISSING" {
			return fmt.Errorf("without the scope: %v", w)
		}
		return nil
	})
	if !strings.Contains(w.GetMessage(), "webhook") {
		t.Errorf("message %q does not name the scope", w.GetMessage())
	}
	// Connected again with all scopes: nobody has to press anything.
	s.auth.scopes = nil
	s.auth.connect("c2")
	r.eventually(w.GetId(), inState(webhookv1.Webhook_ACTIVE))
	s.auth.fail(apierr.New(apierr.ReasonReconnectRequired, "Connect Bitbucket again."))
	_, err := r.people.RepairWebhook(r.admin(), &webhookv1.RepairWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if !apierr.Has(err, apierr.ReasonReconnectRequired) {
		t.Errorf("RepairWebhook: %v", err)
	}
}

func TestCheck_findsAndRepairsDrift(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Timing.CheckEvery = 300 * time.Millisecond }
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	if err := s.control.RemoveHook(s.background(), w.GetBitbucketUuid()); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, timeout, func() error {
		if n := len(s.hooks(fullName)); n != 1 {
			return fmt.Errorf("%d hooks", n)
		}
		return nil
	})
	w = r.eventually(w.GetId(), inState(webhookv1.Webhook_ACTIVE))
	// What is missing and cannot be put back is said.
	s.bitbucket.Inject(emulator.Fault{Method: "POST", Route: "/2.0/repositories/{workspace}/{repository}/hooks", Status: 403, Body: `{"type":"error","error":{"message":"Forbidden"}}`})
	if err := s.control.RemoveHook(s.background(), s.hooks(fullName)[0].UUID); err != nil {
		t.Fatal(err)
	}
	r.eventually(w.GetId(), inState(webhookv1.Webhook_DRIFTED))
	if w = r.get(w.GetId()); w.GetReason() != "NOT_REPOSITORY_ADMIN" {
		t.Errorf("webhook %v", w)
	}
}

func TestPublicURL_outOfReachRegistersNothing(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) {
		c.Site = bitbucket.Site{SiteURL: bitbucket.DefaultSiteURL, APIURL: bitbucket.DefaultAPIURL}
	}
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	if w.GetState() != webhookv1.Webhook_NOT_REGISTERED || w.GetReason() != "NO_PUBLIC_URL" || len(w.GetManualSteps()) != 0 {
		t.Errorf("webhook %v", w)
	}
	_, err := r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if !apierr.Has(err, apierr.ReasonNoPublicURL) {
		t.Errorf("RegisterWebhook: %v", err)
	}
	if n := len(s.auth.issued); n != 0 {
		t.Errorf("%d tokens were asked for", n)
	}
	if got := r.watch(fullName, web); got.GetState() != webhookv1.Webhook_REMOVED {
		t.Errorf("webhook %v, want REMOVED", got)
	}
	// The settings are put right: registration follows by itself.
	r.watch(fullName, web, "main")
	r.stop()
	s.config = func(*webhook.Config) {}
	r = s.start()
	r.eventually(w.GetId(), inState(webhookv1.Webhook_ACTIVE))
}

func TestPublicURL_changedMovesTheHook(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	s.publicURL = "https://old.example.com"
	r := s.start()
	w := r.watch(fullName, web, "main")
	r.stop()
	s.publicURL = s.front.URL
	s.start()
	testkit.Eventually(t, timeout, func() error {
		hooks := s.hooks(fullName)
		if len(hooks) != 1 || hooks[0].UUID != w.GetBitbucketUuid() || !strings.HasPrefix(hooks[0].URL, s.front.URL) {
			return fmt.Errorf("hooks %+v", hooks)
		}
		return nil
	})
}
