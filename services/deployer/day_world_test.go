package deployer_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// The world around the simulated day: Bitbucket and the other services.

// Heads implements reconcile.Heads.
func (d *day) Heads(_ context.Context, _, fullName string, want remote.Wanted) (remote.Heads, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begin.IsZero() {
		d.git[int(time.Since(d.begin).Hours())]++
	}
	out := remote.Heads{Branches: map[string]string{}, Tags: map[string]string{}, Empty: len(d.heads[fullName]) == 0}
	for branch, hash := range d.heads[fullName] {
		if want.Branch(branch) {
			out.Branches[branch] = hash
		}
	}
	return out, nil
}

func (d *day) called(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[name]++
}

type authOfDay struct{ authv1.AuthServiceClient }

func (authOfDay) GetIntegration(_ context.Context, req *authv1.GetIntegrationRequest, _ ...grpc.CallOption) (*authv1.GetIntegrationResponse, error) {
	return &authv1.GetIntegrationResponse{Integration: &authv1.Integration{
		Workspace: req.GetWorkspace(), State: authv1.Integration_CONNECTED, ConnectionId: "c1", Account: &authv1.Account{Label: "jane-dev"},
	}}, nil
}

type repoOfDay struct {
	repov1.RepoServiceClient
	d *day
}

func (r repoOfDay) GetRepository(_ context.Context, req *repov1.GetRepositoryRequest, _ ...grpc.CallOption) (*repov1.GetRepositoryResponse, error) {
	r.d.called("GetRepository")
	var i int
	if _, err := fmt.Sscanf(req.GetRepository(), "00000000-0000-4000-8000-%d", &i); err != nil {
		return nil, err
	}
	return &repov1.GetRepositoryResponse{Repository: &repov1.Repository{Id: req.GetRepository(), FullName: nameOf(i), MainBranch: "branch-0"}}, nil
}

func (r repoOfDay) GetBranch(_ context.Context, req *repov1.GetBranchRequest, _ ...grpc.CallOption) (*repov1.GetBranchResponse, error) {
	r.d.called("GetBranch")
	var i int
	if _, err := fmt.Sscanf(req.GetRepository(), "00000000-0000-4000-8000-%d", &i); err != nil {
		return nil, err
	}
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	return &repov1.GetBranchResponse{Branch: &repov1.Branch{Name: req.GetBranch(), Commit: &repov1.BranchCommit{Hash: r.d.heads[nameOf(i)][req.GetBranch()]}}}, nil
}

func (r repoOfDay) GetHead(ctx context.Context, req *repov1.GetHeadRequest, _ ...grpc.CallOption) (*repov1.GetHeadResponse, error) {
	found, err := r.GetRepository(ctx, &repov1.GetRepositoryRequest{Workspace: req.GetWorkspace(), Repository: req.GetRepository()})
	if err != nil {
		return nil, err
	}
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	hash := r.d.heads[found.GetRepository().GetFullName()][req.GetBranch()]
	return &repov1.GetHeadResponse{Repository: found.GetRepository(), Hash: &hash}, nil
}

type webhookOfDay struct {
	webhookv1.WebhookServiceClient
	d *day
}

func (h webhookOfDay) hook(workspace, repository string) *webhookv1.Webhook {
	hook := &webhookv1.Webhook{Id: "hook-" + strings.TrimLeft(repository[24:], "0"), Workspace: workspace, Repository: repository, State: webhookv1.Webhook_ACTIVE}
	if at := h.d.verified[repository]; !at.IsZero() {
		hook.LastVerifiedTime = timestamppb.New(at)
	}
	return hook
}

func (h webhookOfDay) SetWatches(_ context.Context, req *webhookv1.SetWatchesRequest, _ ...grpc.CallOption) (*webhookv1.SetWatchesResponse, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.watches[req.GetRepository()] = req
	return &webhookv1.SetWatchesResponse{Webhook: h.hook(req.GetWorkspace(), req.GetRepository())}, nil
}

func (h webhookOfDay) BatchGetWebhooks(_ context.Context, req *webhookv1.BatchGetWebhooksRequest, _ ...grpc.CallOption) (*webhookv1.BatchGetWebhooksResponse, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	resp := &webhookv1.BatchGetWebhooksResponse{}
	for _, id := range req.GetRepositories() {
		if h.d.watches[id] != nil {
			resp.Webhooks = append(resp.Webhooks, h.hook(req.GetWorkspace(), id))
		}
	}
	return resp, nil
}

func (webhookOfDay) RecordOutcomes(context.Context, *webhookv1.RecordOutcomesRequest, ...grpc.CallOption) (*webhookv1.RecordOutcomesResponse, error) {
	return &webhookv1.RecordOutcomesResponse{}, nil
}
