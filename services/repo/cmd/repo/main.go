// Command repo is the repo service: it lists Bitbucket's repositories and branches.
package main

import (
	"context"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"

	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/repo"
)

type flags struct {
	servicemain.BitbucketFlags `embed:""`
}

func main() {
	servicemain.Main(servicemain.Spec[flags]{
		Name: "repo", Description: "Lists the repositories and branches that a workspace's Bitbucket account can reach.",
		GRPCListen: ":7002", OpsListen: ":7102", Policy: repo.Policy, Calls: []string{"auth"}, Build: build,
	})
}

func build(_ context.Context, env *servicemain.Env, f flags) (servicemain.Service, error) {
	auth, err := env.Dial("auth")
	if err != nil {
		return nil, err
	}
	return repo.New(
		repo.Config{SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL, ClientID: f.BitbucketClientID},
		repo.Deps{
			Logger: env.Logger, Redis: env.Redis, Keyset: env.Keyset, Auth: authv1.NewAuthServiceClient(auth),
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}
