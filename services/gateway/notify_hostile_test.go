package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const failed = deployerv1.Deployment_FAILED

func secret(s string) seal.Secret { return seal.NewSecret(s) }

// lines are what a hook printed.
func lines(hook string, texts ...string) (out []*deployerv1.LogRecord) {
	for i, text := range texts {
		out = append(out, &deployerv1.LogRecord{Line: int32(i + 1), Text: text, Hook: &hook})
	}
	return out
}

func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func (g *gate) test(id string) (a struct {
	Delivered bool
	Status    int
	Message   string
},
) {
	g.t.Helper()
	g.withToken(adminToken).post(targetsPath+"/"+id+":test", map[string]any{}).want(http.StatusOK).into(&a)
	return a
}

// TestNotify_hostileReceivers: redirects are not followed, endless answers not read, silent ones left.
func TestNotify_hostileReceivers(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	inner := newReceiver(t)
	stop := make(chan struct{})
	for name, c := range map[string]struct {
		answer    func(int, http.ResponseWriter)
		delivered bool
		says      string
	}{
		"redirect": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", inner.url)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, false, "redirects are not followed"},
		"endless body": {func(_ int, w http.ResponseWriter) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, true, ""},
		"endless headers": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
			w.WriteHeader(http.StatusOK)
		}, false, "The connection to the receiver failed."},
		"silence": {func(int, http.ResponseWriter) { <-stop }, false, "did not answer within 15 seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			r.answer = c.answer
			if name == "silence" {
				t.Cleanup(func() { close(stop) }) // before the server ends, which waits for it
			}
			made := g.addTarget("WEBHOOK", r.url, nil, "CONNECTION")
			if a := g.test(made.Target.ID); a.Delivered != c.delivered || !strings.Contains(a.Message, c.says) || strings.Contains(a.Message, "planted") {
				t.Errorf("%+v", a)
			}
		})
	}
	if n := len(inner.all()); n != 0 {
		t.Errorf("what a redirect led to was asked %d times", n)
	}
}

// TestNotify_privateAddressesAreNotReached: whatever a name leads to when it is used, a receiver in a
// private network gets nothing unless the operator allows it.
func TestNotify_privateAddressesAreNotReached(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	r := newReceiver(t)
	_, port, err := net.SplitHostPort(strings.Split(strings.TrimPrefix(r.url, "http://"), "/")[0])
	if err != nil {
		t.Fatal(err)
	}
	made := g.addTarget("WEBHOOK", "https://localhost:"+port+"/", nil, "CONNECTION")
	if a := g.test(made.Target.ID); a.Delivered || !strings.Contains(a.Message, "private or reserved") {
		t.Errorf("%+v", a)
	}
	if n := len(r.all()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestNotify_troubles: the connection, a webhook and a full disk are told once each, and their end.
func TestNotify_troubles(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	var mu sync.Mutex
	integration := &authv1.Integration{Workspace: "acme", State: authv1.Integration_CONNECTED, ConnectionId: "c1"}
	hook := &webhookv1.Webhook{Id: "wh1", Workspace: "acme", RepositoryFullName: "acme/web", State: webhookv1.Webhook_ACTIVE}
	set := func(f func()) { mu.Lock(); defer mu.Unlock(); f() }
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		return &authv1.GetIntegrationResponse{Integration: proto.CloneOf(integration)}, nil
	})
	g.webhook.on("GetWebhook", func(context.Context, proto.Message) (proto.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		return &webhookv1.GetWebhookResponse{Webhook: proto.CloneOf(hook)}, nil
	})
	g.addTarget("WEBHOOK", r.url, nil, "CONNECTION", "WEBHOOK_NEEDS_PERSON", "DISK_LOW")
	says := func(n int, want string) {
		t.Helper()
		if got := r.want(t, n)[n-1]; !strings.Contains(string(got.body), want) {
			t.Errorf("%s, not %s", got.body, want)
		}
	}
	g.changed("auth", "integration", "bitbucket")
	set(func() {
		integration.State = authv1.Integration_REFRESH_FAILING
		integration.LastError = &authv1.IntegrationError{Reason: "BITBUCKET_UNAVAILABLE", Message: "Bitbucket answered 503.", SinceTime: timestamppb.New(g.clock.now())}
	})
	g.changed("auth", "integration", "bitbucket") // for a moment only: nobody need know
	g.settled()
	r.want(t, 0)
	set(func() { integration.LastError.Reason = "RECONNECT_REQUIRED" })
	g.changed("auth", "integration", "bitbucket")
	g.changed("auth", "integration", "bitbucket")
	says(1, "about to break")
	set(func() { integration.State = authv1.Integration_RECONNECT_REQUIRED })
	g.changed("auth", "integration", "bitbucket")
	says(2, "connect again")
	set(func() { integration.State, integration.LastError = authv1.Integration_CONNECTED, nil })
	g.changed("auth", "integration", "bitbucket")
	says(3, `"connection.restored"`)

	set(func() {
		hook.State, hook.Reason, hook.Message = webhookv1.Webhook_DRIFTED, "WEBHOOK_DEACTIVATED", "Somebody switched it off."
	})
	g.changed("webhook", "webhook", "wh1")
	g.changed("webhook", "webhook", "wh1")
	says(4, "The webhook of acme/web needs you")
	set(func() { hook.State, hook.Reason = webhookv1.Webhook_ACTIVE, "" })
	g.changed("webhook", "webhook", "wh1")
	says(5, `"webhook.restored"`)

	h := g.history()
	h.waits("web", 3, "DISK_FULL")
	h.waits("shop", 1, "DISK_FULL") // the same disk
	says(6, "Server default has too little disk")
	g.settled()
	h.ended("web", 3, deployerv1.Deployment_COMPLETED, "a")
	says(7, `"disk.restored"`)
	g.settled()
	r.want(t, 7)

	// What comes back after it was mended is told again.
	set(func() { hook.State, hook.Reason = webhookv1.Webhook_DRIFTED, "WEBHOOK_DEACTIVATED" })
	g.changed("webhook", "webhook", "wh1")
	says(8, "The webhook of acme/web needs you")
	set(func() { hook.State, hook.Reason = webhookv1.Webhook_ACTIVE, "" })
	g.changed("webhook", "webhook", "wh1")
	says(9, `"webhook.restored"`)
	set(func() {
		integration.State, integration.LastError = authv1.Integration_RECONNECT_REQUIRED, &authv1.IntegrationError{Reason: "RECONNECT_REQUIRED"}
	})
	g.changed("auth", "integration", "bitbucket")
	says(10, "connect again")
	h.waits("web", 4, "DISK_FULL")
	says(11, "Server default has too little disk")
}

// TestNotify_aWebhookAddedByHandNeedsSomebody: that its deliveries are refused, or come again, no change of
// the webhook tells. It is found within the clock's minute, told once, and again when it comes back.
func TestNotify_aWebhookAddedByHandNeedsSomebody(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	var mu sync.Mutex
	hook := &webhookv1.Webhook{Id: "wh1", Workspace: "acme", RepositoryFullName: "acme/web", State: webhookv1.Webhook_MANUAL, Health: webhookv1.Webhook_REGISTERED}
	set := func(health webhookv1.Webhook_Health, message string) {
		mu.Lock()
		defer mu.Unlock()
		hook.Health, hook.HealthMessage = health, message
	}
	now := func() *webhookv1.Webhook { mu.Lock(); defer mu.Unlock(); return proto.CloneOf(hook) }
	g.webhook.on("ListWebhooks", func(_ context.Context, req proto.Message) (proto.Message, error) {
		if in, ok := req.(*webhookv1.ListWebhooksRequest); !ok || in.GetOrderBy() != "health" {
			t.Errorf("asked for %v", req)
		}
		return &webhookv1.ListWebhooksResponse{Webhooks: []*webhookv1.Webhook{now()}}, nil
	})
	g.webhook.on("GetWebhook", func(context.Context, proto.Message) (proto.Message, error) {
		return &webhookv1.GetWebhookResponse{Webhook: now()}, nil
	})
	g.addTarget("WEBHOOK", r.url, nil, "WEBHOOK_NEEDS_PERSON")
	for n, c := range []struct {
		health        webhookv1.Webhook_Health
		message, want string
	}{
		{webhookv1.Webhook_SECRET_CHANGED, "A request had a wrong signature.", "A request had a wrong signature."},
		{webhookv1.Webhook_REGISTERED, "", `"webhook.restored"`},
		{webhookv1.Webhook_DELIVERIES_MISSING, "A push came without a delivery.", "A push came without a delivery."},
		{webhookv1.Webhook_REGISTERED, "", `"webhook.restored"`},
		{webhookv1.Webhook_SECRET_CHANGED, "A request had a wrong signature.", "A request had a wrong signature."},
	} {
		set(c.health, c.message)
		g.clock.forward(2 * time.Minute)
		if got := r.want(t, n+1)[n]; !strings.Contains(string(got.body), c.want) {
			t.Errorf("%s, not %s", got.body, c.want)
		}
		g.clock.forward(2 * time.Minute)
	}
}

// TestNotify_behindAndExpiring: what only time brings, once for each commit and key.
func TestNotify_behindAndExpiring(t *testing.T) {
	g := start(t, allowLoopback)
	g.replica(allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	since := g.clock.now()
	var live atomic.Int32
	g.deployer.on("ListApps", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.ListAppsResponse{Apps: []*deployerv1.App{
			{Id: "web", Live: &deployerv1.DeploymentSummary{Number: live.Load()}, Sync: &deployerv1.Sync{State: deployerv1.Sync_BEHIND, Branch: "main", Commit: strings.Repeat("a", 40), Since: timestamppb.New(since), Reason: "AUTO_DEPLOY_OFF", Message: "Auto-deploy is off.", Commits: 3}},
			{Id: "shop", Sync: &deployerv1.Sync{State: deployerv1.Sync_IN_SYNC}},
		}}, nil
	})
	var key struct{ APIKey struct{ ID string } }
	g.withToken(adminToken).post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "ci", "expireTime": since.Add(5 * 24 * time.Hour).Format(time.RFC3339)}).want(http.StatusOK).into(&key)
	quick := g.addTarget("WEBHOOK", r.url, map[string]any{"behindMinutes": 5}, "APP_BEHIND", "KEY_EXPIRING")
	slow := g.addTarget("WEBHOOK", r.url, map[string]any{"behindMinutes": 60}, "APP_BEHIND")
	told := func(id string, n int) {
		t.Helper()
		testkit.Eventually(t, 60*time.Second, func() error {
			if a := g.attempts(id).Attempts; len(a) != n {
				return fmt.Errorf("%d told", len(a))
			}
			return nil
		})
	}
	told(quick.Target.ID, 1)
	g.clock.forward(10 * time.Minute)
	told(quick.Target.ID, 2)
	if n := len(g.attempts(slow.Target.ID).Attempts); n != 0 {
		t.Errorf("%d told too early", n)
	}
	g.clock.forward(time.Hour)
	told(slow.Target.ID, 1)
	live.Store(7) // and behind it again, with the same commit
	g.clock.forward(time.Minute)
	told(quick.Target.ID, 3)
	told(slow.Target.ID, 2)
	all := r.want(t, 5)
	for i, want := range []string{`"apiKey.expiring"`, "has not been live for 5 minutes", "has not been live for 60 minutes"} {
		if !strings.Contains(string(all[i].body), want) {
			t.Errorf("%s, not %s", all[i].body, want)
		}
	}
	if want := "main is 3 commits ahead of what is live. Auto-deploy is off."; !strings.Contains(string(all[1].body), want) {
		t.Errorf("%s, not %s", all[1].body, want)
	}
}

// TestNotify_whatWasDeletedIsNotTold: an event about what is gone is answered, not tried for ever.
func TestNotify_whatWasDeletedIsNotTold(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	g.addTarget("WEBHOOK", r.url, nil, "DEPLOYMENT_FAILED")
	g.deployer.on("GetDeployment", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, apierr.New(apierr.ReasonDeploymentNotFound, "gone")
	})
	g.changed("deployer", "deployment", "web/1")
	testkit.Eventually(t, 20*time.Second, func() error {
		if len(g.deployer.asked("GetDeployment")) == 0 {
			return errors.New("not asked yet")
		}
		return nil
	})
	g.settled()
	r.want(t, 0)
}
