package webhook

import (
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Names of the services that call.
const (
	gateway  = identity.Gateway
	deployer = "deployer"
)

// Policy says who may call what (DESIGN.md#roles).
var Policy = rpc.Policy{
	webhookv1.WebhookService_ListWebhooks_FullMethodName:        {Callers: []string{gateway, deployer}, MinRole: identity.RoleMember},
	webhookv1.WebhookService_GetWebhook_FullMethodName:          {Callers: []string{gateway, deployer}, MinRole: identity.RoleMember},
	webhookv1.WebhookService_RegisterWebhook_FullMethodName:     {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_RepairWebhook_FullMethodName:       {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_RotateWebhookSecret_FullMethodName: {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_RevealWebhookSecret_FullMethodName: {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_DismissWebhook_FullMethodName:      {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_ListDeliveries_FullMethodName:      {Callers: []string{gateway, deployer}, MinRole: identity.RoleMember},
	webhookv1.WebhookService_GetDelivery_FullMethodName:         {Callers: []string{gateway, deployer}, MinRole: identity.RoleMember},
	webhookv1.WebhookService_ReplayDelivery_FullMethodName:      {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_ReplayDeliveries_FullMethodName:    {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_RevealDeliveryBody_FullMethodName:  {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_SetWatches_FullMethodName:          {Callers: []string{deployer}},
	webhookv1.WebhookService_BatchGetWebhooks_FullMethodName:    {Callers: []string{deployer}},
	webhookv1.WebhookService_RecordOutcomes_FullMethodName:      {Callers: []string{deployer}},
	webhookv1.WebhookService_ProveDelivery_FullMethodName:       {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
	webhookv1.WebhookService_RemoveWorkspace_FullMethodName:     {Callers: []string{gateway}, MinRole: identity.RoleOwner},
	webhookv1.WebhookService_LeaveWebhooks_FullMethodName:       {Callers: []string{gateway}, MinRole: identity.RoleAdmin},
}
