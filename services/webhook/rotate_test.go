package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

func TestRotate_losesNoDelivery(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r, other := s.start(), s.start()
	w := r.watch(fullName, web, "main")
	old := r.secret(w.GetId())

	// Deliveries go on all the while, signed by Bitbucket with whatever it has at the moment.
	stop := make(chan struct{})
	sent := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				sent <- n
				return
			case <-time.After(2 * time.Millisecond):
			}
			if count, err := s.control.Deliver(context.Background(), fullName, "repo:push", pushBody("main", hash(n))); err == nil {
				n += count
			}
		}
	}()
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetLastDelivery() < 5 {
			return fmt.Errorf("%d deliveries", w.GetLastDelivery())
		}
		return nil
	})
	resp, err := r.people.RotateWebhookSecret(r.admin(), &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId()})
	if err != nil {
		t.Fatalf("RotateWebhookSecret: %v", err)
	}
	rotated := r.get(w.GetId()).GetLastDelivery()
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetLastDelivery() < rotated+5 {
			return fmt.Errorf("%d deliveries after %d", w.GetLastDelivery(), rotated)
		}
		return nil
	})
	close(stop)
	n := <-sent
	now := r.secret(w.GetId())
	if now == old {
		t.Fatal("the secret is the same")
	}
	left := time.Until(resp.GetWebhook().GetOldSecretExpireTime().AsTime())
	if left < 23*time.Hour || left > 25*time.Hour {
		t.Errorf("the old secret is accepted for %v more", left)
	}
	for _, rep := range []*replica{r, other} {
		testkit.Eventually(t, timeout, func() error {
			if got := int(rep.get(w.GetId()).GetLastDelivery()); got != n {
				return fmt.Errorf("%d of %d deliveries", got, n)
			}
			return nil
		})
	}
	attempts, err := s.control.Deliveries(s.background(), "", 0)
	if err != nil || len(attempts) != n {
		t.Fatalf("%d attempts of %d deliveries, %v", len(attempts), n, err)
	}
	for _, a := range attempts {
		if a.Status != 202 {
			t.Errorf("attempt %d: %d %s", a.ID, a.Status, a.Response)
		}
	}
	// Both secrets are accepted, on any replica; a third is not.
	for i, secret := range []string{old, now, old, now} {
		if status, message := s.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1000+i))}); status != 202 {
			t.Errorf("delivery %d: %d %s", i, status, message)
		}
	}
	if status, _ := s.post(post{url: w.GetUrl(), secret: "another", body: pushBody("main", hash(1))}); status != 401 {
		t.Errorf("wrong secret: %d", status)
	}
	// Rotating again at once would cut off what is on its way.
	_, err = r.people.RotateWebhookSecret(r.admin(), &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId()})
	if !apierr.Has(err, apierr.ReasonRateLimited) {
		t.Errorf("second rotation: %v", err)
	}
}

func TestRotate_thatDoesNotReachBitbucketKeepsTheOldSecret(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Timing.RetryFirst = 100 * time.Millisecond }
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	fault := s.bitbucket.Inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Method: "PUT", Route: "/2.0/repositories/{workspace}/{repository}/hooks/{hook}"})
	rotate := func() error {
		_, err := r.people.RotateWebhookSecret(r.admin(), &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId()})
		return err
	}
	if err := rotate(); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
		t.Fatalf("RotateWebhookSecret: %v", err)
	}
	fresh := r.secret(w.GetId())
	if err := rotate(); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
		t.Fatalf("RotateWebhookSecret again: %v", err)
	}
	if r.secret(w.GetId()) != fresh {
		t.Error("a second try made a third secret")
	}
	if got := r.get(w.GetId()); got.GetOldSecretExpireTime() != nil {
		t.Errorf("the secret that Bitbucket still uses has an end: %v", got)
	}
	// Bitbucket signs with the old one, and is heard.
	if _, err := s.control.Deliver(s.background(), fullName, "repo:push", pushBody("main", hash(1))); err != nil {
		t.Fatal(err)
	}
	if d := r.await(w.GetId(), 1)[0]; d.GetAnswerStatus() != 202 {
		t.Errorf("delivery %v", d)
	}
	if err := s.control.RemoveFault(s.background(), fault); err != nil {
		t.Fatal(err)
	}
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetOldSecretExpireTime() == nil {
			return errors.New("the rotation is not completed by itself")
		}
		return nil
	})
}

func TestRotate_byHandIsConfirmedByTheFirstDelivery(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	s.permission("write")
	r := s.start()
	w := r.watch(fullName, web, "main")
	old := r.secret(w.GetId())
	s.post(post{url: w.GetUrl(), secret: old, body: pushBody("main", hash(1))})
	r.eventually(w.GetId(), inState(webhookv1.Webhook_MANUAL))

	resp, err := r.people.RotateWebhookSecret(r.admin(), &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId()})
	if err != nil {
		t.Fatalf("RotateWebhookSecret: %v", err)
	}
	if steps := strings.Join(resp.GetWebhook().GetManualSteps(), "\n"); !strings.Contains(steps, "Replace its secret") {
		t.Errorf("the steps do not say what to do: %q", steps)
	}
	s.post(post{url: w.GetUrl(), secret: old, body: pushBody("main", hash(2))})
	r.await(w.GetId(), 2)
	if got := r.get(w.GetId()); got.GetOldSecretExpireTime() != nil {
		t.Errorf("the old secret has an end before the new one was used: %v", got)
	}
	if status, message := s.post(post{url: w.GetUrl(), secret: r.secret(w.GetId()), body: pushBody("main", hash(3))}); status != 202 {
		t.Fatalf("the new secret: %d %s", status, message)
	}
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetOldSecretExpireTime() == nil || len(w.GetManualSteps()) != 0 {
			return fmt.Errorf("webhook %v", w)
		}
		return nil
	})
}

// TestRotate_repeatedRequestIsOneRotation: a client that lost the answer asks again with the same
// request id, also with the etag that it had before.
func TestRotate_repeatedRequestIsOneRotation(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	req := &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId(), Etag: r.get(w.GetId()).GetEtag(), RequestId: "one"}
	old := r.secret(w.GetId())
	if _, err := r.people.RotateWebhookSecret(r.admin(), req); err != nil {
		t.Fatal(err)
	}
	fresh := r.secret(w.GetId())
	if fresh == old {
		t.Fatal("the secret was not rotated")
	}
	for range 2 {
		if _, err := r.people.RotateWebhookSecret(r.admin(), req); err != nil {
			t.Errorf("the request again: %v", err)
		}
	}
	if r.secret(w.GetId()) != fresh {
		t.Error("a repeat rotated the secret once more")
	}
	req.RequestId = "two"
	if _, err := r.people.RotateWebhookSecret(r.admin(), req); !apierr.Has(err, apierr.ReasonEtagMismatch) {
		t.Errorf("another request with the old etag: %v", err)
	}
	req.RequestId = strings.Repeat("x", apierr.MaxRequestID+1)
	if _, err := r.people.RotateWebhookSecret(r.admin(), req); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("a long request id: %v", err)
	}
}
