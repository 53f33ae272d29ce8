package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func TestDisconnect_leavesWebhooksAndConnectingAgainResumes(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r, other := s.start(), s.start()
	w := r.watch(fullName, web, "main")
	unhooked := r.watch("acme/docs", emulator.SeededUUID("repository", "acme/docs"), "main") // no admin right there
	secret := r.secret(w.GetId())

	// The gateway asks while the event is on its way.
	s.auth.disconnect()
	resp, err := r.people.LeaveWebhooks(r.admin(), &webhookv1.LeaveWebhooksRequest{Workspace: workspace})
	if err != nil {
		t.Fatalf("LeaveWebhooks: %v", err)
	}
	left := resp.GetWebhooks()
	if len(left) != 1 || left[0].GetId() != w.GetId() || left[0].GetState() != webhookv1.Webhook_LEFT_ON_BITBUCKET ||
		left[0].GetRepositoryFullName() != fullName || left[0].GetSettingsUrl() == "" || left[0].GetReason() != "NOT_CONNECTED" {
		t.Errorf("left on Bitbucket: %v", left)
	}
	if got := r.get(unhooked.GetId()); got.GetState() != webhookv1.Webhook_NOT_REGISTERED || got.GetReason() != "NOT_CONNECTED" {
		t.Errorf("a webhook that never was at Bitbucket: %v", got)
	}
	s.wantHooks(fullName, w.GetUrl(), 1) // the product leaves them there
	testkit.Eventually(t, timeout, func() error {
		for range 2 { // both replicas
			status, message, err := deliver(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1)), header: map[string]string{"X-Request-UUID": "left"}})
			if err != nil || status != 200 || !strings.Contains(message, "disconnected") {
				return fmt.Errorf("delivery while disconnected: %d %q: %w", status, message, err)
			}
		}
		return nil
	})
	if _, err := r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId()}); !apierr.Has(err, apierr.ReasonNotConnected) {
		t.Errorf("RegisterWebhook while disconnected: %v", err)
	}
	again, err := other.people.LeaveWebhooks(r.admin(), &webhookv1.LeaveWebhooksRequest{Workspace: workspace})
	if err != nil || len(again.GetWebhooks()) != 1 {
		t.Errorf("LeaveWebhooks again: %v, %v", again, err)
	}
	d := r.await(w.GetId(), 1)[0]
	if len(d.GetOutcomes()) != 1 || d.GetOutcomes()[0].GetReason() != "NOT_CONNECTED" || d.GetOutcomes()[0].GetKind() != webhookv1.DeliveryOutcome_IGNORED {
		t.Errorf("the delivery does not say why nothing came of it: %v", d)
	}
	if e := s.pushEvents(); len(e) != 0 {
		t.Errorf("push events while disconnected: %v", e)
	}

	// Somebody dismisses the entry; connecting again brings it back, with the same hook.
	if _, err := r.people.DismissWebhook(r.admin(), &webhookv1.DismissWebhookRequest{Workspace: workspace, Webhook: w.GetId(), Etag: r.get(w.GetId()).GetEtag()}); err != nil {
		t.Fatalf("DismissWebhook: %v", err)
	}
	s.auth.connect("c2")
	got := r.eventually(w.GetId(), inState(webhookv1.Webhook_ACTIVE))
	if got.GetBitbucketUuid() != w.GetBitbucketUuid() {
		t.Errorf("another hook: %v", got)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
	r.eventually(unhooked.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetReason() != "NOT_REPOSITORY_ADMIN" {
			return fmt.Errorf("reason %s", w.GetReason())
		}
		return nil
	})
	testkit.Eventually(t, timeout, func() error {
		status, _, err := deliver(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(2)), header: map[string]string{"X-Request-UUID": "back"}})
		if err != nil || status != 202 {
			return fmt.Errorf("delivery after connecting again: %d: %w", status, err)
		}
		return nil
	})
	list, err := r.people.ListWebhooks(r.admin(), &webhookv1.ListWebhooksRequest{Workspace: workspace})
	if err != nil || len(list.GetWebhooks()) != 2 {
		t.Errorf("list after connecting again: %v, %v", list, err)
	}
}

func TestDisconnect_byTheEventAlone(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	s.auth.disconnect()
	r.eventually(w.GetId(), inState(webhookv1.Webhook_LEFT_ON_BITBUCKET))
	// The app goes while nobody is connected; connecting again removes what nobody uses.
	if got := r.watch(fullName, web); got.GetState() != webhookv1.Webhook_LEFT_ON_BITBUCKET {
		t.Errorf("webhook %v", got)
	}
	s.auth.connect("c2")
	r.eventually(w.GetId(), inState(webhookv1.Webhook_REMOVED))
	s.wantHooks(fullName, w.GetUrl(), 0)
}

func TestEtag_andUse(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	register := func(etag string) error {
		_, err := r.people.RegisterWebhook(r.admin(), &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: w.GetId(), Etag: etag})
		return err
	}
	if err := register(w.GetEtag()); err != nil {
		t.Errorf("with the etag: %v", err)
	}
	if got := r.get(w.GetId()).GetEtag(); got != w.GetEtag() {
		t.Error("an etag changes although nothing did that people see")
	}
	changed := r.watch(fullName, web, "main", "next")
	if err := register(w.GetEtag()); !apierr.Has(err, apierr.ReasonEtagMismatch) {
		t.Errorf("with an old etag: %v", err)
	}
	if err := register(changed.GetEtag()); err != nil {
		t.Errorf("with the new etag: %v", err)
	}
	_, err := r.people.DismissWebhook(r.admin(), &webhookv1.DismissWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if !apierr.Has(err, apierr.ReasonWebhookInUse) {
		t.Errorf("DismissWebhook of one in use: %v", err)
	}
	r.watch(fullName, web)
	if err := register(""); !apierr.Has(err, apierr.ReasonWebhookNotNeeded) {
		t.Errorf("RegisterWebhook of one that nobody needs: %v", err)
	}
	_, err = r.people.GetWebhook(r.admin(), &webhookv1.GetWebhookRequest{Workspace: workspace, Webhook: "nosuchwebhook"})
	if !apierr.Has(err, apierr.ReasonWebhookNotFound) {
		t.Errorf("GetWebhook: %v", err)
	}
}

func TestListWebhooks_pagesSurviveChanges(t *testing.T) {
	s := newStack(t)
	r := s.start() // not connected: nothing is registered
	const n = 9
	ids := map[string]bool{}
	for i := range n {
		w, err := r.setWatches(fmt.Sprintf("acme/r%d", i), fmt.Sprintf("85d08b4e-571d-44e9-a507-%012d", i), "main")
		if err != nil {
			t.Fatal(err)
		}
		ids[w.GetId()] = true
	}
	req := &webhookv1.ListWebhooksRequest{Workspace: workspace, PageSize: 4, State: webhookv1.Webhook_NOT_REGISTERED}
	seen := map[string]bool{}
	for pages := 1; ; pages++ {
		resp, err := r.people.ListWebhooks(r.as(identity.RoleMember), req)
		if err != nil {
			t.Fatalf("ListWebhooks: %v", err)
		}
		for _, w := range resp.GetWebhooks() {
			if seen[w.GetId()] {
				t.Errorf("%s came twice", w.GetId())
			}
			seen[w.GetId()] = true
		}
		if pages == 1 { // one more at the front moves nothing
			if _, err := r.setWatches("acme/late", "85d08b4e-571d-44e9-a507-999999999999", "main"); err != nil {
				t.Fatal(err)
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
		if pages > n {
			t.Fatal("the pages do not end")
		}
	}
	if len(seen) != n {
		t.Errorf("%d webhooks, want %d", len(seen), n)
	}
	req = &webhookv1.ListWebhooksRequest{Workspace: workspace, PageSize: 4}
	first, err := r.people.ListWebhooks(r.admin(), req)
	if err != nil {
		t.Fatal(err)
	}
	req.State, req.PageToken = webhookv1.Webhook_ACTIVE, first.GetNextPageToken()
	if _, err := r.people.ListWebhooks(r.admin(), req); !apierr.Has(err, apierr.ReasonPageTokenInvalid) {
		t.Errorf("the token of another list: %v", err)
	}
}

func TestPolicy_rolesAndCallers(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	name := func(ctx context.Context, c webhookv1.WebhookServiceClient) map[string]error {
		errs := map[string]error{}
		id := w.GetId()
		_, errs["GetWebhook"] = c.GetWebhook(ctx, &webhookv1.GetWebhookRequest{Workspace: workspace, Webhook: id})
		_, errs["ListDeliveries"] = c.ListDeliveries(ctx, &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: id})
		_, errs["RegisterWebhook"] = c.RegisterWebhook(ctx, &webhookv1.RegisterWebhookRequest{Workspace: workspace, Webhook: id})
		_, errs["RevealWebhookSecret"] = c.RevealWebhookSecret(ctx, &webhookv1.RevealWebhookSecretRequest{Workspace: workspace, Webhook: id})
		_, errs["ReplayDelivery"] = c.ReplayDelivery(ctx, &webhookv1.ReplayDeliveryRequest{Workspace: workspace, Webhook: id, Delivery: 1})
		_, errs["SetWatches"] = c.SetWatches(ctx, &webhookv1.SetWatchesRequest{Workspace: workspace, Repository: web})
		_, errs["RecordOutcomes"] = c.RecordOutcomes(ctx, &webhookv1.RecordOutcomesRequest{})
		return errs
	}
	foreign := testkit.As(s.background(), t, s.keys, identity.Identity{Workspace: "other", Role: identity.RoleOwner})
	for who, tc := range map[string]struct {
		errs    map[string]error
		allowed string
	}{
		"member":   {name(s.as(identity.RoleMember), r.people), "GetWebhook ListDeliveries"},
		"admin":    {name(s.admin(), r.people), "GetWebhook ListDeliveries RegisterWebhook RevealWebhookSecret ReplayDelivery"},
		"stranger": {name(foreign, r.people), ""},
		"deployer": {name(s.background(), r.deployer), "GetWebhook ListDeliveries SetWatches RecordOutcomes"},
	} {
		for rpc, err := range tc.errs {
			denied := apierr.Has(err, apierr.ReasonPermissionDenied)
			if allowed := strings.Contains(tc.allowed, rpc); allowed == denied {
				t.Errorf("%s of %s: %v", rpc, who, err)
			}
		}
	}
}

func TestChangeEvents_tellOfWebhooksAndDeliveries(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	s.post(post{url: w.GetUrl(), secret: r.secret(w.GetId()), body: pushBody("main", hash(1))})
	s.post(post{url: w.GetUrl(), secret: "wrong", body: pushBody("main", hash(1))})
	testkit.Eventually(t, timeout, func() error {
		got := map[string]bool{}
		s.messages(stream.EventsStream, func(m *jetstream.RawStreamMsg) {
			var e eventsv1.ChangeEvent
			if err := proto.Unmarshal(m.Data, &e); err != nil {
				t.Fatal(err)
			}
			if e.GetService() == "webhook" && e.GetWorkspace() == workspace {
				got[e.GetKind()+" "+e.GetId()] = true
			}
		})
		for _, want := range []string{"webhook " + w.GetId(), "delivery " + w.GetId() + "/1"} {
			if !got[want] {
				return fmt.Errorf("no event %q among %v", want, got)
			}
		}
		return nil
	})
	r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetLastRefusedTime() == nil {
			return errors.New("the refused request is not shown")
		}
		return nil
	})
}

func TestSecrets_areNowhereInClear(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	secrets := []string{r.secret(w.GetId())}
	if _, err := r.people.RotateWebhookSecret(r.admin(), &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId()}); err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, r.secret(w.GetId()))
	for _, secret := range secrets {
		s.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1))})
	}
	s.post(post{url: w.GetUrl(), secret: "wrong", body: pushBody("main", hash(1))})
	r.await(w.GetId(), 2)
	secrets = append(secrets, s.auth.issued...)
	s.logs.MustNotContain(t, secrets...)
	r.stop()
	files := 0
	err := filepath.WalkDir(s.nats.StoreDir(), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, secret := range secrets {
			if strings.Contains(string(raw), secret) {
				t.Errorf("secret number %d is in %s", i+1, path)
			}
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("searched %d files: %v", files, err)
	}
}
