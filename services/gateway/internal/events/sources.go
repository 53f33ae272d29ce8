package events

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// The kinds whose changes bring their object along: each has one resource, whose GET is cheap and answers
// everybody who may ask the same. The others only say "look again": members are a list, a workspace says what the
// reader is in it, a repository is asked of Bitbucket, and the change of a delivery stands for several.
const (
	kindApp         = "app"
	kindDeployment  = "deployment"
	kindIntegration = "integration"
	kindWebhook     = "webhook"
)

// KindsWithObject lists them.
func KindsWithObject() []string {
	return []string{kindApp, kindDeployment, kindIntegration, kindWebhook}
}

// Sources are the services that answer the GET of a resource.
type Sources struct {
	Auth     authv1.AuthServiceClient
	Webhook  webhookv1.WebhookServiceClient
	Deployer deployerv1.DeployerServiceClient
}

// Read makes the call that the resource's GET makes, for the identity in the context. The service decides whether it
// may. nil for what is no resource.
func (s Sources) Read(ctx context.Context, workspace, kind, id string) (proto.Message, error) {
	switch kind {
	case kindApp:
		out, err := s.Deployer.GetApp(ctx, &deployerv1.GetAppRequest{Workspace: workspace, App: id})
		if err != nil {
			return nil, err
		}
		return out.GetApp(), nil
	case kindDeployment:
		app, number, _ := strings.Cut(id, "/")
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return nil, nil //nolint:nilerr,nilnil // not a deployment: nothing to bring
		}
		out, err := s.Deployer.GetDeployment(ctx, &deployerv1.GetDeploymentRequest{Workspace: workspace, App: app, Number: int32(n)})
		if err != nil {
			return nil, err
		}
		return out.GetDeployment(), nil
	case kindIntegration:
		out, err := s.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
		if err != nil {
			return nil, err
		}
		return out.GetIntegration(), nil
	case kindWebhook:
		out, err := s.Webhook.GetWebhook(ctx, &webhookv1.GetWebhookRequest{Workspace: workspace, Webhook: id})
		if err != nil {
			return nil, err
		}
		return out.GetWebhook(), nil
	}
	return nil, nil //nolint:nilnil // nothing to bring
}
