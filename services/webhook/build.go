package webhook

import (
	"context"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/servicemain"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// Flags are the settings of this service.
type Flags struct {
	servicemain.PublicFlags    `embed:""`
	servicemain.BitbucketFlags `embed:""`
	servicemain.WebhookFlags   `embed:""`
}

// Spec describes the service to whoever runs it.
func Spec() servicemain.Spec[Flags] {
	return servicemain.Spec[Flags]{
		Name: "webhook", Description: "Owns the webhooks at Bitbucket and takes their deliveries.",
		Listen: ":8082", GRPCListen: "127.0.0.1:7003", OpsListen: "127.0.0.1:7103", NATS: access(), Policy: Policy, Calls: []string{"auth"}, Build: build,
		Examines: []string{"nats-sync", "nats-storage", "nats-replicas"},
	}
}

func build(_ context.Context, env *servicemain.Env, f Flags) (servicemain.Service, error) {
	public, err := f.URL(env.HTTPAddr, env.HTTPS)
	if err != nil {
		return nil, err
	}
	auth, err := env.Dial("auth")
	if err != nil {
		return nil, err
	}
	return New(
		Config{
			PublicURL: public, ClientID: f.BitbucketClientID, Timing: registry.Timing{SecretAge: secretAge(f.WebhookSecretAge)},
			Site: bitbucket.Site{SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL},
		},
		Deps{
			Logger: env.Logger, JS: env.JS, Redis: env.Redis, Keyset: env.Keyset, Auth: authv1.NewAuthServiceClient(auth),
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}

// secretAge is the setting as registry.Timing has it, where zero is the default.
func secretAge(set time.Duration) time.Duration {
	if set <= 0 {
		return -1
	}
	return set
}
