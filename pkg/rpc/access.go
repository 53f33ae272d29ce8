package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
)

// hasWorkspace is what generated requests offer that name a workspace.
type hasWorkspace interface{ GetWorkspace() string }

// access verifies who calls and holds the call against the policy.
func access(v *identity.Verifier, policy Policy) layer {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if strings.HasPrefix(c.method, healthPrefix) {
			return next(ctx)
		}
		caller, err := v.Caller(incoming(ctx, mdCaller))
		if err != nil {
			return apierr.New(apierr.ReasonUnauthenticated, "The calling service did not prove who it is.", apierr.WithCause(err))
		}
		c.caller = caller
		ctx = identity.WithCaller(ctx, caller)
		ctx = logs.WithAttrs(ctx, slog.String(logs.KeyCaller, caller))
		rule, ok := policy[c.method]
		if !ok || !slices.Contains(rule.Callers, caller) {
			return apierr.Newf(apierr.ReasonPermissionDenied, "The service %s may not call %s.", caller, c.method)
		}
		ctx, user, err := withUser(ctx, v, caller)
		if err != nil {
			return err
		}
		if user != nil {
			c.subject, c.workspace = user.Subject, user.Workspace
		}
		if caller == identity.Gateway && rule.MinRole > identity.RoleNone {
			if user == nil {
				return apierr.New(apierr.ReasonUnauthenticated, "The gateway did not say on whose behalf it calls.")
			}
			if err := c.check(ctx, func(_ context.Context, msg any) error { return authorize(*user, rule, msg) }); err != nil {
				return err
			}
		}
		return next(ctx)
	}
}

// withUser verifies the user token, if there is one, and passes it on to outgoing calls. From
// services other than the gateway the token is history (who started this?) and may have expired on
// the way; a token that was never good is refused from everyone.
func withUser(ctx context.Context, v *identity.Verifier, caller string) (context.Context, *identity.Identity, error) {
	token := incoming(ctx, mdUser)
	if token == "" {
		return ctx, nil, nil
	}
	user, err := v.User(token)
	switch {
	case err == nil:
		if user.RequestID == "" { // one token serves many requests; their ids travel beside it
			user.RequestID = RequestID(ctx)
		}
		ctx = identity.WithIdentity(identity.WithUserToken(ctx, token), user)
		return logs.WithAttrs(ctx, slog.String(logs.KeySubject, user.Subject)), &user, nil
	case errors.Is(err, identity.ErrExpired) && caller != identity.Gateway:
		return ctx, nil, nil
	default:
		return ctx, nil, apierr.New(apierr.ReasonUnauthenticated, "The identity that came with the call is not valid.", apierr.WithCause(err))
	}
}

// authorize holds the user against the rule, in the workspace that the request names.
func authorize(user identity.Identity, rule Rule, msg any) error {
	req, ok := msg.(hasWorkspace)
	if !ok {
		return fmt.Errorf("rpc: %T names no workspace", msg) // CheckPolicy refuses this at start
	}
	ws := req.GetWorkspace()
	if ws == "" {
		return apierr.InvalidArgument("workspace", "name the workspace")
	}
	if ws != user.Workspace || user.Role == identity.RoleNone {
		return apierr.Newf(apierr.ReasonPermissionDenied, "You are not a member of workspace %s. Ask an owner or admin of workspace %s.", ws, ws)
	}
	if user.Role < rule.MinRole {
		return apierr.Newf(apierr.ReasonPermissionDenied, "Your role in workspace %s is %s, which is not enough for this. Ask %s of workspace %s.",
			ws, user.Role, whoCan(rule.MinRole), ws)
	}
	return nil
}

func whoCan(r identity.Role) string {
	switch r {
	case identity.RoleOwner:
		return "an owner"
	case identity.RoleAdmin:
		return "an owner or admin"
	case identity.RoleMember, identity.RoleNone:
		return "a member"
	}
	return "an owner"
}
