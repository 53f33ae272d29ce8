// Command deployer is the deployer service: it owns apps and deploys them.
package main

import (
	"context"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"

	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/deployer"
)

type flags struct {
	servicemain.BitbucketFlags `embed:""`
	servicemain.DataFlags      `embed:""`
	servicemain.WorkerFlags    `embed:""`
	servicemain.PublicFlags    `embed:""`
	servicemain.HookFlags      `embed:""`
	servicemain.LiveFlags      `embed:""`
	servicemain.ReconcileFlags `embed:""`
}

func main() {
	servicemain.Main(servicemain.Spec[flags]{
		Name: "deployer", Description: "Owns apps, turns pushes into deployments and makes releases live.",
		GRPCListen: ":7004", OpsListen: ":7104", Policy: deployer.Policy, Calls: []string{"auth", "repo", "webhook"}, Build: build,
	})
}

func build(ctx context.Context, env *servicemain.Env, f flags) (servicemain.Service, error) {
	auth, err := env.Dial("auth")
	if err != nil {
		return nil, err
	}
	repo, err := env.Dial("repo")
	if err != nil {
		return nil, err
	}
	webhook, err := env.Dial("webhook")
	if err != nil {
		return nil, err
	}
	live, err := f.ListenLive(ctx, f.Has("worker"))
	if err != nil {
		return nil, err
	}
	public := ""
	if f.PublicURL != "" {
		if public, err = f.URL(nil); err != nil {
			return nil, err
		}
	}
	return deployer.New(
		deployer.Config{
			SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL, ClientID: f.BitbucketClientID, API: f.Has("api"), Worker: f.Has("worker"), Server: f.Server, Slots: f.Slots(), AckWait: f.Lease,
			DataDir: f.DataDir, CacheDir: f.Cache(), Version: env.Version, Replicas: env.Replicas,
			ReconcileInterval: f.ReconcileInterval, ReconcileGrace: f.ReconcileGrace, CacheBytes: f.CacheMiB << 20,
			PublicURL: public, LiveURL: live.URL,
			Hooks: deployer.Hooks{
				AllowUnsandboxed: f.AllowUnsandboxedHooks, Network: f.HookNetwork, Allow: f.HookAllow, Deny: f.HookDeny, ReadOnly: f.HookReadOnly, Path: f.HookPath, AppDisk: f.AppDiskMiB << 20,
			},
		},
		deployer.Deps{
			Logger: env.Logger, JS: env.JS, Redis: env.Redis, Keyset: env.Keyset, Auth: authv1.NewAuthServiceClient(auth), Repo: repov1.NewRepoServiceClient(repo),
			Webhook: webhookv1.NewWebhookServiceClient(webhook), Registerer: env.Registerer, Now: env.Now, Live: live.Listener,
		})
}
