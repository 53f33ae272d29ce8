package webhook_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

// A proof goes out and comes in again through the public URL, is verified with the webhook's own secret, and
// leaves nothing: no delivery, no push, and nothing that would say that the hook at Bitbucket works.
func TestProveDelivery_throughThePublicURLAndNoFurther(t *testing.T) {
	s := newStack(t)
	var proxy http.HandlerFunc // what stands between
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Event-Key") == "devpilot:proof" && proxy != nil {
			proxy(w, r)
			return
		}
		s.serve(w, r)
	}))
	t.Cleanup(outer.Close)
	s.config = func(c *webhook.Config) { c.PublicURL = outer.URL }
	r := s.start()
	prove := func() *webhookv1.ProveDeliveryResponse {
		t.Helper()
		resp, err := r.people.ProveDelivery(r.admin(), &webhookv1.ProveDeliveryRequest{Workspace: workspace})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if p := prove(); p.GetSkipped() == "" || p.GetWebhook() != "" {
		t.Errorf("without a webhook: %v", p)
	}
	w := r.watch("acme/web", emulator.SeededUUID("repository", "acme/web"), "main")
	secret := r.secret(w.GetId())
	path, err := url.Parse(w.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	check := func(p *webhookv1.ProveDeliveryResponse, verified bool, trouble string) {
		t.Helper()
		if p.GetVerified() != verified || !strings.Contains(p.GetTrouble(), trouble) || verified != (p.GetTrouble() == "") {
			t.Errorf("got %v, want %q", p, trouble)
		}
		if text := p.String(); strings.Contains(strings.ReplaceAll(text, "webhook:\""+w.GetId(), ""), path.Path) || strings.Contains(text, secret) {
			t.Errorf("tells too much: %s", text)
		}
		if p.GetBitbucketTime() == nil || p.GetOwnTime().AsTime().Sub(p.GetBitbucketTime().AsTime()).Abs() > timeout {
			t.Errorf("the clock: %v", p)
		}
	}
	check(prove(), true, "")
	if list := r.deliveries(w.GetId()); len(list) != 0 {
		t.Errorf("left deliveries %v", list)
	}
	if got := r.get(w.GetId()); got.GetLastVerifiedTime() != nil || got.GetLastDelivery() != 0 {
		t.Errorf("taken for a delivery of Bitbucket: %v", got)
	}
	for trouble, p := range map[string]http.HandlerFunc{
		"answers 200, but it is not this Devpilot": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "welcome") },
		"sends elsewhere":                          func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"answers 502":                              func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) },
		"changed on its way": func(w http.ResponseWriter, r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("{}")), 2
			s.serve(w, r)
		},
	} {
		proxy = p
		check(prove(), false, trouble)
	}
	outer.Close()
	check(prove(), false, "does not answer")

	if _, err := r.people.ProveDelivery(r.as(identity.RoleMember), &webhookv1.ProveDeliveryRequest{Workspace: workspace}); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("a member: %v", err)
	}
}
