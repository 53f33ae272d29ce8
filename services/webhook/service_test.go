package webhook_test

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

func TestNew_namesWhatIsMissing(t *testing.T) {
	site := bitbucket.Site{SiteURL: bitbucket.DefaultSiteURL, APIURL: bitbucket.DefaultAPIURL}
	good := webhook.Config{PublicURL: "https://devpilot.example.com", Site: site}
	deps := webhook.Deps{Logger: logs.Discard(), JS: testkit.JS(t), Keyset: testkit.Keyset(t), Auth: &fakeAuth{}}
	if _, err := webhook.New(good, deps); err != nil {
		t.Fatalf("New: %v", err)
	}
	for name, spoil := range map[string]func(*webhook.Config, *webhook.Deps){
		"Logger":     func(_ *webhook.Config, d *webhook.Deps) { d.Logger = nil },
		"JS":         func(_ *webhook.Config, d *webhook.Deps) { d.JS = nil },
		"Keyset":     func(_ *webhook.Config, d *webhook.Deps) { d.Keyset = nil },
		"Auth":       func(_ *webhook.Config, d *webhook.Deps) { d.Auth = nil },
		"public URL": func(c *webhook.Config, _ *webhook.Deps) { c.PublicURL = "" },
		"site":       func(c *webhook.Config, _ *webhook.Deps) { c.Site.SiteURL = "" },
	} {
		c, d := good, deps
		spoil(&c, &d)
		if _, err := webhook.New(c, d); err == nil {
			t.Errorf("New without %s succeeds", name)
		}
	}
}

// TestRun_leavesNothingBehind looks for goroutines of ours; those of the embedded server, and of the
// test's own gRPC, live on.
func TestRun_leavesNothingBehind(t *testing.T) {
	s := newStackAlone(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	if status, _ := s.post(post{url: w.GetUrl(), secret: r.secret(w.GetId()), body: pushBody("main", hash(1))}); status != http.StatusAccepted {
		t.Errorf("answered %d", status)
	}
	r.await(w.GetId(), 1)
	r.stop()
	testkit.Eventually(t, timeout, func() error {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for one := range bytes.SplitSeq(stacks, []byte("\n\n")) {
			if bytes.Contains(one, []byte("services/webhook/internal/")) || bytes.Contains(one, []byte("bitbucket/pkg/kv.")) || bytes.Contains(one, []byte("bitbucket/pkg/stream.")) {
				return fmt.Errorf("still running:\n%s", one)
			}
		}
		return nil
	})
}

func TestRun_stopsWhileTheStoreIsAway(t *testing.T) {
	s := newStack(t)
	_, js := s.nats.Connect()
	s.nats.Stop()
	r := s.startUnreadyOn(js)
	if err := r.service.Ready(t.Context()); err == nil {
		t.Error("ready without a store")
	}
	if _, err := r.people.GetWebhook(r.admin(), &webhookv1.GetWebhookRequest{Workspace: workspace, Webhook: "any"}); !apierr.Has(err, apierr.ReasonStorageUnavailable) {
		t.Errorf("GetWebhook: %v", err)
	}
	r.stop() // fails the test when Run returns an error or does not return
	s.restartNATS()
}
