package server

import (
	"context"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const (
	// previewTime bounds what a preview asks the other services for.
	previewTime = 15 * time.Second
	// previewPages is how many pages of a list a preview counts: 10,000 things.
	previewPages = 50
)

// DeleteWorkspace implements the RPC.
func (s *Server) DeleteWorkspace(ctx context.Context, req *gatewayv1.DeleteWorkspaceRequest) (*gatewayv1.DeleteWorkspaceResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	w, err := s.cfg.Tenants.Delete(ctx, req.GetWorkspace(), req.GetEtag(), tenant.Subject{ID: id.Subject, Label: labelOf(id)}, id.Role)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.DeleteWorkspaceResponse{Workspace: workspaceProto(w)}, nil
}

// PreviewDeletion implements the RPC. What a service does not answer is said: it goes all the same.
func (s *Server) PreviewDeletion(ctx context.Context, req *gatewayv1.PreviewDeletionRequest) (*gatewayv1.PreviewDeletionResponse, error) {
	ws := req.GetWorkspace()
	w, err := s.cfg.Tenants.Get(ctx, ws, identity.RoleOwner)
	if err != nil {
		return nil, err
	}
	p := &gatewayv1.DeletionPreview{Workspace: ws, Etag: w.ETag}
	if err := s.previewOwn(ctx, p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, previewTime)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	part := func(what string, read func() error) {
		wg.Go(func() {
			if err := read(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				p.Unknown = append(p.Unknown, what+" could not be read now: "+apierr.From(err).Message())
			}
		})
	}
	part("The apps", func() error { return s.previewApps(ctx, p) })
	part("The deployments", func() error { return s.previewDeployments(ctx, p) })
	part("The connection and its webhooks", func() error { return s.previewBitbucket(ctx, p) })
	wg.Wait()
	return &gatewayv1.PreviewDeletionResponse{Preview: p}, nil
}

// previewOwn counts what is the gateway's own.
func (s *Server) previewOwn(ctx context.Context, p *gatewayv1.DeletionPreview) error {
	t, err := s.cfg.Tenants.Team(ctx, p.GetWorkspace())
	if err != nil {
		return err
	}
	open, err := s.cfg.Tenants.Invitations(ctx, p.GetWorkspace())
	if err != nil {
		return err
	}
	keys, _, err := s.cfg.Tenants.ListKeys(ctx, p.GetWorkspace(), "", pagetoken.MaxPage)
	if err != nil {
		return err
	}
	targets, err := s.cfg.Notifications.List(ctx, p.GetWorkspace())
	if err != nil {
		return err
	}
	p.Members, p.Invitations, p.ApiKeys, p.NotificationTargets = int32(len(t.GetMembers())), int32(len(open)), int32(len(keys)), int32(len(targets))
	return nil
}

func (s *Server) previewApps(ctx context.Context, p *gatewayv1.DeletionPreview) error {
	resp, err := s.cfg.Deployer.ListApps(ctx, &deployerv1.ListAppsRequest{Workspace: p.GetWorkspace(), PageSize: pagetoken.MaxPage, View: deployerv1.ListAppsRequest_BASIC})
	if err != nil {
		return err
	}
	p.AppsCount = resp.GetTotal()
	for _, a := range resp.GetApps() {
		gone := &gatewayv1.DeletedApp{Id: a.GetId(), RepositoryFullName: a.GetRepositoryFullName()}
		if a.GetLive() != nil {
			gone.Url = a.GetLiveUrl()
		}
		p.Apps = append(p.Apps, gone)
	}
	return nil
}

func (s *Server) previewDeployments(ctx context.Context, p *gatewayv1.DeletionPreview) error {
	req := &deployerv1.ListWorkspaceDeploymentsRequest{
		Workspace: p.GetWorkspace(), States: []deployerv1.Deployment_State{deployerv1.Deployment_PENDING, deployerv1.Deployment_PROCESSING}, PageSize: pagetoken.MaxPage,
	}
	for range previewPages {
		resp, err := s.cfg.Deployer.ListWorkspaceDeployments(ctx, req)
		if err != nil {
			return err
		}
		p.DeploymentsRunning += int32(len(resp.GetDeployments()))
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
	return nil
}

// previewBitbucket says which webhooks Bitbucket has of us, and which of them will stay there.
func (s *Server) previewBitbucket(ctx context.Context, p *gatewayv1.DeletionPreview) error {
	got, err := s.cfg.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: p.GetWorkspace()})
	if err != nil {
		return err
	}
	i := got.GetIntegration()
	p.Account = i.GetAccount().GetLabel()
	for page, token := 0, ""; page < previewPages; page++ {
		resp, err := s.cfg.Webhook.ListWebhooks(ctx, &webhookv1.ListWebhooksRequest{Workspace: p.GetWorkspace(), PageSize: pagetoken.MaxPage, PageToken: token})
		if err != nil {
			return err
		}
		for _, h := range resp.GetWebhooks() {
			if gone := deletedWebhook(h, i); gone != nil {
				p.Webhooks = append(p.Webhooks, gone)
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			return nil
		}
	}
	return nil
}

// deletedWebhook is nil for one that Bitbucket does not have.
func deletedWebhook(h *webhookv1.Webhook, i *authv1.Integration) *gatewayv1.DeletedWebhook {
	gone := &gatewayv1.DeletedWebhook{RepositoryFullName: h.GetRepositoryFullName()}
	switch h.GetState() {
	case webhookv1.Webhook_ACTIVE, webhookv1.Webhook_MANUAL, webhookv1.Webhook_DRIFTED, webhookv1.Webhook_LEFT_ON_BITBUCKET:
	default:
		return nil
	}
	switch {
	case i.GetState() == authv1.Integration_NOT_CONNECTED, i.GetState() == authv1.Integration_RECONNECT_REQUIRED:
		gone.Stays = "No Bitbucket account is connected that could remove it. Connect one first, or delete it at Bitbucket by hand."
	case h.GetHealth() == webhookv1.Webhook_NOT_ADMIN, h.GetReason() == string(apierr.ReasonNotRepositoryAdmin):
		gone.Stays = "The connected account is not an admin of the repository. Give it that right first, or delete the webhook at Bitbucket by hand."
	case h.GetReason() == string(apierr.ReasonWorkspaceExcluded):
		gone.Stays = "Its Bitbucket workspace is outside of what this workspace is narrowed to. Widen that first, or delete the webhook at Bitbucket by hand."
	}
	return gone
}
