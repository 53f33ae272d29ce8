package allinone

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/webhook"
)

// Operator is the user of NATS that people's tools are.
const Operator = "operator"

// NATSUser is a user that NATS is to know.
type NATSUser struct {
	Name string // of the process: a service, one of the deployer's roles, devpilot for all in one, Operator
	What string // for people
	stream.Permissions
}

// NATSUsers are all users of an installation, with what each may do and no more.
func NATSUsers(i stream.Installation) []NATSUser {
	all := auth.Spec().NATS.And(webhook.Spec().NATS).And(deployer.Spec().NATS).And(gateway.Spec().NATS)
	operator := all.Operator(i, Operator)
	operator.Subscribe = append(operator.Subscribe, i.Subject("_INBOX.>")) // devpilot doctor stands in for each service
	return []NATSUser{
		{"auth", "the service auth", auth.Spec().NATS.Permissions(i, "auth")},
		{"webhook", "the service webhook", webhook.Spec().NATS.Permissions(i, "webhook")},
		{"deployer", "the service deployer with both roles", deployer.Spec().NATS.Permissions(i, "deployer")},
		{"deployer-api", "the service deployer with DEVPILOT_ROLES=api", deployer.AccessOf("api").Permissions(i, "deployer")},
		{"deployer-worker", "the service deployer with DEVPILOT_ROLES=worker", deployer.AccessOf("worker").Permissions(i, "deployer")},
		{"gateway", "the service gateway", gateway.Spec().NATS.Permissions(i, "gateway")},
		{"devpilot", "all services in one process", all.Permissions(i, "devpilot")},
		{Operator, "devpilot doctor, accept-loss, backup, restore, servers and keyset", operator},
	}
}

// PermissionSettings say whose permissions are printed.
type PermissionSettings struct {
	servicemain.InstallationFlags `embed:""`

	Keys string `name:"keys" help:"Directory of devpilot make-keys: the users follow, by the public halves of their nkeys there, so that what is printed is all that an authorization block needs."`

	Users []string `arg:"" optional:"" enum:"auth,webhook,deployer,deployer-api,deployer-worker,gateway,devpilot,operator" help:"Users to print, auth, webhook, deployer, gateway and operator where none is named: those that nats-server's configuration has, for it takes no others. deployer-api and deployer-worker are for a deployer whose roles are apart, devpilot is all services in one process."`
}

// PrintPermissions writes the permissions of users of an installation as variables of nats-server's configuration, to be
// included where its users are.
func PrintPermissions(w io.Writer, settings PermissionSettings) error {
	name, err := settings.Name()
	if err != nil {
		return err
	}
	users := settings.Users
	if len(users) == 0 {
		users = []string{"auth", "webhook", "deployer", "gateway", Operator}
	}
	out := bufio.NewWriter(w)
	fmt.Fprint(out, "# What Devpilot's processes may do in NATS, printed by devpilot nats-permissions. Include it in the authorization block, or\n"+
		"# the account, of nats-server's configuration, and give each user its own: nats.conf beside this file shows how.\n")
	for _, user := range NATSUsers(name) {
		if !slices.Contains(users, user.Name) {
			continue
		}
		fmt.Fprintf(out, "\n# %s\n%s: {\n", user.What, PermissionVariable(name, user.Name))
		for _, side := range []struct {
			what     string
			subjects []string
		}{{"publish", user.Publish}, {"subscribe", user.Subscribe}} {
			fmt.Fprintf(out, "  %s: { allow: [\n", side.what)
			for _, subject := range side.subjects {
				fmt.Fprintf(out, "    %q\n", subject)
			}
			fmt.Fprint(out, "  ] }\n")
		}
		fmt.Fprint(out, "}\n")
	}
	if settings.Keys != "" {
		fmt.Fprint(out, "\nusers: [\n")
		for _, user := range users {
			public, err := publicKey(settings.Keys, user)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "  { nkey: %s, permissions: $%s }\n", public, PermissionVariable(name, user))
		}
		fmt.Fprint(out, "]\n")
	}
	return out.Flush()
}

// PermissionVariable is the variable that has a user's permissions.
func PermissionVariable(i stream.Installation, user string) string {
	parts := []string{"DEVPILOT"}
	if i != "" {
		parts = append(parts, string(i))
	}
	return strings.ToUpper(strings.ReplaceAll(strings.Join(append(parts, user), "_"), "-", "_"))
}
