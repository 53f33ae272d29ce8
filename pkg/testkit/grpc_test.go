package testkit_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
)

type repos struct {
	repov1.UnimplementedRepoServiceServer
}

// GetBranch answers with who asked.
func (repos) GetBranch(ctx context.Context, _ *repov1.GetBranchRequest) (*repov1.GetBranchResponse, error) {
	id, _ := identity.FromContext(ctx)
	return &repov1.GetBranchResponse{Branch: &repov1.Branch{Name: identity.CallerFromContext(ctx) + " for " + id.Subject}}, nil
}

func TestServeGRPC_runsTheRealInterceptors(t *testing.T) {
	keys := testkit.Keys(t)
	member := rpc.Rule{Callers: []string{"gateway", "deployer"}, MinRole: identity.RoleMember}
	s := testkit.ServeGRPC(t, testkit.GRPCConfig{
		Service: "repo", Keys: keys, Register: func(r grpc.ServiceRegistrar) { repov1.RegisterRepoServiceServer(r, repos{}) },
		Policy: rpc.Policy{
			repov1.RepoService_ListBitbucketWorkspaces_FullMethodName: member,
			repov1.RepoService_ListRepositories_FullMethodName:        member,
			repov1.RepoService_GetRepository_FullMethodName:           member,
			repov1.RepoService_ListBranches_FullMethodName:            member,
			repov1.RepoService_SuggestServe_FullMethodName:            member,
			repov1.RepoService_GetBranch_FullMethodName:               member,
			repov1.RepoService_GetHead_FullMethodName:                 member,
			repov1.RepoService_ListTags_FullMethodName:                member,
			repov1.RepoService_ListCommits_FullMethodName:             member,
			repov1.RepoService_ResolveCommit_FullMethodName:           member,
		},
	})
	ask := func(ctx context.Context, caller string) (string, error) {
		r, err := repov1.NewRepoServiceClient(s.Dial(caller)).GetBranch(ctx, &repov1.GetBranchRequest{Workspace: "acme-inc", Repository: "85d08b4e-571d-44e9-a507-fa476535aa98", Branch: "main"})
		return r.GetBranch().GetName(), err
	}
	jane := testkit.As(t.Context(), t, keys, identity.Identity{Workspace: "acme-inc", Role: identity.RoleMember})
	if got, err := ask(jane, "gateway"); err != nil || got != "gateway for jane" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := ask(t.Context(), "deployer"); err != nil || got != "deployer for " {
		t.Errorf("%q, %v", got, err)
	}
	elsewhere := testkit.As(t.Context(), t, keys, identity.Identity{Workspace: "other", Role: identity.RoleOwner})
	if _, err := ask(elsewhere, "gateway"); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("a user of another workspace: %v", err)
	}
	if _, err := ask(t.Context(), "webhook"); err == nil {
		t.Error("a caller that the policy does not name was let in")
	}
}
