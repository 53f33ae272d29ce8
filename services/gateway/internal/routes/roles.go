package routes

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/identity"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// roles is the RPC × role table of DESIGN.md#roles, for what the API offers: the least role in
// the workspace that the request names. RoleNone is for what belongs to no workspace. The services
// hold the same in their policies, which decide; this one is published in the OpenAPI document and in
// REFERENCE.md. The scope that programs need follows from it (identity.ScopeOf).
var roles = map[string]identity.Role{
	// Connect, refresh, remove; reveal or rotate a secret; make an API key: owner and admin.
	authv1.AuthService_ConnectIntegration_FullMethodName:          identity.RoleAdmin,
	authv1.AuthService_RefreshIntegration_FullMethodName:          identity.RoleAdmin,
	authv1.AuthService_NarrowIntegration_FullMethodName:           identity.RoleAdmin,
	gatewayv1.GatewayService_ProveIntegration_FullMethodName:      identity.RoleAdmin,
	gatewayv1.GatewayService_RunProof_FullMethodName:              identity.RoleAdmin,
	gatewayv1.GatewayService_GetProof_FullMethodName:              identity.RoleAdmin,
	repov1.RepoService_ListBitbucketWorkspaces_FullMethodName:     identity.RoleAdmin,
	gatewayv1.GatewayService_DisconnectIntegration_FullMethodName: identity.RoleAdmin,
	webhookv1.WebhookService_RotateWebhookSecret_FullMethodName:   identity.RoleAdmin,
	webhookv1.WebhookService_RevealWebhookSecret_FullMethodName:   identity.RoleAdmin,
	gatewayv1.GatewayService_CreateApiKey_FullMethodName:          identity.RoleAdmin,

	// The workspace itself: owner.
	gatewayv1.GatewayService_UpdateWorkspace_FullMethodName: identity.RoleOwner,
	gatewayv1.GatewayService_PreviewDeletion_FullMethodName: identity.RoleOwner,
	gatewayv1.GatewayService_DeleteWorkspace_FullMethodName: identity.RoleOwner,

	// Members and invitations: owner and admin, nobody beyond the own role; everybody may leave. The sessions of
	// others: owner.
	gatewayv1.GatewayService_ListMembers_FullMethodName:        identity.RoleMember,
	gatewayv1.GatewayService_SetMemberRole_FullMethodName:      identity.RoleAdmin,
	gatewayv1.GatewayService_RemoveMember_FullMethodName:       identity.RoleMember,
	gatewayv1.GatewayService_ListInvitations_FullMethodName:    identity.RoleAdmin,
	gatewayv1.GatewayService_CreateInvitation_FullMethodName:   identity.RoleAdmin,
	gatewayv1.GatewayService_DeleteInvitation_FullMethodName:   identity.RoleAdmin,
	gatewayv1.GatewayService_ListMemberSessions_FullMethodName: identity.RoleOwner,
	gatewayv1.GatewayService_EndMemberSession_FullMethodName:   identity.RoleOwner,

	// Where notifications go, and the secrets by which: owner and admin.
	gatewayv1.GatewayService_CreateNotificationTarget_FullMethodName: identity.RoleAdmin,
	gatewayv1.GatewayService_UpdateNotificationTarget_FullMethodName: identity.RoleAdmin,
	gatewayv1.GatewayService_DeleteNotificationTarget_FullMethodName: identity.RoleAdmin,
	gatewayv1.GatewayService_SendTestNotification_FullMethodName:     identity.RoleAdmin,
	gatewayv1.GatewayService_RotateNotificationSecret_FullMethodName: identity.RoleAdmin,

	// Create, change, delete an app; register or repair a webhook; replay: owner and admin.
	deployerv1.DeployerService_CreateApp_FullMethodName:        identity.RoleAdmin,
	deployerv1.DeployerService_UpdateApp_FullMethodName:        identity.RoleAdmin,
	deployerv1.DeployerService_DeleteApp_FullMethodName:        identity.RoleAdmin,
	webhookv1.WebhookService_RegisterWebhook_FullMethodName:    identity.RoleAdmin,
	webhookv1.WebhookService_RepairWebhook_FullMethodName:      identity.RoleAdmin,
	webhookv1.WebhookService_DismissWebhook_FullMethodName:     identity.RoleAdmin,
	webhookv1.WebhookService_ReplayDelivery_FullMethodName:     identity.RoleAdmin,
	webhookv1.WebhookService_ReplayDeliveries_FullMethodName:   identity.RoleAdmin,
	webhookv1.WebhookService_RevealDeliveryBody_FullMethodName: identity.RoleAdmin,

	// Deploy, cancel, redeploy, roll back: every member.
	deployerv1.DeployerService_CreateDeployment_FullMethodName:   identity.RoleMember,
	deployerv1.DeployerService_CancelDeployment_FullMethodName:   identity.RoleMember,
	deployerv1.DeployerService_RedeployDeployment_FullMethodName: identity.RoleMember,
	deployerv1.DeployerService_RollBackApp_FullMethodName:        identity.RoleMember,

	// Let a command line in, as oneself: every member, no further than the own role.
	gatewayv1.GatewayService_ApproveLoginRequest_FullMethodName: identity.RoleMember,

	// Read anything but secrets: every member.
	authv1.AuthService_ListIntegrations_FullMethodName:                 identity.RoleMember,
	authv1.AuthService_GetIntegration_FullMethodName:                   identity.RoleMember,
	authv1.AuthService_GetBudget_FullMethodName:                        identity.RoleMember,
	repov1.RepoService_ListRepositories_FullMethodName:                 identity.RoleMember,
	repov1.RepoService_GetRepository_FullMethodName:                    identity.RoleMember,
	repov1.RepoService_ListBranches_FullMethodName:                     identity.RoleMember,
	repov1.RepoService_ListTags_FullMethodName:                         identity.RoleMember,
	repov1.RepoService_ListCommits_FullMethodName:                      identity.RoleMember,
	repov1.RepoService_SuggestServe_FullMethodName:                     identity.RoleMember,
	deployerv1.DeployerService_GetApp_FullMethodName:                   identity.RoleMember,
	deployerv1.DeployerService_ListApps_FullMethodName:                 identity.RoleMember,
	deployerv1.DeployerService_GetDeployment_FullMethodName:            identity.RoleMember,
	deployerv1.DeployerService_ListDeployments_FullMethodName:          identity.RoleMember,
	deployerv1.DeployerService_ListWorkspaceDeployments_FullMethodName: identity.RoleMember,
	deployerv1.DeployerService_Explain_FullMethodName:                  identity.RoleMember,
	deployerv1.DeployerService_ListAppDeliveries_FullMethodName:        identity.RoleMember,
	deployerv1.DeployerService_CheckPush_FullMethodName:                identity.RoleMember,
	deployerv1.DeployerService_ReadLog_FullMethodName:                  identity.RoleMember,
	webhookv1.WebhookService_ListWebhooks_FullMethodName:               identity.RoleMember,
	webhookv1.WebhookService_GetWebhook_FullMethodName:                 identity.RoleMember,
	webhookv1.WebhookService_ListDeliveries_FullMethodName:             identity.RoleMember,
	webhookv1.WebhookService_GetDelivery_FullMethodName:                identity.RoleMember,
	gatewayv1.GatewayService_GetWorkspace_FullMethodName:               identity.RoleMember,
	gatewayv1.GatewayService_ListApiKeys_FullMethodName:                identity.RoleMember, // of others: owner and admin
	gatewayv1.GatewayService_DeleteApiKey_FullMethodName:               identity.RoleMember, // likewise
	gatewayv1.GatewayService_ListActivity_FullMethodName:               identity.RoleMember,
	gatewayv1.GatewayService_ListNotificationTargets_FullMethodName:    identity.RoleMember,
	gatewayv1.GatewayService_GetNotificationTarget_FullMethodName:      identity.RoleMember,
	gatewayv1.GatewayService_ListNotificationAttempts_FullMethodName:   identity.RoleMember,

	// Outside any workspace.
	deployerv1.DeployerService_ListServers_FullMethodName:      identity.RoleNone,
	gatewayv1.GatewayService_GetMe_FullMethodName:              identity.RoleNone,
	gatewayv1.GatewayService_CreateLoginRequest_FullMethodName: identity.RoleNone,
	gatewayv1.GatewayService_RedeemLoginRequest_FullMethodName: identity.RoleNone,
	gatewayv1.GatewayService_GetLoginRequest_FullMethodName:    identity.RoleNone,
	gatewayv1.GatewayService_DenyLoginRequest_FullMethodName:   identity.RoleNone,
	gatewayv1.GatewayService_CreateSession_FullMethodName:      identity.RoleNone,
	gatewayv1.GatewayService_DeleteSession_FullMethodName:      identity.RoleNone,
	gatewayv1.GatewayService_CreateSignInCode_FullMethodName:   identity.RoleNone,
	gatewayv1.GatewayService_ListSessions_FullMethodName:       identity.RoleNone,
	gatewayv1.GatewayService_RunDoctor_FullMethodName:          identity.RoleNone,
	gatewayv1.GatewayService_GetDoctorReport_FullMethodName:    identity.RoleNone,
	gatewayv1.GatewayService_EndSession_FullMethodName:         identity.RoleNone,
	gatewayv1.GatewayService_ListWorkspaces_FullMethodName:     identity.RoleNone,
	gatewayv1.GatewayService_CreateWorkspace_FullMethodName:    identity.RoleNone,
	gatewayv1.GatewayService_GetInfo_FullMethodName:            identity.RoleNone,
}

// access lists the routes that need no credentials.
var access = map[string]Access{
	gatewayv1.GatewayService_GetInfo_FullMethodName:            Public,
	gatewayv1.GatewayService_CreateSession_FullMethodName:      Public,
	gatewayv1.GatewayService_CreateLoginRequest_FullMethodName: Public,
	gatewayv1.GatewayService_RedeemLoginRequest_FullMethodName: Public,
	gatewayv1.GatewayService_DeleteSession_FullMethodName:      Optional,
}

// ofApps lists what answers a program that is limited to some apps with what these have. Beside it, such a program
// may call what names one of its apps, and what belongs to no workspace.
var ofApps = map[string]bool{
	deployerv1.DeployerService_ListApps_FullMethodName:                 true,
	deployerv1.DeployerService_ListWorkspaceDeployments_FullMethodName: true,
	gatewayv1.GatewayService_GetWorkspace_FullMethodName:               true,
}

// scopes lists what takes another scope than follows from the role.
var scopes = map[string]identity.Scope{
	// A key may end itself with any scope.
	gatewayv1.GatewayService_DeleteApiKey_FullMethodName: identity.ScopeRead,
}

// browser lists what nobody but a person in a browser can do: no key, whatever its scope.
var browser = map[string]bool{
	authv1.AuthService_ConnectIntegration_FullMethodName: true,
	// A key must not get its holder another one, and its person is the one to look at what asks.
	gatewayv1.GatewayService_GetLoginRequest_FullMethodName:     true,
	gatewayv1.GatewayService_ApproveLoginRequest_FullMethodName: true,
	gatewayv1.GatewayService_DenyLoginRequest_FullMethodName:    true,
}

// noTokens lists what a token of an identity provider cannot do, whatever its scope: what it makes would outlive it.
var noTokens = map[string]bool{gatewayv1.GatewayService_CreateApiKey_FullMethodName: true}

// noPrograms lists what belongs to no workspace and is for people alone, or for the admin token.
var noPrograms = map[string]bool{
	gatewayv1.GatewayService_CreateWorkspace_FullMethodName:  true,
	gatewayv1.GatewayService_CreateSignInCode_FullMethodName: true,
	gatewayv1.GatewayService_RunDoctor_FullMethodName:        true,
	gatewayv1.GatewayService_GetDoctorReport_FullMethodName:  true,
}

// operator lists what is about the whole installation: no role in a workspace is enough.
var operator = map[string]bool{
	gatewayv1.GatewayService_RunDoctor_FullMethodName:       true,
	gatewayv1.GatewayService_GetDoctorReport_FullMethodName: true,
}

// closed lists what may be asked of a workspace that is being deleted: that it is, who began, and to go on. Who owned
// it may ask later too.
var closed = map[string]bool{
	gatewayv1.GatewayService_GetWorkspace_FullMethodName:    true,
	gatewayv1.GatewayService_DeleteWorkspace_FullMethodName: true,
	gatewayv1.GatewayService_ListActivity_FullMethodName:    true,
}

// Roles is the RPC × role table of the API.
func Roles() map[string]identity.Role { return maps.Clone(roles) }

// Scopes lists the RPCs that take another scope of programs than follows from the role.
func Scopes() map[string]identity.Scope { return maps.Clone(scopes) }

// OfApps lists the RPCs that answer a program that is limited to some apps with what these have.
func OfApps() map[string]bool { return maps.Clone(ofApps) }

// NeedsOperator tells what takes an operator of the installation.
func NeedsOperator(rpc string) bool { return operator[rpc] }

// NeedsBrowser tells what nobody but a person in a browser can do.
func NeedsBrowser(rpc string) bool { return browser[rpc] }

// Row is what one call of the API takes of who calls.
type Row struct {
	Name   string // of the call, such as GetApp
	Access Access
	Role   identity.Role  // the least, in the workspace
	Scope  identity.Scope // the least of a program
	Apps   string         // what of it is for a program that is limited to some apps
	// Browser says that no program can, whatever its scope.
	Browser bool
	// NoTokens says that keys can, and tokens of identity providers cannot.
	NoTokens bool
	// NoPrograms says that neither can.
	NoPrograms bool
	// Operator says that it takes an operator of the installation.
	Operator bool
}

// Rows is the table of who may call what, sorted by name.
func Rows() []Row {
	byName := map[string]Row{}
	for _, r := range All() {
		name := r.RPC[strings.LastIndex(r.RPC, "/")+1:]
		switch r.Template {
		case EventsTemplate:
			name = "StreamEvents"
		case ActivityExportTemplate:
			name = "ExportActivity"
		}
		row := Row{Name: name, Access: r.Access, Role: r.Role, Scope: r.Scope(), Apps: "nothing", Browser: r.Browser, NoTokens: r.NoTokens, NoPrograms: r.NoPrograms, Operator: r.Operator}
		switch {
		case r.OfApps:
			row.Apps = "what these have"
		case r.NamesApp():
			row.Apps = "of these"
		case r.Role == identity.RoleNone:
			row.Apps = "all"
		}
		byName[name] = row
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b Row) int { return cmp.Compare(a.Name, b.Name) })
}
