package deletion_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/deletion"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

var errKilled = errors.New("killed")

// world is what there is of one workspace elsewhere, and the process that deletes it: at a step it dies, before the step
// or after it.
type world struct {
	t     *testing.T
	store *tenant.Store

	mu                 sync.Mutex
	apps, hooks        int
	token, kept, tells bool
	left               []*webhookv1.Webhook
	steps, dieAt       int
	after              bool
	kill               context.CancelFunc
	log                []string
}

func (w *world) step(name string, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps++
	die := w.steps == w.dieAt
	if die && !w.after {
		w.kill()
		return errKilled
	}
	err := do()
	w.log = append(w.log, name)
	if die {
		w.kill()
		return errKilled
	}
	return err
}

type deployer struct {
	deployerv1.DeployerServiceClient
	*world
}

func (d deployer) RemoveWorkspace(context.Context, *deployerv1.RemoveWorkspaceRequest, ...grpc.CallOption) (*deployerv1.RemoveWorkspaceResponse, error) {
	resp := &deployerv1.RemoveWorkspaceResponse{ServersAway: []string{"far"}}
	return resp, d.step("apps", func() error {
		d.apps = max(d.apps-1, 0)
		resp.Left = int32(d.apps)
		return nil
	})
}

type hooks struct {
	webhookv1.WebhookServiceClient
	*world
}

func (h hooks) RemoveWorkspace(_ context.Context, req *webhookv1.RemoveWorkspaceRequest, _ ...grpc.CallOption) (*webhookv1.RemoveWorkspaceResponse, error) {
	resp := &webhookv1.RemoveWorkspaceResponse{}
	if req.GetErase() {
		return resp, h.step("erase", func() error {
			if h.hooks > 0 || h.token {
				h.t.Errorf("webhooks are forgotten while %d are at Bitbucket and the token is kept: %v", h.hooks, h.token)
			}
			h.kept, h.left = false, nil
			return nil
		})
	}
	return resp, h.step("hooks", func() error {
		if h.apps > 0 {
			h.t.Errorf("webhooks go while %d apps are there", h.apps)
		}
		if h.hooks > 0 && h.token {
			h.hooks--
		}
		resp.Waiting, resp.Left = int32(h.hooks), h.left
		return nil
	})
}

type auth struct {
	authv1.AuthServiceClient
	*world
}

func (a auth) RemoveIntegration(_ context.Context, req *authv1.RemoveIntegrationRequest, _ ...grpc.CallOption) (*authv1.RemoveIntegrationResponse, error) {
	return &authv1.RemoveIntegrationResponse{}, a.step("token", func() error {
		if a.hooks > 0 || !req.GetForGood() {
			a.t.Errorf("the token goes while %d webhooks are at Bitbucket; for good: %v", a.hooks, req.GetForGood())
		}
		a.token = false
		return nil
	})
}

// Forget implements deletion.Notifications.
func (w *world) Forget(context.Context, string) error {
	return w.step("notifications", func() error { w.tells = false; return nil })
}

// records is the store, whose writes are steps too.
type records struct {
	*tenant.Store
	*world
}

func (r records) Close(ctx context.Context, ws string) error {
	return r.step("close", func() error { return r.Store.Close(ctx, ws) })
}

func (r records) Note(ctx context.Context, ws string, p tenant.Progress) error {
	return r.step("note", func() error { return r.Store.Note(ctx, ws, p) })
}

func (r records) Finish(ctx context.Context, ws string) error {
	return r.step("finish", func() error { return r.Store.Finish(ctx, ws) })
}

func open(t *testing.T) *tenant.Store {
	t.Helper()
	_, js := testkit.NATS(t).Connect()
	s := tenant.New(js, tenant.Options{Now: time.Now, Logger: testkit.Logger(t).Logger})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// run deletes until it is done or killed, and says whether it was killed.
func (w *world) run(t *testing.T, settle time.Duration) (killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.kill = cancel
	signer, err := identity.NewSigner(testkit.Keys(t), identity.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	d := deletion.New(deletion.Config{
		Workspaces: records{w.store, w}, Notifications: w, Signer: signer, Auth: auth{world: w}, Webhook: hooks{world: w}, Deployer: deployer{world: w},
		Settle: settle, Pause: time.Millisecond, Logger: testkit.Logger(t).Logger, Now: time.Now,
	})
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	for {
		m, err := w.store.Marked(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if m.GetDeleted() {
			cancel()
			<-ended
			return false
		}
		select {
		case <-ended:
			return true
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) begin(t *testing.T) {
	t.Helper()
	owner := tenant.Subject{ID: "olga", Label: "Olga"}
	if _, err := w.store.Create(t.Context(), "acme", "Acme", owner); err != nil {
		t.Fatal(err)
	}
	if err := w.store.AddMember(t.Context(), "acme", tenant.Subject{ID: "mia", Label: "Mia"}, identity.RoleMember); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Delete(t.Context(), "acme", "", owner, identity.RoleOwner); err != nil {
		t.Fatal(err)
	}
}

func (w *world) check(t *testing.T) {
	t.Helper()
	if w.apps > 0 || w.hooks > 0 || w.token || w.kept || w.tells {
		t.Errorf("left: %d apps, %d webhooks, token %v, deliveries %v, notifications %v", w.apps, w.hooks, w.token, w.kept, w.tells)
	}
	m, err := w.store.Marked(t.Context(), "acme")
	if err != nil || !m.GetDeleted() || m.GetProgress() != "" || m.GetDeletedBy() != "Olga" || len(m.GetWebhooksLeft()) != 1 || !slices.Equal(m.GetServersAway(), []string{"far"}) {
		t.Errorf("the record is %v, %v", m, err)
	}
	for who, want := range map[string]identity.Role{"olga": identity.RoleOwner, "mia": identity.RoleNone} {
		if is, err := w.store.Standing(t.Context(), "acme", who); err != nil || is.Role != want || is.Closed != tenant.Deleted {
			t.Errorf("%s is %v in a workspace that is %v: %v", who, is.Role, is.Closed, err)
		}
	}
}

// The process is killed at each step, before and after what it does; another one ends it, with the same end, and never
// is a token gone while Bitbucket has a webhook.
func TestDelete_goesOnAfterAKillAtAnyStep(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			w := &world{t: t, store: open(t), apps: 2, hooks: 2, token: true, kept: true, tells: true, dieAt: at, after: after, left: []*webhookv1.Webhook{{RepositoryFullName: "acme/docs", SettingsUrl: "https://x.test", Message: "No."}}}
			w.begin(t)
			killed := w.run(t, time.Nanosecond)
			if killed {
				w.dieAt = 0
				w.run(t, time.Nanosecond)
			}
			w.check(t)
			if t.Failed() {
				t.Fatalf("killed at step %d (after it: %v): %v", at, after, w.log)
			}
			if !killed {
				if at < 10 {
					t.Errorf("there were only %d steps: %v", at, w.log)
				}
				break
			}
		}
	}
}

// What was let in before the decision may still write after the first pass: one that begins later finds it.
func TestDelete_looksAgainOnceNobodyIsAtWorkAnyMore(t *testing.T) {
	w := &world{t: t, store: open(t), apps: 1, token: true, kept: true, left: []*webhookv1.Webhook{{RepositoryFullName: "acme/docs"}}}
	w.begin(t)
	done := make(chan bool, 1)
	go func() { done <- w.run(t, time.Second) }()
	testkit.Eventually(t, 20*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !slices.Contains(w.log, "erase") {
			return fmt.Errorf("the first pass has done %v", w.log)
		}
		w.apps, w.token, w.kept = 1, true, true // a create and a connect that were on their way
		return nil
	})
	<-done
	w.check(t)
	if n := strings.Count(strings.Join(w.log, " "), "erase"); n < 2 {
		t.Errorf("it looked %d times: %v", n, w.log)
	}
}

// A note without a decision belongs to a request that was refused.
func TestDelete_withoutADecisionNothingHappens(t *testing.T) {
	w := &world{t: t, store: open(t), apps: 1, token: true}
	owner := tenant.Subject{ID: "olga", Label: "Olga"}
	if _, err := w.store.Create(t.Context(), "acme", "Acme", owner); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Delete(t.Context(), "acme", "another", owner, identity.RoleOwner); err == nil {
		t.Error("an etag that is not the workspace's was taken")
	}
	if m, err := w.store.Marked(t.Context(), "acme"); err != nil || m != nil {
		t.Errorf("marked %v, %v", m, err)
	}
	if is, err := w.store.Standing(t.Context(), "acme", "olga"); err != nil || is.Role != identity.RoleOwner || is.Closed != tenant.Open {
		t.Errorf("%+v %v", is, err)
	}
	if len(w.log) > 0 {
		t.Errorf("something was done: %v", w.log)
	}
}
