package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// TestNotify_oneCauseIsToldOnce: an account that lost its rights, or its access, is told of in one notification
// that names what is concerned; what joins is told together an hour later, and what was mended when all is.
func TestNotify_oneCauseIsToldOnce(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	var mu sync.Mutex
	noAdmin, lost, rounds := 0, 0, 0
	// quiet waits until the clock went round twice, and nothing was told by that.
	n := 0
	quiet := func() {
		t.Helper()
		for range 3 {
			mu.Lock()
			before := rounds
			mu.Unlock()
			g.clock.forward(2 * time.Minute)
			testkit.Eventually(t, 30*time.Second, func() error {
				mu.Lock()
				defer mu.Unlock()
				if rounds == before {
					return fmt.Errorf("no round after %d", before)
				}
				return nil
			})
		}
		r.want(t, n)
	}
	g.auth.on("GetIntegration", answers(&authv1.GetIntegrationResponse{Integration: &authv1.Integration{State: authv1.Integration_CONNECTED}}, nil))
	set := func(hooks, apps int) { mu.Lock(); defer mu.Unlock(); noAdmin, lost = hooks, apps }
	hook := func(i int) *webhookv1.Webhook {
		return &webhookv1.Webhook{Id: fmt.Sprintf("wh%d", i), RepositoryFullName: fmt.Sprintf("acme/r%d", i), State: webhookv1.Webhook_ACTIVE, Health: webhookv1.Webhook_NOT_ADMIN, HealthMessage: "Not an admin."}
	}
	g.webhook.on("ListWebhooks", func(context.Context, proto.Message) (proto.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		resp := &webhookv1.ListWebhooksResponse{}
		for i := range noAdmin {
			resp.Webhooks = append(resp.Webhooks, hook(i))
		}
		return resp, nil
	})
	g.webhook.on("GetWebhook", func(context.Context, proto.Message) (proto.Message, error) {
		return &webhookv1.GetWebhookResponse{Webhook: hook(0)}, nil
	})
	g.deployer.on("ListApps", func(context.Context, proto.Message) (proto.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		rounds++ // it is the first thing that a round asks
		resp := &deployerv1.ListAppsResponse{}
		for i := range 9 {
			a := &deployerv1.App{Id: fmt.Sprintf("app%d", i)}
			if i < lost {
				a.Warnings = []*deployerv1.Warning{{Reason: "REPOSITORY_NOT_FOUND", Message: "Not there."}}
			}
			resp.Apps = append(resp.Apps, a)
		}
		return resp, nil
	})
	g.addTarget("WEBHOOK", r.url, nil, "CONNECTION", "WEBHOOK_NEEDS_PERSON")
	says := func(words ...string) {
		t.Helper()
		n++
		for _, want := range words {
			if got := string(r.want(t, n)[n-1].body); !strings.Contains(got, want) {
				t.Errorf("%s, not %s", got, want)
			}
		}
	}
	set(3, 0)
	g.changed("webhook", "webhook", "wh0") // an event does not tell of one of them alone
	g.clock.forward(2 * time.Minute)
	says("The webhooks of 3 repositories need you: acme/r0, acme/r1, acme/r2", "each app's page says how")
	set(3, 8)
	g.clock.forward(2 * time.Minute)
	says("cannot reach the repositories of 8 apps: app0, app1, app2, app3, app4 and 3 more")
	set(4, 9)
	quiet() // what joins waits
	set(4, 8)
	quiet() // no round is left that saw nine
	g.clock.forward(time.Hour)
	says("The webhooks of 4 repositories need you: acme/r0, acme/r1, acme/r2, acme/r3")
	set(1, 8) // fewer are no news, however long
	g.clock.forward(2 * time.Hour)
	quiet()
	set(0, 8)
	g.clock.forward(2 * time.Minute)
	says(`"webhook.restored"`)
	set(0, 0)
	g.clock.forward(2 * time.Minute)
	says(`"connection.restored"`)
	set(1, 0)
	g.clock.forward(2 * time.Minute)
	says("The webhook of acme/r0 needs you", "Not an admin.")
	set(1, 1)
	g.clock.forward(2 * time.Minute)
	says("The connected account cannot reach the repository of app0", "Not there.")
}
