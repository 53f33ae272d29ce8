package allinone

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/servicemain"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/repo"
	"devpilot.io/bitbucket/services/webhook"
)

// What each cmd/<service>/main.go does for a process of its own is done here for this one.

func (p *Product) hostRepo() *hosted {
	return p.host("repo", repo.Policy, func(context.Context) (servicemain.Service, error) {
		conn, err := p.auth.dial("repo")
		if err != nil {
			return nil, err
		}
		return repo.New(
			repo.Config{SiteURL: p.settings.BitbucketSiteURL, APIURL: p.settings.BitbucketAPIURL, ClientID: p.settings.BitbucketClientID},
			repo.Deps{
				Logger: p.loggerOf("repo"), Redis: p.redisc, Keyset: p.keyset, Auth: authv1.NewAuthServiceClient(conn),
				Registerer: p.registerer(), TracerProvider: p.tracing,
			})
	})
}

func (p *Product) hostWebhook() *hosted {
	return p.host("webhook", webhook.Policy, func(context.Context) (servicemain.Service, error) {
		conn, err := p.auth.dial("webhook")
		if err != nil {
			return nil, err
		}
		return webhook.New(
			webhook.Config{
				PublicURL: p.publicURL, ClientID: p.settings.BitbucketClientID, Site: p.site(), Replicas: p.settings.Replicas,
			},
			webhook.Deps{
				Logger: p.loggerOf("webhook"), JS: p.js, Redis: p.redisc, Keyset: p.keyset, Auth: authv1.NewAuthServiceClient(conn),
				Registerer: p.registerer(), TracerProvider: p.tracing,
			})
	})
}

func (p *Product) hostAuth() *hosted {
	return p.host("auth", auth.Policy, func(context.Context) (servicemain.Service, error) {
		return auth.New(
			auth.Config{
				PublicURL: p.publicURL, Site: p.site(),
				ClientID: p.settings.BitbucketClientID, ClientSecret: p.settings.BitbucketClientSecret,
				Replicas: p.settings.Replicas,
			},
			auth.Deps{
				Logger: p.loggerOf("auth"), JS: p.js, Redis: p.redisc, Keyset: p.keyset,
				Registerer: p.registerer(), TracerProvider: p.tracing, Now: time.Now,
			})
	})
}

func (p *Product) hostDeployer() *hosted {
	return p.host("deployer", deployer.Policy, func(context.Context) (servicemain.Service, error) {
		authConn, err := p.auth.dial("deployer")
		if err != nil {
			return nil, err
		}
		repoConn, err := p.repo.dial("deployer")
		if err != nil {
			return nil, err
		}
		webhookConn, err := p.webhook.dial("deployer")
		if err != nil {
			return nil, err
		}
		s := p.settings
		return deployer.New(
			deployer.Config{
				SiteURL: s.BitbucketSiteURL, APIURL: s.BitbucketAPIURL, ClientID: s.BitbucketClientID, API: s.Has("api"), Worker: s.Has("worker"),
				Server: s.Server, Slots: s.Slots(), AckWait: s.Lease, DataDir: s.DataDir, CacheDir: s.Cache(), Version: servicemain.Version,
				Replicas: s.Replicas, ReconcileInterval: s.ReconcileInterval, ReconcileGrace: s.ReconcileGrace, CacheBytes: s.CacheMiB << 20,
				PublicURL: p.publicURL, LiveURL: p.live.URL,
				Hooks: deployer.Hooks{
					AllowUnsandboxed: s.AllowUnsandboxedHooks, Network: s.HookNetwork, Allow: s.HookAllow, Deny: s.HookDeny, ReadOnly: s.HookReadOnly, Path: s.HookPath, AppDisk: s.AppDiskMiB << 20,
				},
			},
			deployer.Deps{
				Logger: p.loggerOf("deployer"), JS: p.js, Redis: p.redisc, Keyset: p.keyset,
				Auth: authv1.NewAuthServiceClient(authConn), Repo: repov1.NewRepoServiceClient(repoConn),
				Webhook: webhookv1.NewWebhookServiceClient(webhookConn), Registerer: p.registerer(), Live: p.live.Listener,
			})
	})
}

func (p *Product) startGateway(context.Context) error {
	deps := gateway.Deps{
		Logger: p.loggerOf(identity.Gateway), JS: p.js, Keyset: p.keyset, Keys: p.keys,
		Registerer: p.registerer(), TracerProvider: p.tracing,
	}
	for h, conn := range map[*hosted]*grpc.ClientConnInterface{p.auth: &deps.Auth, p.repo: &deps.Repo, p.webhook: &deps.Webhook, p.deployer: &deps.Deployer} {
		c, err := h.dial(identity.Gateway)
		if err != nil {
			return err
		}
		*conn = c
	}
	origins, err := p.settings.Origins()
	if err != nil {
		return err
	}
	p.gateway, err = gateway.New(gateway.Config{
		PublicURL: p.publicURL, Listen: p.httpListener.Addr().String(),
		AllowedOrigins: origins, TrustedProxies: p.settings.TrustedProxies,
		AdminToken: p.admin, Version: servicemain.Version, Emulator: p.settings.Emulator, BitbucketSiteURL: p.settings.BitbucketSiteURL,
		Replicas: p.settings.Replicas,
	}, deps)
	return err
}

func (p *Product) site() bitbucket.Site {
	return bitbucket.Site{SiteURL: p.settings.BitbucketSiteURL, APIURL: p.settings.BitbucketAPIURL}
}

// registerer is the process's one registry: what several services measure carries their name.
func (p *Product) registerer() prometheus.Registerer { return p.registry }
