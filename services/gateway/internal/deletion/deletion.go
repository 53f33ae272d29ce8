// Package deletion carries out what an owner decided: that a workspace goes. The decision is in the workspace's
// record; from then on nobody is let in. What is left to do is in no list: each pass does all steps from the first
// one, every step can be repeated, and the note that somebody has to go on is removed after the last. So it does not
// matter which process dies where, and how many do it at once.
//
// The order leaves no webhook at Bitbucket and no token behind: apps, then their webhooks, which takes the token, then
// the token, then what was kept of the webhooks, then what is the gateway's own.
//
// It depends on internal/tenant, internal/notify and the clients of auth, webhook and deployer.
package deletion

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const (
	// Settle is for how long after the decision a call may still be at work that was let in before: an identity is good
	// for a minute, and the call that it began with ends within another. A pass that began later finds what it left.
	Settle = 2 * time.Minute
	// stray is the age at which a note without a decision belongs to a request that was refused or died.
	stray = time.Minute
	// callTimeout bounds one step.
	callTimeout = time.Minute
	// firstPause is between the first two passes; each further one is twice as long.
	firstPause = time.Second
	// mostPause is the longest between two passes.
	mostPause = 30 * time.Second
	// parallel is how many workspaces a process deletes at once.
	parallel = 4
)

// Workspaces are the records; see package tenant.
type Workspaces interface {
	WatchDeletions(ctx context.Context, fn func(workspace string, begun time.Time)) error
	Marked(ctx context.Context, workspace string) (*gatewaystorev1.Workspace, error)
	Close(ctx context.Context, workspace string) error
	Note(ctx context.Context, workspace string, p tenant.Progress) error
	Finish(ctx context.Context, workspace string) error
	Undelete(ctx context.Context, workspace string) error
}

// Notifications are where these go; nobody hears of what a deletion breaks.
type Notifications interface {
	Forget(ctx context.Context, workspace string) error
}

// Config is what New needs.
type Config struct {
	Workspaces    Workspaces
	Notifications Notifications
	Signer        *identity.Signer
	Auth          authv1.AuthServiceClient
	Webhook       webhookv1.WebhookServiceClient
	Deployer      deployerv1.DeployerServiceClient
	Settle        time.Duration
	Pause         time.Duration // between the first two passes; 0: firstPause
	Logger        *slog.Logger
	Now           func() time.Time
}

// Deleter deletes workspaces. Run it once.
type Deleter struct {
	cfg   Config
	slots chan struct{}

	mu   sync.Mutex
	busy map[string]time.Time // when the newest note was made that is known, of those that are worked on
}

// New makes a deleter.
func New(cfg Config) *Deleter {
	cfg.Pause = cmp.Or(cfg.Pause, firstPause)
	return &Deleter{cfg: cfg, slots: make(chan struct{}, parallel), busy: map[string]time.Time{}}
}

// Run deletes what is to be deleted, until ctx is done.
func (d *Deleter) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	return d.cfg.Workspaces.WatchDeletions(ctx, func(workspace string, begun time.Time) {
		d.mu.Lock()
		defer d.mu.Unlock()
		_, busy := d.busy[workspace]
		if d.busy[workspace] = begun; !busy {
			wg.Go(func() { d.work(ctx, workspace) })
		}
	})
}

// work deletes one workspace, again when another note came while it did.
func (d *Deleter) work(ctx context.Context, workspace string) {
	for {
		d.mu.Lock()
		begun := d.busy[workspace]
		d.mu.Unlock()
		d.delete(ctx, workspace, begun)
		d.mu.Lock()
		if d.busy[workspace].Equal(begun) || ctx.Err() != nil {
			delete(d.busy, workspace)
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
}

// delete makes passes until nothing is left.
func (d *Deleter) delete(ctx context.Context, workspace string, begun time.Time) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case d.slots <- struct{}{}:
		}
		done, err := d.pass(ctx, workspace, begun)
		<-d.slots
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.cfg.Logger.WarnContext(ctx, "deletion of a workspace held up, trying again", slog.String(logs.KeyWorkspace, workspace), logs.Err(err))
		case done:
			d.cfg.Logger.InfoContext(ctx, "workspace deleted", slog.String(logs.KeyWorkspace, workspace))
			return
		}
		t := time.NewTimer(min(d.cfg.Pause<<min(n, 10), mostPause))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// pass does all steps as far as they can be done now, and says whether none is left.
func (d *Deleter) pass(ctx context.Context, workspace string, begun time.Time) (done bool, err error) {
	began := d.cfg.Now()
	w, err := d.cfg.Workspaces.Marked(ctx, workspace)
	switch {
	case err != nil:
		return false, err
	case w == nil && began.Sub(begun) < stray:
		return false, nil // the decision may be on its way
	case w == nil, w.GetDeleted():
		return true, d.cfg.Workspaces.Undelete(ctx, workspace)
	}
	if err := d.cfg.Workspaces.Close(ctx, workspace); err != nil {
		return false, err
	}
	if err := d.cfg.Notifications.Forget(ctx, workspace); err != nil {
		return false, err
	}
	empty, err := d.empty(ctx, workspace)
	if err != nil || !empty || began.Sub(begun) < d.cfg.Settle {
		return false, err
	}
	return true, d.cfg.Workspaces.Finish(ctx, workspace)
}

// empty has the other services remove what they have, and says whether they did.
func (d *Deleter) empty(ctx context.Context, workspace string) (bool, error) {
	var apps *deployerv1.RemoveWorkspaceResponse
	var hooks *webhookv1.RemoveWorkspaceResponse
	err := d.ask(ctx, workspace, "apps", func(ctx context.Context) (err error) {
		apps, err = d.cfg.Deployer.RemoveWorkspace(ctx, &deployerv1.RemoveWorkspaceRequest{Workspace: workspace})
		return err
	})
	if err != nil {
		return false, err
	}
	p := tenant.Progress{Away: apps.GetServersAway()}
	if n := apps.GetLeft(); n > 0 {
		p.Waits = fmt.Sprintf("Apps are being removed, with their releases and histories: %d left.", n)
		return false, d.cfg.Workspaces.Note(ctx, workspace, p)
	}
	err = d.ask(ctx, workspace, "webhooks", func(ctx context.Context) (err error) {
		hooks, err = d.cfg.Webhook.RemoveWorkspace(ctx, &webhookv1.RemoveWorkspaceRequest{Workspace: workspace})
		return err
	})
	if err != nil {
		return false, err
	}
	for _, h := range hooks.GetLeft() {
		p.Left = append(p.Left, &gatewaystorev1.LeftWebhook{RepositoryFullName: h.GetRepositoryFullName(), SettingsUrl: h.GetSettingsUrl(), Message: h.GetMessage()})
	}
	if n := hooks.GetWaiting(); n > 0 {
		p.Waits = fmt.Sprintf("Webhooks are being removed at Bitbucket: %d left.", n)
		return false, d.cfg.Workspaces.Note(ctx, workspace, p)
	}
	if err := d.cfg.Workspaces.Note(ctx, workspace, p); err != nil {
		return false, err
	}
	err = d.ask(ctx, workspace, "connection", func(ctx context.Context) error {
		_, err := d.cfg.Auth.RemoveIntegration(ctx, &authv1.RemoveIntegrationRequest{Workspace: workspace, ForGood: true})
		return err
	})
	if err != nil {
		return false, err
	}
	return true, d.ask(ctx, workspace, "deliveries", func(ctx context.Context) error {
		_, err := d.cfg.Webhook.RemoveWorkspace(ctx, &webhookv1.RemoveWorkspaceRequest{Workspace: workspace, Erase: true})
		return err
	})
}

// ask calls a service on behalf of nobody but Devpilot.
func (d *Deleter) ask(ctx context.Context, workspace, what string, call func(ctx context.Context) error) error {
	token, err := d.cfg.Signer.SignUser(identity.Identity{
		Subject: "system:deletion", SubjectKind: identity.SubjectLocal, Label: "Devpilot", Workspace: workspace, Role: identity.RoleOwner,
	})
	if err != nil {
		return fmt.Errorf("deletion: %w", err)
	}
	ctx, cancel := context.WithTimeout(identity.WithUserToken(ctx, token), callTimeout)
	defer cancel()
	if err := call(ctx); err != nil {
		return fmt.Errorf("deletion: remove the %s of workspace %s: %w", what, workspace, err)
	}
	return nil
}
