package deployer

import (
	"context"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/servicemain"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
)

// Flags are the settings of this service.
type Flags struct {
	servicemain.BitbucketFlags `embed:""`
	servicemain.DataFlags      `embed:""`
	servicemain.WorkerFlags    `embed:""`
	servicemain.PublicFlags    `embed:""`
	servicemain.HookFlags      `embed:""`
	servicemain.LiveFlags      `embed:""`
	servicemain.ReconcileFlags `embed:""`

	// Live is where releases are served, for whoever has taken the address already; else the flags say.
	Live *servicemain.Live `kong:"-"`
}

// Spec describes the service to whoever runs it.
func Spec() servicemain.Spec[Flags] {
	return servicemain.Spec[Flags]{
		Name: "deployer", Description: "Owns apps, turns pushes into deployments and makes releases live.",
		GRPCListen: "127.0.0.1:7004", OpsListen: "127.0.0.1:7104", NATS: AccessOf(roleAPI).And(AccessOf(roleWorker)), Policy: Policy, Calls: []string{"auth", "repo", "webhook"}, Build: build,
	}
}

func build(ctx context.Context, env *servicemain.Env, f Flags) (servicemain.Service, error) {
	conns := map[string]*grpc.ClientConn{}
	for _, name := range Spec().Calls {
		conn, err := env.Dial(name)
		if err != nil {
			return nil, err
		}
		conns[name] = conn
	}
	if f.Live == nil {
		live, err := f.ListenLive(ctx, f.Has("worker"))
		if err != nil {
			return nil, err
		}
		f.Live = &live
	}
	public := ""
	if f.PublicURL != "" || env.HTTPAddr != nil {
		var err error
		if public, err = f.URL(env.HTTPAddr, env.HTTPS); err != nil {
			return nil, err
		}
	}
	hooks := HooksOf(f.HookFlags)
	hooks.DiskReserve = f.DiskReserve << 20
	return New(
		Config{
			SiteURL: f.BitbucketSiteURL, APIURL: f.BitbucketAPIURL, ClientID: f.BitbucketClientID,
			API: f.Has("api"), Worker: f.Has("worker"), Server: f.Server, Slots: f.Slots(), Lease: f.Lease,
			DataDir: f.DataDir, CacheDir: f.Cache(), CacheBytes: f.CacheMiB << 20, Limits: mirror.Limits{FreeBytes: uint64(f.DiskReserve) << 20}, Version: env.Version,
			ReconcileInterval: f.ReconcileInterval, ReconcileGrace: f.ReconcileGrace,
			PublicURL: public, LiveURL: f.Live.URL, LiveAddress: f.LiveAdvertise,
			Hooks: hooks,
		},
		Deps{
			Logger: env.Logger, JS: env.JS, Redis: env.Redis, Keyset: env.Keyset,
			Auth: authv1.NewAuthServiceClient(conns["auth"]), Repo: repov1.NewRepoServiceClient(conns["repo"]),
			Webhook: webhookv1.NewWebhookServiceClient(conns["webhook"]), Registerer: env.Registerer, TracerProvider: env.TracerProvider, Now: env.Now, Live: f.Live.Listener, Certificate: env.Certificate,
		})
}

// HooksOf are the settings of hooks as a Config has them.
func HooksOf(f servicemain.HookFlags) Hooks {
	return Hooks{
		AllowUnsandboxed: f.AllowUnsandboxedHooks, Network: f.HookNetwork, Allow: f.HookAllow, Deny: f.HookDeny,
		ReadOnly: f.HookReadOnly, Path: f.HookPath, AppDisk: f.AppDiskMiB << 20,
	}
}
