package gateway

import (
	"context"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
)

// Flags are the settings of this service.
type Flags struct {
	servicemain.PublicFlags    `embed:""`
	servicemain.WebFlags       `embed:""`
	servicemain.SignInFlags    `embed:""`
	servicemain.PeopleFlags    `embed:""`
	servicemain.BitbucketFlags `embed:""`
	servicemain.NotifyFlags    `embed:""`
	servicemain.ActivityFlags  `embed:""`
	servicemain.ProgramFlags   `embed:""`

	// Emulator is whether an emulator stands in for Bitbucket, for whoever runs one.
	Emulator bool `kong:"-"`
}

// Spec describes the service to whoever runs it.
func Spec() servicemain.Spec[Flags] {
	return servicemain.Spec[Flags]{
		Name: "gateway", Description: "Serves Devpilot's public API, sign-in and pages.",
		Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:7105", NATS: access(), Policy: Policy,
		Calls: []string{"auth", "repo", "webhook", "deployer"}, Build: build,
	}
}

func build(_ context.Context, env *servicemain.Env, f Flags) (servicemain.Service, error) {
	public, err := f.URL(env.HTTPAddr, env.HTTPS)
	if err != nil {
		return nil, err
	}
	origins, err := f.Origins()
	if err != nil {
		return nil, err
	}
	conns := map[string]*grpc.ClientConn{}
	for _, name := range Spec().Calls {
		if conns[name], err = env.Dial(name); err != nil {
			return nil, err
		}
	}
	return New(
		Config{
			PublicURL: public, Listen: env.HTTPAddr.String(), AllowedOrigins: origins, TrustedProxies: f.TrustedProxies,
			AdminToken: f.AdminToken, ProvidersFile: f.IdentityProvidersFile, LocalOwnerOff: f.LocalOwner == "off",
			Version: env.Version, Emulator: f.Emulator, BitbucketSiteURL: f.BitbucketSiteURL,
			NotifyAllow: f.NotifyAllow, ActivityRetention: f.ActivityRetention, ProgramRequestsPerMinute: f.ProgramRequests,
			Mail: notify.SMTP{Host: f.SMTPHost, Port: f.SMTPPort, User: f.SMTPUser, Password: f.SMTPPassword, From: f.SMTPFrom, TLS: f.SMTPTLS},
		},
		Deps{
			Logger: env.Logger, JS: env.JS, Keyset: env.Keyset, Keys: env.Keys, Redis: env.Redis,
			Auth: conns["auth"], Repo: conns["repo"], Webhook: conns["webhook"], Deployer: conns["deployer"],
			Examined: env.Examined, Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now,
		})
}
