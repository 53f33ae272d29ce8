package allinone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/ops"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/servicemain"
)

// pipeBuffer is the size of an in-memory connection's buffer.
const pipeBuffer = 256 << 10

// hosted is a service in this process: built as its own program builds it, served over an in-memory
// listener through the same interceptors as in a process of its own.
type hosted struct {
	name     string
	policy   rpc.Policy
	build    func(ctx context.Context) (servicemain.Service, error)
	product  *Product
	listener *bufconn.Listener
	service  servicemain.Service
	door     *servicemain.Door
	server   *grpc.Server
}

func host[C any](p *Product, spec servicemain.Spec[C], flags C) *hosted {
	return &hosted{
		name: spec.Name, policy: checkup.WithPolicy(spec.Policy), product: p, listener: bufconn.Listen(pipeBuffer), door: servicemain.NewDoor(),
		build: func(ctx context.Context) (servicemain.Service, error) { return build(ctx, p, spec, flags) },
	}
}

// components are the service's work and its gRPC server, to be started in this order.
func (h *hosted) components() []lifecycle.Component {
	return []lifecycle.Component{
		{
			Name:        h.name,
			Start:       h.start,
			Run:         func(ctx context.Context) error { return h.service.Run(ctx) },
			Ready:       func(ctx context.Context) error { return h.service.Ready(ctx) },
			StopTimeout: 30 * time.Second,
		},
		{
			Name:        h.name + " grpc",
			Run:         func(context.Context) error { return h.server.Serve(h.listener) },
			Stop:        h.stop,
			StopTimeout: 10 * time.Second,
		},
		{Name: h.name + " health", Run: h.watchHealth},
	}
}

// watchHealth keeps the service's door by what the service itself says: the process as a whole is ready last.
func (h *hosted) watchHealth(ctx context.Context) error {
	var own ops.Readiness
	own.Add(h.name, h.service.Ready)
	h.door.Keep(ctx, &own, nil)
	return nil
}

func (h *hosted) start(ctx context.Context) error {
	service, err := h.build(ctx)
	if err != nil {
		return err
	}
	h.service = service
	h.server, err = rpc.NewServer(rpc.ServerConfig{
		Service: h.name, Keys: h.product.keys, Policy: h.policy, Logger: h.product.loggerOf(h.name),
		Registerer: h.product.registry, TracerProvider: h.product.tracing, Health: h.door.Health, Open: h.door.Open,
	})
	if err != nil {
		return err
	}
	registrar, ok := service.(servicemain.Registrar)
	if !ok {
		return fmt.Errorf("service %s registers nothing", h.name)
	}
	registrar.Register(h.server)
	checkup.Register(h.server, h.examined())
	return rpc.CheckPolicy(h.server, h.policy)
}

func (h *hosted) stop(ctx context.Context) error {
	limit := 5 * time.Second
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d) / 2 // the rest is for handlers to notice that they were cut
	}
	if !rpc.Stop(h.server, limit) {
		return errors.New("calls still running were cut")
	}
	return nil
}
