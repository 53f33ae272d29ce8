// Package client is how the deployer asks auth, repo and webhook: their generated clients, in
// the form of the interfaces that its packages declare. Errors are apierr's, as pkg/rpc decodes
// them.
package client

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/client/witness"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Clients are all of them.
type Clients struct {
	Auth    Auth
	Repo    Repo
	Webhook Webhook
	// Witness asks Bitbucket's REST API, by the repo service, about what git says.
	Witness *witness.Witness
}

// Auth is the auth service.
type Auth struct {
	Client authv1.AuthServiceClient
	// SiteURL is the only site that a token may be sent to from here.
	SiteURL string
	// Places knows which Bitbucket workspace a repository is in.
	Places *Places
	// Hide is told every token before it is used, so that no log shows it.
	Hide func(token seal.Secret)
}

// minLife is the life that a token has at least: a large fetch takes minutes, and asks again.
const minLife = 20 * time.Minute

// Token hands out a workspace's access token for git, to be used for one repository. Where an admin narrowed
// the workspace, auth hands out none for a repository outside, and one that it did hand out is not used.
func (a Auth) Token(ctx context.Context, workspace, fullName string, rejected seal.Secret) (seal.Secret, error) {
	req := &authv1.IssueTokenRequest{Workspace: workspace, MinLife: durationpb.New(minLife), BitbucketWorkspaceId: a.Places.known(workspace, fullName)}
	if !rejected.IsZero() {
		sum := sha256.Sum256([]byte(rejected.Reveal()))
		req.RejectedTokenSha256 = sum[:]
	}
	resp, err := a.Client.IssueToken(ctx, req)
	if apierr.Has(err, apierr.ReasonWorkspaceExcluded) && req.GetBitbucketWorkspaceId() == "" {
		if req.BitbucketWorkspaceId, err = a.Places.ask(ctx, workspace, fullName); err == nil {
			resp, err = a.Client.IssueToken(ctx, req)
		}
	}
	if err != nil {
		return seal.Secret{}, err
	}
	if resp.GetSiteUrl() != a.SiteURL {
		return seal.Secret{}, apierr.Newf(apierr.ReasonReconnectRequired,
			"The workspace was connected to %s, but this installation works with %s. Connect again.", resp.GetSiteUrl(), a.SiteURL)
	}
	if n := resp.GetNarrowedTo(); len(n) > 0 && !slices.Contains(n, req.GetBitbucketWorkspaceId()) {
		return seal.Secret{}, excluded()
	}
	token := seal.NewSecret(resp.GetAccessToken())
	a.Hide(token)
	return token, nil
}

// Integration tells how the workspace's integration stands.
func (a Auth) Integration(ctx context.Context, workspace string) (*authv1.Integration, error) {
	resp, err := a.Client.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
	return resp.GetIntegration(), err
}

// Repo is the repo service.
type Repo struct {
	Client repov1.RepoServiceClient
	// Places learns from the answers.
	Places *Places
}

// Repository looks a repository up, live.
func (r Repo) Repository(ctx context.Context, workspace, repository string) (*repov1.Repository, error) {
	resp, err := r.Client.GetRepository(ctx, &repov1.GetRepositoryRequest{Workspace: workspace, Repository: repository})
	r.Places.Learn(workspace, resp.GetRepository().GetFullName(), resp.GetRepository().GetBitbucketWorkspaceId())
	return resp.GetRepository(), err
}

// Head is the commit of a branch, live.
func (r Repo) Head(ctx context.Context, workspace, repository, branch string) (string, error) {
	resp, err := r.Client.GetBranch(ctx, &repov1.GetBranchRequest{Workspace: workspace, Repository: repository, Branch: branch})
	return resp.GetBranch().GetCommit().GetHash(), err
}

// RepositoryAndHead looks a repository up, live, and the commit of one of its branches: empty where it has no such
// branch, and not known where Bitbucket did not answer for it. Without a branch only the repository is.
func (r Repo) RepositoryAndHead(ctx context.Context, workspace, repository, branch string) (found *repov1.Repository, hash string, known bool, err error) {
	resp, err := r.Client.GetHead(ctx, &repov1.GetHeadRequest{Workspace: workspace, Repository: repository, Branch: branch})
	found = resp.GetRepository()
	r.Places.Learn(workspace, found.GetFullName(), found.GetBitbucketWorkspaceId())
	return found, resp.GetHash(), err == nil && resp.Hash != nil, err
}

// Resolve finds the commit that a person names, live.
func (r Repo) Resolve(ctx context.Context, req *repov1.ResolveCommitRequest) (*repov1.BranchCommit, error) {
	resp, err := r.Client.ResolveCommit(ctx, req)
	return resp.GetCommit(), err
}

// Webhook is the webhook service.
type Webhook struct {
	Client webhookv1.WebhookServiceClient
}

// SetWatches hands over which branches are watched.
func (w Webhook) SetWatches(ctx context.Context, req *webhookv1.SetWatchesRequest) (*webhookv1.Webhook, error) {
	resp, err := w.Client.SetWatches(ctx, req)
	return resp.GetWebhook(), err
}

// Webhooks answers by repository.
func (w Webhook) Webhooks(ctx context.Context, workspace string, repositories []string) (map[string]*webhookv1.Webhook, error) {
	resp, err := w.Client.BatchGetWebhooks(ctx, &webhookv1.BatchGetWebhooksRequest{Workspace: workspace, Repositories: repositories})
	if err != nil {
		return nil, err
	}
	out := make(map[string]*webhookv1.Webhook, len(resp.GetWebhooks()))
	for _, h := range resp.GetWebhooks() {
		out[h.GetRepository()] = h
	}
	return out, nil
}

// All returns a workspace's webhooks, those that are left or removed too, and whether there are more.
func (w Webhook) All(ctx context.Context, workspace string) (hooks []*webhookv1.Webhook, more bool, err error) {
	resp, err := w.Client.ListWebhooks(ctx, &webhookv1.ListWebhooksRequest{Workspace: workspace, PageSize: pagetoken.MaxPage})
	return resp.GetWebhooks(), resp.GetNextPageToken() != "", err
}

// Delivery returns one delivery; DELIVERY_NOT_FOUND when it is not kept.
func (w Webhook) Delivery(ctx context.Context, workspace, webhook string, number int32) (*webhookv1.Delivery, error) {
	resp, err := w.Client.GetDelivery(ctx, &webhookv1.GetDeliveryRequest{Workspace: workspace, Webhook: webhook, Delivery: number})
	return resp.GetDelivery(), err
}

// Record brings outcomes.
func (w Webhook) Record(ctx context.Context, outcomes []*webhookv1.RecordedOutcome) error {
	_, err := w.Client.RecordOutcomes(ctx, &webhookv1.RecordOutcomesRequest{Outcomes: outcomes})
	return err
}

// Deliveries returns a page of a webhook's deliveries that concern a branch.
func (w Webhook) Deliveries(ctx context.Context, req *webhookv1.ListDeliveriesRequest) (*webhookv1.ListDeliveriesResponse, error) {
	return w.Client.ListDeliveries(ctx, req)
}
