package rpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func program(ctx context.Context, t *testing.T, n *node, role identity.Role, scope identity.Scope, apps ...string) context.Context {
	return testkit.As(ctx, t, n.keys, identity.Identity{
		Subject: "api-key:1", SubjectKind: identity.SubjectAPIKey, Label: "ci", Workspace: "acme-inc", Role: role, Scope: scope, Apps: identity.LimitedTo(apps...),
	})
}

// TestPolicy_scope: a program's scope is held against what follows from the least role and from whether the
// proto says that the call changes nothing. ReadLog reads, IssueToken does not say so.
func TestPolicy_scope(t *testing.T) {
	for _, min := range []identity.Role{identity.RoleNone, identity.RoleMember, identity.RoleAdmin} {
		rule := rpc.Rule{Callers: []string{"gateway"}, MinRole: min}
		n := newNode(t, rpc.Policy{issueToken: rule, readLog: rule})
		gateway := n.as("gateway")
		for _, scope := range []identity.Scope{identity.ScopeNone, identity.ScopeRead, identity.ScopeDeploy, identity.ScopeAdmin} {
			for what, c := range map[string]struct {
				call     func(context.Context, *grpc.ClientConn, string) error
				readOnly bool
			}{"IssueToken": {issue, false}, "ReadLog": {read, true}} {
				takes := identity.ScopeOf(min, c.readOnly)
				err := c.call(program(t.Context(), t, n, identity.RoleOwner, scope), gateway, "acme-inc")
				allowed := scope == identity.ScopeNone || scope >= takes
				if allowed != (err == nil) || err != nil && !apierr.Has(err, apierr.ReasonPermissionDenied) {
					t.Errorf("%s for a %s, scope %s: %v", what, min, scope, err)
				}
				if err != nil && !strings.Contains(apierr.From(err).Message(), "takes the scope "+strings.ToUpper(takes.String())) {
					t.Errorf("%s, scope %s: it does not say what it takes: %v", what, scope, err)
				}
			}
		}
	}
}

// TestPolicy_apps: a program that is limited to some apps may do what must name one of them.
func TestPolicy_apps(t *testing.T) {
	rule := rpc.Rule{Callers: []string{"gateway"}, MinRole: identity.RoleMember}
	listed := rule
	listed.OfApps = true
	n := newNode(t, rpc.Policy{issueToken: rule, readLog: rule, connect: listed})
	gateway := n.as("gateway")
	readApp := func(app string, apps ...string) error {
		s, err := deployerv1.NewDeployerServiceClient(gateway).ReadLog(program(t.Context(), t, n, identity.RoleMember, identity.ScopeRead, apps...), &deployerv1.ReadLogRequest{Workspace: "acme-inc", App: app, Number: 1})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	for app, allowed := range map[string]bool{"web": true, "api": true, "shop": false, "we": false, "api,web": false} {
		err := readApp(app, "web", "api")
		if allowed != (err == nil) || err != nil && !apierr.Has(err, apierr.ReasonPermissionDenied) {
			t.Errorf("%s: %v", app, err)
		}
		if err != nil && !strings.Contains(fmt.Sprint(err), `The API key "ci" is only for the apps api, web`) {
			t.Errorf("%s: %v", app, err)
		}
	}
	if err := readApp("shop"); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	// What names no app is about the workspace, unless the method leaves the others out.
	limited := program(t.Context(), t, n, identity.RoleOwner, identity.ScopeAdmin, "web")
	if err := issue(limited, gateway, "acme-inc"); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("about the whole workspace: %v", err)
	}
	if _, err := authv1.NewAuthServiceClient(gateway).ConnectIntegration(limited, &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"}); err != nil {
		t.Errorf("a method that leaves them out: %v", err)
	}
}

// TestCheckPolicy_onlyWhatReadsLeavesOtherAppsOut: a change cannot.
func TestCheckPolicy_onlyWhatReadsLeavesOtherAppsOut(t *testing.T) {
	n := newNode(t, rpc.Policy{issueToken: {Callers: []string{"gateway"}, MinRole: identity.RoleMember}})
	if err := issue(member(t.Context(), t, n, "acme-inc", identity.RoleMember), n.as("gateway"), "acme-inc"); err != nil { // it serves before it is stopped
		t.Fatal(err)
	}
	err := rpc.CheckPolicy(n.server, rpc.Policy{issueToken: {Callers: []string{"gateway"}, MinRole: identity.RoleMember, OfApps: true}})
	if err == nil || !strings.Contains(err.Error(), "it cannot leave out") {
		t.Errorf("%v", err)
	}
}
