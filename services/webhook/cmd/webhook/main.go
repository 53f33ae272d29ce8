// Command webhook is the webhook service: webhooks at Bitbucket, their deliveries, push events.
package main

import (
	"context"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/servicemain"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/webhook"
)

type flags struct {
	servicemain.PublicFlags    `embed:""`
	servicemain.BitbucketFlags `embed:""`
}

func main() {
	servicemain.Main(servicemain.Spec[flags]{
		Name: "webhook", Description: "Owns the webhooks at Bitbucket and takes their deliveries.",
		Listen: ":8082", GRPCListen: ":7003", OpsListen: ":7103", Policy: webhook.Policy,
		Calls: []string{"auth"}, Build: build,
	})
}

func build(_ context.Context, env *servicemain.Env, f flags) (servicemain.Service, error) {
	public, err := f.URL(env.HTTPAddr)
	if err != nil {
		return nil, err
	}
	auth, err := env.Dial("auth")
	if err != nil {
		return nil, err
	}
	return webhook.New(
		webhook.Config{
			PublicURL: public, ClientID: f.BitbucketClientID, Replicas: env.Replicas,
			Site: bitbucket.Site{SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL},
		},
		webhook.Deps{
			Logger: env.Logger, JS: env.JS, Redis: env.Redis, Keyset: env.Keyset, Auth: authv1.NewAuthServiceClient(auth),
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}
