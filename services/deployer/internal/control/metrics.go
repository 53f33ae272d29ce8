package control

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/services/deployer/internal/control/app"
	"devpilot.io/bitbucket/services/deployer/internal/record/census"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
)

// register adds what the role tells of all apps, lanes and servers. All of it is read from memory.
func (c *Control) register() error {
	if c.cfg.Registerer == nil {
		return nil
	}
	r := c.cfg.Records
	lanes := census.NewCollector(r.Copies.Census, census.Config{
		Complete: func() bool { return r.Copies.Lanes.Ready(context.Background()) == nil }, Servers: r.Fleet.Names, Now: c.cfg.Now,
	})
	var errs []error
	for _, m := range []prometheus.Collector{app.NewStandings(c.apps), lanes, fleet.NewCollector(r.Fleet), c.reconciler.Metrics()} {
		errs = append(errs, c.cfg.Registerer.Register(m))
	}
	return errors.Join(errs...)
}

// count is what counts pushes that one of verdict's deciders decides about; nil where nobody does.
func (c Config) count(by string) func(string) {
	if c.Pushes == nil {
		return nil
	}
	return c.Pushes.PushBy(by)
}

// tracer records what the role does of a push; nil where nothing is recorded.
func (c Config) tracer() trace.Tracer {
	if c.TracerProvider == nil {
		return nil
	}
	return c.TracerProvider.Tracer("devpilot.io/bitbucket/services/deployer/internal/control")
}
