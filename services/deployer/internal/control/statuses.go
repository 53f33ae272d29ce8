package control

import (
	"context"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/services/deployer/internal/control/status"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// newStatuses makes what tells Bitbucket how deployments stand; nil where no public URL is known.
func (c *Control) newStatuses() (*status.Sender, error) {
	cfg := c.cfg
	if cfg.PublicURL == "" {
		return nil, nil
	}
	options := bitbucket.ClientOptions{Logger: cfg.Logger, Registerer: cfg.Registerer, TracerProvider: cfg.TracerProvider, Now: cfg.Now}
	if cfg.Redis != nil {
		options.Budget = redisx.NewBudget(redisx.BudgetConfig{Client: cfg.Redis, Consumer: cfg.ClientID, Service: "deployer", Registerer: cfg.Registerer, Logger: cfg.Logger})
	}
	return status.New(status.Config{
		Tracer: cfg.tracer(),
		Client: bitbucket.NewClient(cfg.Site, options), Tokens: cfg.Clients.Auth, Records: cfg.Records.Store.Deployments, Apps: cfg.Records.Apps, Connections: c.connections,
		PublicURL: cfg.PublicURL, Position: cfg.Records.Store.Position("statuses"), Logger: cfg.Logger, Registerer: cfg.Registerer, Metrics: cfg.Metrics, Now: cfg.Now,
	})
}

// noStatuses says why no statuses are sent; empty when they are.
func (c *Control) noStatuses() (reason, message string) {
	if c.statuses == nil {
		return status.ReasonNotSent, "Deployments are not shown at the commits on Bitbucket: this deployer does not know Devpilot's public URL. Set DEVPILOT_PUBLIC_URL."
	}
	return c.statuses.Reason()
}

// proofs writes the status of a proof; it says why where none can be sent.
type proofs struct{ c *Control }

// Prove implements server.Statuses.
func (p proofs) Prove(ctx context.Context, k lane.Key, hash string) (fullName, skipped string, err error) {
	if _, message := p.c.noStatuses(); message != "" {
		return "", message, nil
	}
	fullName, err = p.c.statuses.Prove(ctx, k, hash)
	return fullName, "", err
}

// told is what Bitbucket was told of a deployment; empty when nothing is known.
func (c *Control) told(ctx context.Context, k lane.Key, rec *storev1.Deployment, connection string) string {
	if c.statuses == nil {
		return ""
	}
	return c.statuses.Told(ctx, k, rec, connection)
}
