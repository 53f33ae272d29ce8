// Command gateway is the gateway service: the public API, sessions, workspaces and the pages.
package main

import (
	"context"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/gateway"
)

type flags struct {
	servicemain.PublicFlags    `embed:""`
	servicemain.WebFlags       `embed:""`
	servicemain.SignInFlags    `embed:""`
	servicemain.BitbucketFlags `embed:""`
}

func main() {
	servicemain.Main(servicemain.Spec[flags]{
		Name: "gateway", Description: "Serves Devpilot's public API, sign-in and pages.",
		Listen: "127.0.0.1:8080", OpsListen: ":7105", Policy: gateway.Policy,
		Calls: []string{"auth", "repo", "webhook", "deployer"}, Build: build,
	})
}

func build(_ context.Context, env *servicemain.Env, f flags) (servicemain.Service, error) {
	public, err := f.URL(env.HTTPAddr)
	if err != nil {
		return nil, err
	}
	origins, err := f.Origins()
	if err != nil {
		return nil, err
	}
	conns := map[string]*grpc.ClientConn{}
	for _, name := range []string{"auth", "repo", "webhook", "deployer"} {
		if conns[name], err = env.Dial(name); err != nil {
			return nil, err
		}
	}
	return gateway.New(
		gateway.Config{
			PublicURL: public, Listen: env.HTTPAddr.String(), AllowedOrigins: origins, TrustedProxies: f.TrustedProxies,
			AdminToken: f.AdminToken, Version: env.Version, BitbucketSiteURL: f.BitbucketSiteURL, Replicas: env.Replicas,
		},
		gateway.Deps{
			Logger: env.Logger, JS: env.JS, Keyset: env.Keyset, Keys: env.Keys,
			Auth: conns["auth"], Repo: conns["repo"], Webhook: conns["webhook"], Deployer: conns["deployer"],
			Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}
