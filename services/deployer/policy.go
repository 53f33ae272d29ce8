package deployer

import (
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
)

// Policy says who may call what (the table at the end of DESIGN.md#roles): admins save apps,
// members deploy and look. Servers belong to no workspace.
var Policy = rpc.Policy{
	deployerv1.DeployerService_CreateApp_FullMethodName:                gateway(identity.RoleAdmin),
	deployerv1.DeployerService_UpdateApp_FullMethodName:                gateway(identity.RoleAdmin),
	deployerv1.DeployerService_DeleteApp_FullMethodName:                gateway(identity.RoleAdmin),
	deployerv1.DeployerService_RemoveWorkspace_FullMethodName:          gateway(identity.RoleOwner),
	deployerv1.DeployerService_GetApp_FullMethodName:                   gateway(identity.RoleMember),
	deployerv1.DeployerService_ListApps_FullMethodName:                 ofApps(identity.RoleMember),
	deployerv1.DeployerService_CreateDeployment_FullMethodName:         gateway(identity.RoleMember),
	deployerv1.DeployerService_CancelDeployment_FullMethodName:         gateway(identity.RoleMember),
	deployerv1.DeployerService_RedeployDeployment_FullMethodName:       gateway(identity.RoleMember),
	deployerv1.DeployerService_RollBackApp_FullMethodName:              gateway(identity.RoleMember),
	deployerv1.DeployerService_CheckPush_FullMethodName:                gateway(identity.RoleMember),
	deployerv1.DeployerService_GetDeployment_FullMethodName:            gateway(identity.RoleMember),
	deployerv1.DeployerService_ListDeployments_FullMethodName:          gateway(identity.RoleMember),
	deployerv1.DeployerService_ListWorkspaceDeployments_FullMethodName: ofApps(identity.RoleMember),
	deployerv1.DeployerService_Explain_FullMethodName:                  gateway(identity.RoleMember),
	deployerv1.DeployerService_ListAppDeliveries_FullMethodName:        gateway(identity.RoleMember),
	deployerv1.DeployerService_ReadLog_FullMethodName:                  gateway(identity.RoleMember),
	deployerv1.DeployerService_ProveGit_FullMethodName:                 gateway(identity.RoleAdmin),
	deployerv1.DeployerService_ProveStatus_FullMethodName:              gateway(identity.RoleAdmin),
	deployerv1.DeployerService_ReadBadge_FullMethodName:                gateway(identity.RoleNone), // the key is the right
	deployerv1.DeployerService_ListServers_FullMethodName:              gateway(identity.RoleNone),
}

func gateway(min identity.Role) rpc.Rule {
	return rpc.Rule{Callers: []string{identity.Gateway}, MinRole: min}
}

// ofApps is for what leaves out the apps that the user is not limited to.
func ofApps(min identity.Role) rpc.Rule {
	r := gateway(min)
	r.OfApps = true
	return r
}
