package compose

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

var given = []string{"DEVPILOT_HOST=devpilot.example.com", "DEVPILOT_BITBUCKET_CLIENT_ID=key", "DEVPILOT_VERSION=v1.2.3"}

// load reads the file as docker compose does.
func load(t *testing.T, env ...string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"}, cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(context.Background())
}

func project(t *testing.T) *types.Project {
	t.Helper()
	p, err := load(t, given...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var services = []string{"auth", "repo", "webhook", "deployer", "gateway"}

func TestCompose_hasAllThatDevpilotNeeds(t *testing.T) {
	t.Parallel()
	names := project(t).ServiceNames()
	slices.Sort(names)
	if want := []string{"auth", "deployer", "gateway", "nats", "proxy", "redis", "repo", "webhook"}; !slices.Equal(names, want) {
		t.Errorf("services %v, not %v", names, want)
	}
}

func TestCompose_saysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for i, line := range given {
		name, _, _ := strings.Cut(line, "=")
		if _, err := load(t, slices.Delete(slices.Clone(given), i, i+1)...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestCompose_settingsAreKnownAndAddressesRight(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../services/REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	reference := string(raw)
	p := project(t)
	for _, name := range services {
		for variable := range p.Services[name].Environment {
			if !strings.Contains(reference, "`"+variable+"`") {
				t.Errorf("%s sets %s, which no program knows", name, variable)
			}
		}
		// "| auth | none | `:7001` | `:7101` |"
		row := regexp.MustCompile("(?m)^\\| " + name + " \\|.*$").FindString(reference)
		address := p.Services["gateway"].Environment["DEVPILOT_"+strings.ToUpper(name)+"_ADDR"]
		if name == "gateway" {
			continue // nobody calls it
		}
		host, port, _ := strings.Cut(*address, ":")
		if host != name || !strings.Contains(row, ":"+port+"`") {
			t.Errorf("%s is called at %s, but listens as in %s", name, *address, row)
		}
		if listen := p.Services[name].Environment["DEVPILOT_GRPC_LISTEN"]; listen == nil || *listen != ":"+port {
			t.Errorf("%s is called at %s, but no other container reaches it there", name, *address)
		}
	}
	proxy := p.Configs["proxy"].Content
	for _, want := range []string{"/webhooks/bitbucket/* webhook:8082", "gateway:8080"} {
		if !strings.Contains(proxy, want) {
			t.Errorf("the proxy does not lead to %s: %s", want, proxy)
		}
	}
	if !strings.Contains(proxy, "{$DEVPILOT_HOST} {") {
		t.Errorf("the proxy does not know its name: %s", proxy)
	}
}

// A service that is broken into must not hold another's key.
func TestCompose_eachServiceHasItsOwnSecretsOnly(t *testing.T) {
	t.Parallel()
	more := map[string][]string{"auth": {"bitbucket-client-secret"}, "gateway": {"admin-token"}}
	p := project(t)
	for _, name := range services {
		want := append([]string{"encryption-" + name, "identity-" + name}, more[name]...)
		if name != "repo" { // which keeps nothing in NATS
			want = append(want, "nats-"+name)
			if file := p.Services[name].Environment["DEVPILOT_NATS_NKEY_FILE"]; file == nil || *file != "/run/secrets/nats" {
				t.Errorf("%s is nobody for NATS", name)
			}
		}
		var have []string
		for _, s := range p.Services[name].Secrets {
			have = append(have, s.Source)
		}
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(have, want) {
			t.Errorf("%s holds %v, not %v", name, have, want)
		}
		for variable, value := range p.Services[name].Environment {
			if strings.HasSuffix(variable, "_FILE") && !strings.Contains(variable, "_TLS_") && (value == nil || !slices.ContainsFunc(p.Services[name].Secrets, func(s types.ServiceSecretConfig) bool {
				return *value == "/run/secrets/"+s.Target || s.Target == "" && *value == "/run/secrets/"+s.Source || *value == s.Target
			})) {
				t.Errorf("%s: %s names a file that is not there", name, variable)
			}
		}
	}
}

func TestCompose_noContainerMayMoreThanItMust(t *testing.T) {
	t.Parallel()
	p := project(t)
	for _, name := range append(slices.Clone(services), "nats", "redis") {
		s := p.Services[name]
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read only %v, capabilities without %v with %v, %v", name, s.ReadOnly, s.CapDrop, s.CapAdd, s.SecurityOpt)
		}
		if name != "deployer" && (len(s.SecurityOpt) != 1 || len(s.Devices) > 0) {
			t.Errorf("%s has what only hooks need: %v %v", name, s.SecurityOpt, s.Devices)
		}
		if len(s.Ports) > 0 {
			t.Errorf("%s is open to the outside: %v", name, s.Ports)
		}
	}
	if !p.Networks["stores"].Internal {
		t.Error("the stores have a way to the outside")
	}
	if _, ok := p.Services["proxy"].Networks["stores"]; ok {
		t.Error("the proxy reaches the stores")
	}
}

// Which registry images come from is the operator's: a name here would be one that somebody trusts unasked.
func TestCompose_namesNoRegistry(t *testing.T) {
	t.Parallel()
	p, err := load(t, append(slices.Clone(given), "DEVPILOT_IMAGES=registry.example.com/team/")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range services {
		if got, want := p.Services[name].Image, "registry.example.com/team/devpilot-"+name+":v1.2.3"; got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
		if got, want := project(t).Services[name].Image, "devpilot-"+name+":v1.2.3"; got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
}

// NATS takes nobody but the users that it is told, each with what it may do.
func TestCompose_natsKnowsItsUsers(t *testing.T) {
	t.Parallel()
	p := project(t)
	var mounted []string
	for _, c := range p.Services["nats"].Configs {
		mounted = append(mounted, c.Source+" "+c.Target)
	}
	if want := []string{"nats /etc/nats/nats.conf", "nats-users /etc/nats/users.conf"}; !slices.Equal(mounted, want) {
		t.Errorf("NATS reads %v, not %v", mounted, want)
	}
	if conf := p.Configs["nats"].Content; !strings.Contains(conf, `authorization { include "users.conf" }`) {
		t.Errorf("NATS takes everybody: %s", conf)
	}
	if file := p.Configs["nats-users"].File; !strings.HasSuffix(file, "/nats-users.conf") {
		t.Errorf("its users are in %q", file)
	}
}

// Calls between the services are encrypted by certificates whose directories are mounted: a mounted file would stay the
// old one when another takes its place. The authority's key is in none.
func TestCompose_servicesAreEncrypted(t *testing.T) {
	t.Parallel()
	p := project(t)
	for _, name := range services {
		for variable, want := range map[string]string{
			"DEVPILOT_TLS_CERT_FILE": "/run/certificates/tls.crt", "DEVPILOT_TLS_KEY_FILE": "/run/certificates/tls.key",
			"DEVPILOT_TLS_CA_FILE": "/run/certificates/ca.crt", "DEVPILOT_ALLOW_PLAINTEXT": "nats,redis",
		} {
			if got := p.Services[name].Environment[variable]; got == nil || *got != want {
				t.Errorf("%s: %s is not %s", name, variable, want)
			}
		}
		if !slices.ContainsFunc(p.Services[name].Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Target == "/run/certificates" && v.ReadOnly && strings.HasSuffix(v.Source, "/certificates/"+name)
		}) {
			t.Errorf("%s has %v, and not its own certificate", name, p.Services[name].Volumes)
		}
	}
}
