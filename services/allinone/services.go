package allinone

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/repo"
	"devpilot.io/bitbucket/services/webhook"
)

// The services are built as their own programs build them: by their Spec, from their flags.

func (p *Product) hostServices() {
	p.auth = host(p, auth.Spec(), FlagsOf[auth.Flags](&p.settings))
	p.repo = host(p, repo.Spec(), FlagsOf[repo.Flags](&p.settings))
	p.webhook = host(p, webhook.Spec(), FlagsOf[webhook.Flags](&p.settings))
	flags := FlagsOf[deployer.Flags](&p.settings)
	flags.Live = &p.live
	p.deployer = host(p, deployer.Spec(), flags)
}

// startGateway builds the one service that is called over HTTP only.
func (p *Product) startGateway(ctx context.Context) error {
	flags := FlagsOf[gateway.Flags](&p.settings)
	flags.AdminToken, flags.Emulator = p.admin, p.settings.Emulator
	built, err := build(ctx, p, gateway.Spec(), flags)
	if err != nil {
		return err
	}
	p.gateway = built.(*gateway.Service)
	return nil
}

// FlagsOf fills the flags of a service from the groups of flags that it shares with this program.
func FlagsOf[C any](s *Settings) (flags C) {
	to, from := reflect.ValueOf(&flags).Elem(), reflect.ValueOf(s).Elem()
	for i := range to.NumField() {
		if group := from.FieldByName(to.Type().Field(i).Name); to.Type().Field(i).Anonymous && group.IsValid() {
			to.Field(i).Set(group)
		}
	}
	return flags
}

// build builds a service in this process.
func build[C any](ctx context.Context, p *Product, spec servicemain.Spec[C], flags C) (servicemain.Service, error) {
	return spec.Build(ctx, &servicemain.Env{
		Service: spec.Name, Version: servicemain.Version, Logger: p.loggerOf(spec.Name),
		NC: p.nc, JS: p.js, Redis: p.redisc, Keyset: p.keysets[spec.Name], Keys: p.keys,
		Registerer:     p.registry, // one for all: what several services measure carries their name
		TracerProvider: p.tracing, Now: time.Now, HTTPAddr: p.httpListener.Addr(), HTTPS: p.certificate != nil,
		Examined: p.examined(),
		Dial: func(target string) (*grpc.ClientConn, error) {
			if !slices.Contains(spec.Calls, target) {
				return nil, fmt.Errorf("%s does not say that it calls %s", spec.Name, target)
			}
			return p.dial(spec.Name, target)
		},
	}, flags)
}

// dial connects a service to another one.
func (p *Product) dial(from, target string) (*grpc.ClientConn, error) {
	called := map[string]*hosted{"auth": p.auth, "repo": p.repo, "webhook": p.webhook, "deployer": p.deployer}[target]
	conn, err := rpc.Dial(rpc.ClientConfig{
		Service: from, TargetService: target, Keys: p.keys, Logger: p.loggerOf(from),
		Registerer: p.registry, TracerProvider: p.tracing,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return called.listener.DialContext(ctx) },
	})
	if err != nil {
		return nil, err
	}
	p.conns = append(p.conns, conn)
	return conn, nil
}
