package rpc_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
)

// What is about the whole installation takes an operator: no role in a workspace is enough, a service's own work neither, and
// an operator needs no role.
func TestPolicy_operator(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		rule := rpc.Rule{Callers: []string{"gateway", "deployer"}, Operator: true}
		n := newNode(t, rpc.Policy{issueToken: rule, readLog: rule})
		as := func(id identity.Identity) context.Context { return testkit.As(t.Context(), t, n.keys, id) }
		if err := call(as(identity.Identity{Operator: true}), n.as("gateway"), "acme-inc"); err != nil {
			t.Errorf("an operator: %v", err)
		}
		for name, err := range map[string]error{
			"an owner":             call(as(identity.Identity{Workspace: "acme-inc", Role: identity.RoleOwner}), n.as("gateway"), "acme-inc"),
			"nobody":               call(t.Context(), n.as("gateway"), "acme-inc"),
			"a service's own work": call(t.Context(), n.as("deployer"), "acme-inc"),
		} {
			if !apierr.Has(err, apierr.ReasonPermissionDenied) || !strings.Contains(err.Error(), "operator") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
