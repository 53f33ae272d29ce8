package repo

import (
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
)

// Policy says who may call what. Every member may read repositories, branches, tags and commits (DESIGN.md#roles);
// the deployer asks for apps it saves and for what it deploys.
var Policy = rpc.Policy{
	repov1.RepoService_ListRepositories_FullMethodName: {Callers: []string{"gateway"}, MinRole: identity.RoleMember},
	repov1.RepoService_GetRepository_FullMethodName:    {Callers: []string{"gateway", "deployer"}, MinRole: identity.RoleMember},
	repov1.RepoService_ListBranches_FullMethodName:     {Callers: []string{"gateway"}, MinRole: identity.RoleMember},
	repov1.RepoService_ListTags_FullMethodName:         {Callers: []string{"gateway"}, MinRole: identity.RoleMember},
	repov1.RepoService_ListCommits_FullMethodName:      {Callers: []string{"gateway"}, MinRole: identity.RoleMember},
	repov1.RepoService_SuggestServe_FullMethodName:     {Callers: []string{"gateway"}, MinRole: identity.RoleMember},
	// Only those who may narrow a workspace see what it could be narrowed to.
	repov1.RepoService_ListBitbucketWorkspaces_FullMethodName: {Callers: []string{"gateway", "deployer"}, MinRole: identity.RoleAdmin},
	repov1.RepoService_GetBranch_FullMethodName:               {Callers: []string{"deployer"}},
	repov1.RepoService_GetHead_FullMethodName:                 {Callers: []string{"deployer"}},
	repov1.RepoService_ResolveCommit_FullMethodName:           {Callers: []string{"deployer"}},
}
