package auth

import (
	"context"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/servicemain"
)

// Flags are the settings of this service.
type Flags struct {
	servicemain.BitbucketFlags `embed:""`
	servicemain.PublicFlags    `embed:""`
}

// Spec describes the service to whoever runs it.
func Spec() servicemain.Spec[Flags] {
	return servicemain.Spec[Flags]{
		Name:        "auth",
		Description: "Owns the integrations: OAuth handshakes with Bitbucket, tokens and their refresh.",
		GRPCListen:  "127.0.0.1:7001", OpsListen: "127.0.0.1:7101",
		NATS: access(), Policy: Policy, Examines: []string{"redis-eviction"}, Build: build,
	}
}

func build(_ context.Context, env *servicemain.Env, f Flags) (servicemain.Service, error) {
	public, err := f.URL(env.HTTPAddr, env.HTTPS)
	if err != nil {
		return nil, err
	}
	return New(
		Config{
			PublicURL: public, Site: bitbucket.Site{SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL},
			ClientID: f.BitbucketClientID, ClientSecret: f.BitbucketClientSecret,
		},
		Deps{
			Logger: env.Logger, JS: env.JS, Redis: env.Redis, Keyset: env.Keyset,
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}
