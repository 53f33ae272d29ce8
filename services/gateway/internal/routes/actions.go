package routes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Action is how the activity list speaks of an RPC.
type Action struct {
	Name string // such as app.create; empty for what belongs to no workspace
	Did  string // the beginning of the sentence: "Created"
	// Workspace of the record where the request has no field of that name.
	Workspace func(in proto.Message) string
	// Target names what it was done to.
	Target func(c Call) string
	// At is where that is, below the workspace, such as apps/web; empty where it is nowhere, or not (yet) there.
	At func(c Call) string
	// Before is the RPC that reads what is changed: what people call it, and what it was. Nil where the request
	// says enough.
	Before func(in proto.Message) (method string, request, response proto.Message)
	// Resource finds what was changed in an answer: in Before's, and in this RPC's. Nil where nothing is compared.
	Resource func(out proto.Message) proto.Message
}

// Call is an RPC that was made. Out is empty when it failed; Before is Action.Before's answer, nil where there
// is none.
type Call struct{ In, Out, Before proto.Message }

// What is done with a session belongs to no workspace: it is recorded where it is done, once in each
// workspace of who does it.
const (
	ActionSignIn            = "session.create"
	ActionSignOut           = "session.delete"
	ActionSignOutEverywhere = "session.deleteAll"
	ActionSignInLink        = "session.createCode"
)

// ActionConnectorLeft is recorded beside the removal of who connected Bitbucket.
const ActionConnectorLeft = "integration.connectorLeft"

// BitbucketIntegration is how targets speak of the integration.
const BitbucketIntegration = bitbucketIntegration

const bitbucketIntegration = "the Bitbucket integration"

func integration(Call) string { return bitbucketIntegration }

func atIntegration(Call) string { return "integrations/bitbucket" }

// AppNamed is how targets speak of an app: nothing else in a target is written so.
func AppNamed(id string) string { return appNamed(id) }

func app[T interface{ GetApp() string }](c Call) string { return appNamed(get(c.In, T.GetApp)) }

func appNamed(id string) string { return fmt.Sprintf("app %q", id) }

func atApp[T interface{ GetApp() string }](c Call) string { return "apps/" + get(c.In, T.GetApp) }

// deployment is one by its number, which the request has.
func deployment[T interface {
	GetApp() string
	GetNumber() int32
}](c Call) string {
	return fmt.Sprintf("deployment %d of %s", get(c.In, T.GetNumber), appNamed(get(c.In, T.GetApp)))
}

func atDeployment(app string, number int32) string {
	if number == 0 {
		return "apps/" + app
	}
	return fmt.Sprintf("apps/%s/deployments/%d", app, number)
}

// webhook is one by its repository, where that could be read.
func webhook[T interface{ GetWebhook() string }](c Call) string {
	if name := get(c.Before, (*webhookv1.GetWebhookResponse).GetWebhook).GetRepositoryFullName(); name != "" {
		return "the webhook of " + name
	}
	return "webhook " + get(c.In, T.GetWebhook)
}

func atWebhook[T interface{ GetWebhook() string }](c Call) string {
	return "webhooks/" + get(c.In, T.GetWebhook)
}

func webhookBefore[T interface {
	GetWorkspace() string
	GetWebhook() string
}](in proto.Message) (string, proto.Message, proto.Message) {
	return webhookv1.WebhookService_GetWebhook_FullMethodName, &webhookv1.GetWebhookRequest{Workspace: get(in, T.GetWorkspace), Webhook: get(in, T.GetWebhook)}, &webhookv1.GetWebhookResponse{}
}

func atDelivery[T interface {
	GetWebhook() string
	GetDelivery() int32
}](c Call) string {
	return fmt.Sprintf("webhooks/%s/deliveries/%d", get(c.In, T.GetWebhook), get(c.In, T.GetDelivery))
}

func notificationTarget(id string, before proto.Message) string {
	if label := get(before, (*gatewayv1.GetNotificationTargetResponse).GetTarget).GetLabel(); label != "" {
		return fmt.Sprintf("notification target %q", label)
	}
	return "notification target " + id
}

func someTarget[T interface{ GetTarget() string }](c Call) string {
	return notificationTarget(get(c.In, T.GetTarget), c.Before)
}

func targetBefore[T interface {
	GetWorkspace() string
	GetTarget() string
}](in proto.Message) (string, proto.Message, proto.Message) {
	return gatewayv1.GatewayService_GetNotificationTarget_FullMethodName, &gatewayv1.GetNotificationTargetRequest{Workspace: get(in, T.GetWorkspace), Target: get(in, T.GetTarget)}, &gatewayv1.GetNotificationTargetResponse{}
}

func atTarget(id string) string {
	if id == "" {
		return ""
	}
	return "notificationTargets/" + id
}

// deletedKey is a key by its label, where that could be read.
func deletedKey(c Call) string {
	id := get(c.In, (*gatewayv1.DeleteApiKeyRequest).GetApiKey)
	for _, k := range get(c.Before, (*gatewayv1.ListApiKeysResponse).GetApiKeys) {
		if k.GetId() == id && k.GetLabel() != "" {
			return fmt.Sprintf("API key %q", k.GetLabel())
		}
	}
	return "API key " + id
}

func atMembers(Call) string { return "members" }

// memberNamed is a member by its name, where that is known.
func memberNamed(id string, m *gatewayv1.Member) string {
	if m.GetLabel() != "" {
		return fmt.Sprintf("member %q", m.GetLabel())
	}
	return "member " + id
}

// get reads a field of a message whose type the table promises; the zero value for any other.
func get[T, V any](m proto.Message, field func(T) V) (v V) {
	if t, ok := m.(T); ok {
		return field(t)
	}
	return v
}

func rolledBack(c Call) string {
	name := app[*deployerv1.RollBackAppRequest](c)
	if to := get(c.In, (*deployerv1.RollBackAppRequest).GetDeployment); to != 0 {
		return fmt.Sprintf("%s to deployment %d", name, to)
	}
	return name + " to the release before"
}

// actions has a row for every RPC of the API that changes something.
var actions = map[string]Action{
	authv1.AuthService_ConnectIntegration_FullMethodName:    {Name: "integration.beginConnect", Did: "Began to connect", Target: integration, At: atIntegration},
	authv1.AuthService_CompleteAuthorization_FullMethodName: {Name: "integration.connect", Did: "Connected", Target: connected, At: atIntegration},
	authv1.AuthService_RefreshIntegration_FullMethodName:    {Name: "integration.refresh", Did: "Refreshed the token of", Target: integration, At: atIntegration},
	authv1.AuthService_NarrowIntegration_FullMethodName:     {Name: "integration.narrow", Did: "Narrowed", Target: narrowed, At: atIntegration},

	gatewayv1.GatewayService_RunProof_FullMethodName:              {Name: "integration.prove", Did: "Proved", Target: proved, At: atIntegration},
	gatewayv1.GatewayService_DisconnectIntegration_FullMethodName: {Name: "integration.remove", Did: "Removed", Target: integration, At: atIntegration},
	gatewayv1.GatewayService_CreateWorkspace_FullMethodName: {
		Name: "workspace.create", Did: "Created",
		Workspace: func(in proto.Message) string { return get(in, (*gatewayv1.CreateWorkspaceRequest).GetWorkspaceId) },
		Target: func(c Call) string {
			return fmt.Sprintf("workspace %q", get(c.In, (*gatewayv1.CreateWorkspaceRequest).GetWorkspaceId))
		},
	},
	gatewayv1.GatewayService_DeleteWorkspace_FullMethodName: {Name: "workspace.delete", Did: "Began to delete", Target: func(c Call) string {
		return fmt.Sprintf("workspace %q", get(c.In, (*gatewayv1.DeleteWorkspaceRequest).GetWorkspace))
	}},
	gatewayv1.GatewayService_UpdateWorkspace_FullMethodName: {Name: "workspace.update", Did: "Changed", Target: func(c Call) string {
		return fmt.Sprintf("workspace %q", get(c.In, (*gatewayv1.UpdateWorkspaceRequest).GetWorkspace))
	}, Before: func(in proto.Message) (string, proto.Message, proto.Message) {
		ask := &gatewayv1.GetWorkspaceRequest{Workspace: get(in, (*gatewayv1.UpdateWorkspaceRequest).GetWorkspace)}
		return gatewayv1.GatewayService_GetWorkspace_FullMethodName, ask, &gatewayv1.GetWorkspaceResponse{}
	}, Resource: func(out proto.Message) proto.Message {
		if r, ok := out.(interface{ GetWorkspace() *gatewayv1.Workspace }); ok && r.GetWorkspace() != nil {
			return r.GetWorkspace()
		}
		return nil
	}},
	gatewayv1.GatewayService_CreateApiKey_FullMethodName: {Name: "apiKey.create", Did: "Created", Target: func(c Call) string {
		return fmt.Sprintf("API key %q", get(c.In, (*gatewayv1.CreateApiKeyRequest).GetLabel))
	}},
	gatewayv1.GatewayService_DeleteApiKey_FullMethodName: {Name: "apiKey.delete", Did: "Deleted", Target: deletedKey, Before: func(in proto.Message) (string, proto.Message, proto.Message) {
		list := &gatewayv1.ListApiKeysRequest{Workspace: get(in, (*gatewayv1.DeleteApiKeyRequest).GetWorkspace), PageSize: pagetoken.MaxPage}
		return gatewayv1.GatewayService_ListApiKeys_FullMethodName, list, &gatewayv1.ListApiKeysResponse{}
	}},
	gatewayv1.GatewayService_CreateNotificationTarget_FullMethodName: {Name: "notificationTarget.create", Did: "Added", Target: func(c Call) string {
		return fmt.Sprintf("notification target %q", get(c.In, (*gatewayv1.CreateNotificationTargetRequest).GetTarget).GetLabel())
	}, At: func(c Call) string {
		return atTarget(get(c.Out, (*gatewayv1.CreateNotificationTargetResponse).GetTarget).GetId())
	}},
	gatewayv1.GatewayService_UpdateNotificationTarget_FullMethodName: {Name: "notificationTarget.update", Did: "Changed", Target: func(c Call) string {
		return notificationTarget(get(c.In, (*gatewayv1.UpdateNotificationTargetRequest).GetTargetId), c.Before)
	}, At: func(c Call) string {
		return atTarget(get(c.In, (*gatewayv1.UpdateNotificationTargetRequest).GetTargetId))
	}, Before: func(in proto.Message) (string, proto.Message, proto.Message) {
		workspace, target := get(in, (*gatewayv1.UpdateNotificationTargetRequest).GetWorkspace), get(in, (*gatewayv1.UpdateNotificationTargetRequest).GetTargetId)
		return gatewayv1.GatewayService_GetNotificationTarget_FullMethodName, &gatewayv1.GetNotificationTargetRequest{Workspace: workspace, Target: target}, &gatewayv1.GetNotificationTargetResponse{}
	}, Resource: func(out proto.Message) proto.Message {
		if r, ok := out.(interface {
			GetTarget() *gatewayv1.NotificationTarget
		}); ok && r.GetTarget() != nil {
			return r.GetTarget()
		}
		return nil
	}},
	gatewayv1.GatewayService_DeleteNotificationTarget_FullMethodName: {
		Name: "notificationTarget.delete", Did: "Deleted", Target: someTarget[*gatewayv1.DeleteNotificationTargetRequest], Before: targetBefore[*gatewayv1.DeleteNotificationTargetRequest],
		At: func(c Call) string {
			return atTarget(get(c.In, (*gatewayv1.DeleteNotificationTargetRequest).GetTarget))
		},
	},
	gatewayv1.GatewayService_SendTestNotification_FullMethodName: {
		Name: "notificationTarget.test", Did: "Tested", Target: someTarget[*gatewayv1.SendTestNotificationRequest], Before: targetBefore[*gatewayv1.SendTestNotificationRequest],
		At: func(c Call) string { return atTarget(get(c.In, (*gatewayv1.SendTestNotificationRequest).GetTarget)) },
	},
	gatewayv1.GatewayService_RotateNotificationSecret_FullMethodName: {
		Name: "notificationTarget.rotateSecret", Did: "Rotated the secret of", Target: someTarget[*gatewayv1.RotateNotificationSecretRequest], Before: targetBefore[*gatewayv1.RotateNotificationSecretRequest],
		At: func(c Call) string {
			return atTarget(get(c.In, (*gatewayv1.RotateNotificationSecretRequest).GetTarget))
		},
	},
	gatewayv1.GatewayService_SetMemberRole_FullMethodName: {Name: "member.setRole", Did: "Changed", Target: func(c Call) string {
		in, _ := c.In.(*gatewayv1.SetMemberRoleRequest)
		return fmt.Sprintf("the role of %s to %s", memberNamed(in.GetMember(), get(c.Out, (*gatewayv1.SetMemberRoleResponse).GetMember)), strings.ToLower(in.GetRole().String()))
	}, At: atMembers},
	gatewayv1.GatewayService_RemoveMember_FullMethodName: {Name: "member.remove", Did: "Removed", Target: func(c Call) string {
		return memberNamed(get(c.In, (*gatewayv1.RemoveMemberRequest).GetMember), get(c.Out, (*gatewayv1.RemoveMemberResponse).GetMember))
	}, At: atMembers},
	gatewayv1.GatewayService_EndMemberSession_FullMethodName: {Name: "member.endSession", Did: "Ended a session of", Target: func(c Call) string {
		return memberNamed(get(c.In, (*gatewayv1.EndMemberSessionRequest).GetMember), get(c.Out, (*gatewayv1.EndMemberSessionResponse).GetMember))
	}, At: atMembers},
	gatewayv1.GatewayService_CreateInvitation_FullMethodName: {Name: "invitation.create", Did: "Made", Target: func(c Call) string {
		return "an invitation for " + get(c.In, (*gatewayv1.CreateInvitationRequest).GetEmail)
	}, At: atMembers},
	gatewayv1.GatewayService_DeleteInvitation_FullMethodName: {Name: "invitation.delete", Did: "Withdrew", Target: func(c Call) string {
		id := get(c.In, (*gatewayv1.DeleteInvitationRequest).GetInvitation)
		for _, i := range get(c.Before, (*gatewayv1.ListInvitationsResponse).GetInvitations) {
			if i.GetId() == id {
				return "the invitation for " + i.GetEmail()
			}
		}
		return "invitation " + id
	}, At: atMembers, Before: func(in proto.Message) (string, proto.Message, proto.Message) {
		list := &gatewayv1.ListInvitationsRequest{Workspace: get(in, (*gatewayv1.DeleteInvitationRequest).GetWorkspace)}
		return gatewayv1.GatewayService_ListInvitations_FullMethodName, list, &gatewayv1.ListInvitationsResponse{}
	}},
	gatewayv1.GatewayService_ApproveLoginRequest_FullMethodName: {Name: "apiKey.approveLogin", Did: "Approved", Target: func(c Call) string {
		if name := get(c.Out, (*gatewayv1.ApproveLoginRequestResponse).GetLoginRequest).GetClientName(); name != "" {
			return fmt.Sprintf("the login of devpilot on %q", name)
		}
		return "a login of devpilot"
	}},
	gatewayv1.GatewayService_CreateLoginRequest_FullMethodName: {},
	gatewayv1.GatewayService_RedeemLoginRequest_FullMethodName: {},
	gatewayv1.GatewayService_DenyLoginRequest_FullMethodName:   {},
	gatewayv1.GatewayService_EndSession_FullMethodName:         {},
	gatewayv1.GatewayService_CreateSession_FullMethodName:      {},
	gatewayv1.GatewayService_DeleteSession_FullMethodName:      {},
	gatewayv1.GatewayService_CreateSignInCode_FullMethodName:   {},
	gatewayv1.GatewayService_RunDoctor_FullMethodName:          {}, // nothing stays of it

	deployerv1.DeployerService_CreateApp_FullMethodName: {Name: "app.create", Did: "Created", Target: func(c Call) string {
		return appNamed(get(c.In, (*deployerv1.CreateAppRequest).GetAppId))
	}, At: func(c Call) string {
		if get(c.Out, (*deployerv1.CreateAppResponse).GetApp) == nil {
			return "" // it was not made
		}
		return "apps/" + get(c.In, (*deployerv1.CreateAppRequest).GetAppId)
	}},
	deployerv1.DeployerService_UpdateApp_FullMethodName: {Name: "app.update", Did: "Changed", Target: func(c Call) string {
		return appNamed(get(c.In, (*deployerv1.UpdateAppRequest).GetAppId))
	}, At: func(c Call) string {
		return "apps/" + get(c.In, (*deployerv1.UpdateAppRequest).GetAppId)
	}, Before: func(in proto.Message) (string, proto.Message, proto.Message) {
		workspace, app := get(in, (*deployerv1.UpdateAppRequest).GetWorkspace), get(in, (*deployerv1.UpdateAppRequest).GetAppId)
		return deployerv1.DeployerService_GetApp_FullMethodName, &deployerv1.GetAppRequest{Workspace: workspace, App: app}, &deployerv1.GetAppResponse{}
	}, Resource: func(out proto.Message) proto.Message {
		if r, ok := out.(interface{ GetApp() *deployerv1.App }); ok && r.GetApp() != nil {
			return r.GetApp()
		}
		return nil
	}},
	deployerv1.DeployerService_DeleteApp_FullMethodName: {Name: "app.delete", Did: "Deleted", Target: app[*deployerv1.DeleteAppRequest], At: atApp[*deployerv1.DeleteAppRequest]},
	deployerv1.DeployerService_CreateDeployment_FullMethodName: {Name: "deployment.create", Did: "Deployed", Target: deployed, At: func(c Call) string {
		return atDeployment(get(c.In, (*deployerv1.CreateDeploymentRequest).GetApp), get(c.Out, (*deployerv1.CreateDeploymentResponse).GetDeployment).GetNumber())
	}},
	deployerv1.DeployerService_CancelDeployment_FullMethodName: {Name: "deployment.cancel", Did: "Cancelled", Target: deployment[*deployerv1.CancelDeploymentRequest], At: func(c Call) string {
		return atDeployment(get(c.In, (*deployerv1.CancelDeploymentRequest).GetApp), get(c.In, (*deployerv1.CancelDeploymentRequest).GetNumber))
	}},
	deployerv1.DeployerService_RedeployDeployment_FullMethodName: {Name: "deployment.redeploy", Did: "Redeployed", Target: deployment[*deployerv1.RedeployDeploymentRequest], At: func(c Call) string {
		again := get(c.Out, (*deployerv1.RedeployDeploymentResponse).GetDeployment).GetNumber()
		return atDeployment(get(c.In, (*deployerv1.RedeployDeploymentRequest).GetApp), cmp.Or(again, get(c.In, (*deployerv1.RedeployDeploymentRequest).GetNumber)))
	}},
	deployerv1.DeployerService_RollBackApp_FullMethodName: {Name: "app.rollBack", Did: "Rolled back", Target: rolledBack, At: func(c Call) string {
		return atDeployment(get(c.In, (*deployerv1.RollBackAppRequest).GetApp), get(c.Out, (*deployerv1.RollBackAppResponse).GetDeployment).GetNumber())
	}},

	webhookv1.WebhookService_RegisterWebhook_FullMethodName:     webhookAction[*webhookv1.RegisterWebhookRequest]("register", "Registered"),
	webhookv1.WebhookService_RepairWebhook_FullMethodName:       webhookAction[*webhookv1.RepairWebhookRequest]("repair", "Repaired"),
	webhookv1.WebhookService_RotateWebhookSecret_FullMethodName: webhookAction[*webhookv1.RotateWebhookSecretRequest]("rotateSecret", "Rotated the secret of"),
	webhookv1.WebhookService_RevealWebhookSecret_FullMethodName: webhookAction[*webhookv1.RevealWebhookSecretRequest]("revealSecret", "Revealed the secret of"),
	webhookv1.WebhookService_DismissWebhook_FullMethodName:      webhookAction[*webhookv1.DismissWebhookRequest]("dismiss", "Dismissed"),
	webhookv1.WebhookService_ReplayDelivery_FullMethodName: {Name: "delivery.replay", Did: "Replayed", Target: func(c Call) string {
		return fmt.Sprintf("delivery %d of %s", get(c.In, (*webhookv1.ReplayDeliveryRequest).GetDelivery), webhook[*webhookv1.ReplayDeliveryRequest](c))
	}, At: atDelivery[*webhookv1.ReplayDeliveryRequest], Before: webhookBefore[*webhookv1.ReplayDeliveryRequest]},
	webhookv1.WebhookService_ReplayDeliveries_FullMethodName: {Name: "delivery.replay", Did: "Replayed", Target: func(c Call) string {
		first, last := get(c.In, (*webhookv1.ReplayDeliveriesRequest).GetFirst), get(c.In, (*webhookv1.ReplayDeliveriesRequest).GetLast)
		return fmt.Sprintf("deliveries %d to %d of %s", first, last, webhook[*webhookv1.ReplayDeliveriesRequest](c))
	}, At: atWebhook[*webhookv1.ReplayDeliveriesRequest], Before: webhookBefore[*webhookv1.ReplayDeliveriesRequest]},
	webhookv1.WebhookService_RevealDeliveryBody_FullMethodName: {Name: "delivery.revealBody", Did: "Read the body of", Target: func(c Call) string {
		return fmt.Sprintf("delivery %d of %s", get(c.In, (*webhookv1.RevealDeliveryBodyRequest).GetDelivery), webhook[*webhookv1.RevealDeliveryBodyRequest](c))
	}, At: atDelivery[*webhookv1.RevealDeliveryBodyRequest], Before: webhookBefore[*webhookv1.RevealDeliveryBodyRequest]},
}

func webhookAction[T interface {
	GetWorkspace() string
	GetWebhook() string
}](name, did string) Action {
	return Action{Name: "webhook." + name, Did: did, Target: webhook[T], At: atWebhook[T], Before: webhookBefore[T]}
}

func proved(c Call) string {
	if get(c.In, (*gatewayv1.RunProofRequest).GetWriteStatus) {
		return bitbucketIntegration + ", with a commit status"
	}
	return bitbucketIntegration
}

func connected(c Call) string {
	r, ok := c.Out.(*authv1.CompleteAuthorizationResponse)
	if label := r.GetIntegration().GetAccount().GetLabel(); ok && label != "" {
		return fmt.Sprintf("the Bitbucket account %q", label)
	}
	return bitbucketIntegration
}

func deployed(c Call) string {
	target := app[*deployerv1.CreateDeploymentRequest](c)
	if r, ok := c.In.(*deployerv1.CreateDeploymentRequest); ok {
		switch {
		case r.GetTag() != "":
			target += fmt.Sprintf(" at the tag %s", r.GetTag())
		case r.GetCommit() != "":
			target += fmt.Sprintf(" at the commit %s", r.GetCommit())
		}
	}
	if r, ok := c.Out.(*deployerv1.CreateDeploymentResponse); ok && r.GetDeployment().GetNumber() > 0 {
		target += fmt.Sprintf(" as #%d", r.GetDeployment().GetNumber())
	}
	return target
}

// ActionOf returns how the activity list speaks of an RPC; ok is false for those that change
// nothing.
func ActionOf(fullMethod string) (Action, bool) {
	a, ok := actions[fullMethod]
	return a, ok
}

// ActionNames lists the names of the actions, sorted.
func ActionNames() []string {
	names := []string{ActionSignIn, ActionSignOut, ActionSignOutEverywhere, ActionSignInLink, ActionConnectorLeft}
	for _, a := range actions {
		if a.Name != "" {
			names = append(names, a.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// narrowed says what a workspace may see from now on, and what it might before.
func narrowed(c Call) string {
	req, _ := c.In.(*authv1.NarrowIntegrationRequest)
	resp, _ := c.Out.(*authv1.NarrowIntegrationResponse)
	after := req.GetBitbucketWorkspaces()
	if resp.GetIntegration() != nil {
		after = resp.GetIntegration().GetNarrowedTo()
	}
	to := bitbucketIntegration + " to " + places(after)
	if resp == nil {
		return to
	}
	return to + ", from " + places(resp.GetBefore())
}

func places(list []*authv1.NarrowedTo) string {
	if len(list) == 0 {
		return "all Bitbucket workspaces"
	}
	names := make([]string, 0, len(list))
	for _, w := range list {
		names = append(names, cmp.Or(w.GetName(), w.GetId()))
	}
	return strings.Join(names, ", ")
}
