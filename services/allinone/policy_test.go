package allinone

import (
	"maps"
	"slices"
	"testing"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/repo"
	"devpilot.io/bitbucket/services/webhook"
)

// The gateway publishes one RPC × role table; each service enforces its own policy. What is
// published is what is enforced.
func TestRoles_publishedAreEnforced(t *testing.T) {
	enforced := rpc.Policy{}
	for _, p := range []rpc.Policy{auth.Policy, repo.Policy, webhook.Policy, deployer.Policy, gateway.Policy} {
		maps.Copy(enforced, p)
	}
	roles, ofApps := gateway.Roles(), gateway.OfApps()
	if len(roles) < 30 {
		t.Fatalf("only %d methods are published", len(roles))
	}
	for method, role := range roles {
		rule, ok := enforced[method]
		switch {
		case !ok:
			t.Errorf("%s is published and no service has a policy for it", method)
		case rule.MinRole != role:
			t.Errorf("%s: published for %v, enforced for %v", method, role, rule.MinRole)
		case rule.OfApps != ofApps[method]:
			t.Errorf("%s: published as leaving out other apps %v, enforced %v", method, ofApps[method], rule.OfApps)
		case (rule.Browser != "") != gateway.NeedsBrowser(method):
			t.Errorf("%s: published as for browsers %v, enforced %q", method, gateway.NeedsBrowser(method), rule.Browser)
		case !slices.Contains(rule.Callers, identity.Gateway):
			t.Errorf("%s is published and the gateway may not call it", method)
		}
	}
}

// Access tokens are handed out to the three services that call Bitbucket, and to nobody else.
func TestIssueToken_isForTheServicesThatCallBitbucket(t *testing.T) {
	rule := auth.Policy["/devpilot.auth.v1.AuthService/IssueToken"]
	if got := slices.Sorted(slices.Values(rule.Callers)); !slices.Equal(got, []string{"deployer", "repo", "webhook"}) {
		t.Fatalf("callers %v", got)
	}
}
