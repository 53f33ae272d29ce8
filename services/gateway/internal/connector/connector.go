// Package connector adds to integrations what auth does not know: that who connected one is no longer a member of the
// workspace. It is found out whenever an integration is read, and stored nowhere: no removal can forget to tell it.
//
// It depends on the client of auth and internal/tenant.
package connector

import (
	"context"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// Teams know who is a member.
type Teams interface {
	Role(ctx context.Context, workspace, subject string) (identity.Role, error)
}

// Conn is the connection to auth whose integrations have their warning. It is safe for concurrent use.
type Conn struct {
	grpc.ClientConnInterface
	Teams  Teams
	Logger *slog.Logger
}

// Invoke implements grpc.ClientConnInterface. Where the team cannot be read the integration comes without a warning.
func (c Conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...); err != nil {
		return err
	}
	switch r := reply.(type) {
	case interface{ GetIntegration() *authv1.Integration }:
		c.warn(ctx, r.GetIntegration())
	case interface{ GetIntegrations() []*authv1.Integration }:
		for _, i := range r.GetIntegrations() {
			c.warn(ctx, i)
		}
	}
	return nil
}

func (c Conn) warn(ctx context.Context, i *authv1.Integration) {
	if i.GetConnectedById() == "" || i.GetState() == authv1.Integration_NOT_CONNECTED {
		return
	}
	role, err := c.Teams.Role(ctx, i.GetWorkspace(), i.GetConnectedById())
	switch {
	case err != nil:
		c.Logger.WarnContext(ctx, "whether who connected is a member is not known", slog.String(logs.KeyWorkspace, i.GetWorkspace()), logs.Err(err))
	case role == identity.RoleNone:
		i.Warning = fmt.Sprintf("Connected by %s, who is no longer a member. Deployments go on with the account @%s for as long as it keeps its access on Bitbucket. "+
			"An owner or admin connects another account in its place: apps, webhooks and settings stay.", i.GetConnectedBy(), i.GetAccount().GetLabel())
	}
}
