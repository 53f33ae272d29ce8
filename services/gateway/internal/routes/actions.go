package routes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

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
	// Target names what it was done to. out is empty when the call failed.
	Target func(in, out proto.Message) string
	// Before, where a resource is changed, is the RPC that reads it, and Resource finds it in that
	// RPC's answer and in this one's. Both are nil for other actions.
	Before   func(in proto.Message) (method string, request, response proto.Message)
	Resource func(out proto.Message) proto.Message
}

// What is done with a session belongs to no workspace: it is recorded where it is done, once in each
// workspace of who does it.
const (
	ActionSignIn            = "session.create"
	ActionSignOut           = "session.delete"
	ActionSignOutEverywhere = "session.deleteAll"
	ActionSignInLink        = "session.createCode"
)

const bitbucketIntegration = "the Bitbucket integration"

func integration(_, _ proto.Message) string { return bitbucketIntegration }

// AppNamed is how targets speak of an app: nothing else in a target is written so.
func AppNamed(id string) string { return appNamed(id) }

func app[T interface{ GetApp() string }](in, _ proto.Message) string {
	return appNamed(get(in, T.GetApp))
}

func appNamed(id string) string { return fmt.Sprintf("app %q", id) }

func webhook[T interface{ GetWebhook() string }](in, _ proto.Message) string {
	return "webhook " + get(in, T.GetWebhook)
}

// get reads a field of a message whose type the table promises; the zero value for any other.
func get[T, V any](m proto.Message, field func(T) V) (v V) {
	if t, ok := m.(T); ok {
		return field(t)
	}
	return v
}

func notificationTarget[T interface{ GetTarget() string }](in, _ proto.Message) string {
	return "notification target " + get(in, T.GetTarget)
}

// number reads a number of a message whose type the table promises; 0 for any other.
func number[T any](m proto.Message, field func(T) int32) int32 { return get(m, field) }

func rolledBack(in, _ proto.Message) string {
	name := appNamed(get(in, (*deployerv1.RollBackAppRequest).GetApp))
	if to := number(in, (*deployerv1.RollBackAppRequest).GetDeployment); to != 0 {
		return fmt.Sprintf("%s to deployment %d", name, to)
	}
	return name + " to the release before"
}

// actions has a row for every RPC of the API that changes something.
var actions = map[string]Action{
	authv1.AuthService_ConnectIntegration_FullMethodName:    {Name: "integration.beginConnect", Did: "Began to connect", Target: integration},
	authv1.AuthService_CompleteAuthorization_FullMethodName: {Name: "integration.connect", Did: "Connected", Target: connected},
	authv1.AuthService_RefreshIntegration_FullMethodName:    {Name: "integration.refresh", Did: "Refreshed the token of", Target: integration},

	authv1.AuthService_NarrowIntegration_FullMethodName: {Name: "integration.narrow", Did: "Narrowed", Target: narrowed},

	gatewayv1.GatewayService_DisconnectIntegration_FullMethodName: {Name: "integration.remove", Did: "Removed", Target: integration},
	gatewayv1.GatewayService_CreateWorkspace_FullMethodName: {
		Name: "workspace.create", Did: "Created",
		Workspace: func(in proto.Message) string { return get(in, (*gatewayv1.CreateWorkspaceRequest).GetWorkspaceId) },
		Target: func(in, _ proto.Message) string {
			return fmt.Sprintf("workspace %q", get(in, (*gatewayv1.CreateWorkspaceRequest).GetWorkspaceId))
		},
	},
	gatewayv1.GatewayService_CreateApiKey_FullMethodName: {Name: "apiKey.create", Did: "Created", Target: func(in, _ proto.Message) string {
		return fmt.Sprintf("API key %q", get(in, (*gatewayv1.CreateApiKeyRequest).GetLabel))
	}},
	gatewayv1.GatewayService_DeleteApiKey_FullMethodName: {Name: "apiKey.delete", Did: "Deleted", Target: func(in, _ proto.Message) string {
		return "API key " + get(in, (*gatewayv1.DeleteApiKeyRequest).GetApiKey)
	}},
	gatewayv1.GatewayService_CreateNotificationTarget_FullMethodName: {Name: "notificationTarget.create", Did: "Added", Target: func(in, _ proto.Message) string {
		return fmt.Sprintf("notification target %q", get(in, (*gatewayv1.CreateNotificationTargetRequest).GetTarget).GetLabel())
	}},
	gatewayv1.GatewayService_UpdateNotificationTarget_FullMethodName: {Name: "notificationTarget.update", Did: "Changed", Target: func(in, _ proto.Message) string {
		return "notification target " + get(in, (*gatewayv1.UpdateNotificationTargetRequest).GetTargetId)
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
	gatewayv1.GatewayService_DeleteNotificationTarget_FullMethodName: {Name: "notificationTarget.delete", Did: "Deleted", Target: notificationTarget[*gatewayv1.DeleteNotificationTargetRequest]},
	gatewayv1.GatewayService_SendTestNotification_FullMethodName:     {Name: "notificationTarget.test", Did: "Tested", Target: notificationTarget[*gatewayv1.SendTestNotificationRequest]},
	gatewayv1.GatewayService_RotateNotificationSecret_FullMethodName: {Name: "notificationTarget.rotateSecret", Did: "Rotated the secret of", Target: notificationTarget[*gatewayv1.RotateNotificationSecretRequest]},
	gatewayv1.GatewayService_CreateSession_FullMethodName:            {},
	gatewayv1.GatewayService_DeleteSession_FullMethodName:            {},
	gatewayv1.GatewayService_CreateSignInCode_FullMethodName:         {},

	deployerv1.DeployerService_CreateApp_FullMethodName: {Name: "app.create", Did: "Created", Target: func(in, _ proto.Message) string {
		return appNamed(get(in, (*deployerv1.CreateAppRequest).GetAppId))
	}},
	deployerv1.DeployerService_UpdateApp_FullMethodName: {Name: "app.update", Did: "Changed", Target: func(in, _ proto.Message) string {
		return appNamed(get(in, (*deployerv1.UpdateAppRequest).GetAppId))
	}, Before: func(in proto.Message) (string, proto.Message, proto.Message) {
		workspace, app := get(in, (*deployerv1.UpdateAppRequest).GetWorkspace), get(in, (*deployerv1.UpdateAppRequest).GetAppId)
		return deployerv1.DeployerService_GetApp_FullMethodName, &deployerv1.GetAppRequest{Workspace: workspace, App: app}, &deployerv1.GetAppResponse{}
	}, Resource: func(out proto.Message) proto.Message {
		if r, ok := out.(interface{ GetApp() *deployerv1.App }); ok && r.GetApp() != nil {
			return r.GetApp()
		}
		return nil
	}},
	deployerv1.DeployerService_DeleteApp_FullMethodName:        {Name: "app.delete", Did: "Deleted", Target: app[*deployerv1.DeleteAppRequest]},
	deployerv1.DeployerService_CreateDeployment_FullMethodName: {Name: "deployment.create", Did: "Deployed", Target: deployed},
	deployerv1.DeployerService_CancelDeployment_FullMethodName: {Name: "deployment.cancel", Did: "Cancelled", Target: func(in, _ proto.Message) string {
		return fmt.Sprintf("deployment %d of %s", number(in, (*deployerv1.CancelDeploymentRequest).GetNumber), appNamed(get(in, (*deployerv1.CancelDeploymentRequest).GetApp)))
	}},
	deployerv1.DeployerService_RedeployDeployment_FullMethodName: {Name: "deployment.redeploy", Did: "Redeployed", Target: func(in, _ proto.Message) string {
		return fmt.Sprintf("deployment %d of %s", number(in, (*deployerv1.RedeployDeploymentRequest).GetNumber), appNamed(get(in, (*deployerv1.RedeployDeploymentRequest).GetApp)))
	}},
	deployerv1.DeployerService_RollBackApp_FullMethodName: {Name: "app.rollBack", Did: "Rolled back", Target: rolledBack},

	webhookv1.WebhookService_RegisterWebhook_FullMethodName:     {Name: "webhook.register", Did: "Registered", Target: webhook[*webhookv1.RegisterWebhookRequest]},
	webhookv1.WebhookService_RepairWebhook_FullMethodName:       {Name: "webhook.repair", Did: "Repaired", Target: webhook[*webhookv1.RepairWebhookRequest]},
	webhookv1.WebhookService_RotateWebhookSecret_FullMethodName: {Name: "webhook.rotateSecret", Did: "Rotated the secret of", Target: webhook[*webhookv1.RotateWebhookSecretRequest]},
	webhookv1.WebhookService_RevealWebhookSecret_FullMethodName: {Name: "webhook.revealSecret", Did: "Revealed the secret of", Target: webhook[*webhookv1.RevealWebhookSecretRequest]},
	webhookv1.WebhookService_DismissWebhook_FullMethodName:      {Name: "webhook.dismiss", Did: "Dismissed", Target: webhook[*webhookv1.DismissWebhookRequest]},
	webhookv1.WebhookService_ReplayDelivery_FullMethodName: {Name: "delivery.replay", Did: "Replayed", Target: func(in, _ proto.Message) string {
		r, ok := in.(*webhookv1.ReplayDeliveryRequest)
		if !ok {
			return ""
		}
		return fmt.Sprintf("delivery %d of webhook %s", r.GetDelivery(), r.GetWebhook())
	}},
	webhookv1.WebhookService_ReplayDeliveries_FullMethodName: {Name: "delivery.replay", Did: "Replayed", Target: func(in, _ proto.Message) string {
		r, ok := in.(*webhookv1.ReplayDeliveriesRequest)
		if !ok {
			return ""
		}
		return fmt.Sprintf("deliveries %d to %d of webhook %s", r.GetFirst(), r.GetLast(), r.GetWebhook())
	}},
	webhookv1.WebhookService_RevealDeliveryBody_FullMethodName: {Name: "delivery.revealBody", Did: "Read the body of", Target: func(in, _ proto.Message) string {
		r, ok := in.(*webhookv1.RevealDeliveryBodyRequest)
		if !ok {
			return ""
		}
		return fmt.Sprintf("delivery %d of webhook %s", r.GetDelivery(), r.GetWebhook())
	}},
}

func connected(_, out proto.Message) string {
	r, ok := out.(*authv1.CompleteAuthorizationResponse)
	if label := r.GetIntegration().GetAccount().GetLabel(); ok && label != "" {
		return fmt.Sprintf("the Bitbucket account %q", label)
	}
	return bitbucketIntegration
}

func deployed(in, out proto.Message) string {
	target := appNamed(get(in, (*deployerv1.CreateDeploymentRequest).GetApp))
	if r, ok := out.(*deployerv1.CreateDeploymentResponse); ok && r.GetDeployment().GetNumber() > 0 {
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
	names := []string{ActionSignIn, ActionSignOut, ActionSignOutEverywhere, ActionSignInLink}
	for _, a := range actions {
		if a.Name != "" {
			names = append(names, a.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// narrowed says what a workspace may see from now on, and what it might before.
func narrowed(in, out proto.Message) string {
	req, _ := in.(*authv1.NarrowIntegrationRequest)
	resp, _ := out.(*authv1.NarrowIntegrationResponse)
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
