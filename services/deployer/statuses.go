package deployer

import (
	"context"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/services/deployer/internal/client"
	"devpilot.io/bitbucket/services/deployer/internal/control/status"
)

// openStatuses makes what tells Bitbucket how deployments stand; nil where no public URL is known.
func (c *core) openStatuses(auth client.Auth) error {
	cfg, d := c.s.cfg, c.s.deps
	if cfg.PublicURL == "" {
		return nil
	}
	options := bitbucket.ClientOptions{Logger: d.Logger, Registerer: d.Registerer, Now: d.Now}
	if d.Redis != nil {
		options.Budget = redisx.NewBudget(redisx.BudgetConfig{Client: d.Redis, Consumer: cfg.ClientID, Logger: d.Logger})
	}
	var err error
	c.statuses, err = status.New(status.Config{
		Client: bitbucket.NewClient(c.s.site, options), Tokens: auth, Records: c.store.Deployments, Apps: c.apps, Connections: c.links,
		PublicURL: cfg.PublicURL, Replicas: cfg.Replicas, Logger: d.Logger, Registerer: d.Registerer, Metrics: c.s.stream, Now: d.Now,
	})
	return err
}

// noStatuses says why no statuses are sent; empty when they are.
func (c *core) noStatuses() (reason, message string) {
	if c.statuses == nil {
		return status.ReasonNotSent, "Deployments are not shown at the commits on Bitbucket: this deployer does not know Devpilot's public URL. Set DEVPILOT_PUBLIC_URL."
	}
	return c.statuses.Reason()
}

// sendStatuses runs until ctx is done.
func (c *core) sendStatuses(ctx context.Context) error { return c.statuses.Run(ctx, c.s.deps.JS) }
