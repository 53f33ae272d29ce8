package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/transport"
)

// hasWorkspace is what generated requests offer that name a workspace.
type hasWorkspace interface{ GetWorkspace() string }

// takes is what a method takes of a program, beside the role.
type takes struct {
	scope identity.Scope
	// app is the field that names the app which the call is about; nil where no app has to be named: then a
	// field of that name is a filter, and the answer may tell of others.
	app protoreflect.FieldDescriptor
}

func takesOf(policy Policy) map[string]takes {
	out := make(map[string]takes, len(policy))
	for full, rule := range policy {
		m, err := methodDescriptor(full)
		if err != nil { // CheckPolicy refuses it where a role is asked for
			out[full] = takes{scope: identity.ScopeOf(rule.MinRole, false)}
			continue
		}
		t := takes{scope: cmp.Or(rule.Scope, identity.ScopeOf(rule.MinRole, readOnly(m)))}
		for _, f := range requiredFields(m.Input()) {
			if (f.Name() == "app" || f.Name() == "app_id") && f.Kind() == protoreflect.StringKind {
				t.app = f
			}
		}
		out[full] = t
	}
	return out
}

// access verifies who calls and holds the call against the policy. Where callers are certified, whoever signed the call must
// have the certificate too.
func access(v *identity.Verifier, policy Policy, certified bool) layer {
	needs := takesOf(policy)
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		if isHealth(c.method) {
			return next(ctx)
		}
		caller, err := v.Caller(incoming(ctx, mdCaller))
		if clock := (*identity.ClockError)(nil); errors.As(err, &clock) {
			return apierr.New(apierr.ReasonServiceUnavailable, "The clocks of Devpilot's machines differ. Whoever runs it should set them, best by NTP.", apierr.WithCause(err))
		}
		if err != nil {
			return apierr.New(apierr.ReasonUnauthenticated, "The calling service did not prove who it is.", apierr.WithCause(err))
		}
		if certified {
			if err := certifiedAs(ctx, caller); err != nil {
				return err
			}
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
		if rule.Operator && (user == nil || !user.Operator) {
			return apierr.New(apierr.ReasonPermissionDenied, "This is about the whole installation. Ask its operator: the local owner, or whom a rule of the identity providers makes one.")
		}
		if caller == identity.Gateway && user != nil {
			if err := inScope(*user, rule, needs[c.method]); err != nil {
				return err
			}
		}
		if caller == identity.Gateway && rule.MinRole > identity.RoleNone {
			if user == nil {
				return apierr.New(apierr.ReasonUnauthenticated, "The gateway did not say on whose behalf it calls.")
			}
			if err := c.check(ctx, func(_ context.Context, msg any) error { return authorize(*user, rule, needs[c.method], msg) }); err != nil {
				return err
			}
		}
		return next(ctx)
	}
}

// certifiedAs holds the certificate of the connection against the service that signed the call.
func certifiedAs(ctx context.Context, caller string) error {
	of, err := transport.CallerOf(ctx)
	if err == nil && of != caller {
		err = fmt.Errorf("the call is signed by the service %s and came with the certificate of %s", caller, of)
	}
	if err != nil {
		return apierr.New(apierr.ReasonUnauthenticated, "The calling service did not prove who it is.", apierr.WithCause(err))
	}
	return nil
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
func authorize(user identity.Identity, rule Rule, needs takes, msg any) error {
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
	return ofApps(user, rule, needs, msg)
}

// inScope holds a program against the scope that a call takes.
func inScope(user identity.Identity, rule Rule, needs takes) error {
	if rule.Browser != "" && user.SubjectKind.IsProgram() {
		return apierr.New(apierr.ReasonBrowserRequired, rule.Browser)
	}
	if user.Scope == identity.ScopeNone || user.Scope >= needs.scope {
		return nil
	}
	return apierr.Newf(apierr.ReasonPermissionDenied, "%s has the scope %s, and this takes the scope %s. Use one that has it, or ask an owner or admin of the workspace for one.",
		credential(user), strings.ToUpper(user.Scope.String()), strings.ToUpper(needs.scope.String()))
}

// ofApps holds a program that is limited to some apps against the app that the request names. It says the same
// of an app that is there and of one that is not.
func ofApps(user identity.Identity, rule Rule, needs takes, msg any) error {
	if !user.Apps.Limited() || rule.OfApps {
		return nil
	}
	app := ""
	if m, ok := msg.(proto.Message); ok && needs.app != nil {
		app = m.ProtoReflect().Get(needs.app).String()
	}
	if user.Apps.Has(app) {
		return nil
	}
	what := "this is about the whole workspace"
	if app != "" {
		what = fmt.Sprintf("this is about %q", app)
	}
	return apierr.Newf(apierr.ReasonPermissionDenied, "%s is only for the apps %s, and %s. Use one that is not limited to them, or ask an owner or admin of the workspace for one.",
		credential(user), strings.Join(user.Apps.IDs(), ", "), what)
}

// credential is how people call what a program shows.
func credential(user identity.Identity) string {
	if user.SubjectKind == identity.SubjectAPIKey {
		return fmt.Sprintf("The API key %q", user.Label)
	}
	return fmt.Sprintf("The token of %q", user.Label)
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
