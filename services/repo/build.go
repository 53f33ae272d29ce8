package repo

import (
	"context"

	"devpilot.io/bitbucket/pkg/servicemain"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// Flags are the settings of this service.
type Flags struct {
	servicemain.BitbucketFlags `embed:""`
}

// Spec describes the service to whoever runs it.
func Spec() servicemain.Spec[Flags] {
	return servicemain.Spec[Flags]{
		Name: "repo", Description: "Lists the repositories and branches that a workspace's Bitbucket account can reach.",
		GRPCListen: "127.0.0.1:7002", OpsListen: "127.0.0.1:7102", WithoutNATS: true, Policy: Policy, Calls: []string{"auth"}, Build: build,
	}
}

func build(_ context.Context, env *servicemain.Env, f Flags) (servicemain.Service, error) {
	auth, err := env.Dial("auth")
	if err != nil {
		return nil, err
	}
	return New(
		Config{SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL, ClientID: f.BitbucketClientID},
		Deps{
			Logger: env.Logger, Redis: env.Redis, Keyset: env.Keyset, Auth: authv1.NewAuthServiceClient(auth),
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}
