// Command auth runs the auth service.
package main

import (
	"context"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/auth"
)

type flags struct {
	servicemain.BitbucketFlags `embed:""`
	servicemain.PublicFlags    `embed:""`
}

func main() {
	servicemain.Main(servicemain.Spec[flags]{
		Name:        "auth",
		Description: "Owns the integrations: OAuth handshakes with Bitbucket, tokens and their refresh.",
		GRPCListen:  ":7001", OpsListen: ":7101",
		Policy: auth.Policy,
		Build:  build,
	})
}

func build(_ context.Context, env *servicemain.Env, f flags) (servicemain.Service, error) {
	public, err := f.URL(nil)
	if err != nil {
		return nil, err
	}
	site := bitbucket.Site{SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL}
	return auth.New(
		auth.Config{PublicURL: public, Site: site, ClientID: f.BitbucketClientID, ClientSecret: f.BitbucketClientSecret, Replicas: env.Replicas},
		auth.Deps{
			Logger: env.Logger, JS: env.JS, Redis: env.Redis, Keyset: env.Keyset,
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		},
	)
}
