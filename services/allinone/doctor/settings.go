package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/repo"
	"devpilot.io/bitbucket/services/webhook"
)

// whole is the program that has everything in one process.
const whole = "devpilot"

// Flags are those of the command, and all settings of all programs.
type Flags struct {
	Output       string        `name:"output" short:"o" default:"table" enum:"table,json" help:"table, or json for programs."`
	Strict       bool          `name:"strict" help:"A warning fails too."`
	Service      string        `name:"service" default:"devpilot" enum:"devpilot,auth,repo,webhook,deployer,gateway" help:"The program whose settings these are: devpilot, all in one process, or one of the services."`
	CheckTimeout time.Duration `name:"check-timeout" default:"20s" min:"1s" max:"10m" help:"How long one check may take."`

	allinone.Settings            `embed:""`
	servicemain.SignInFlags      `embed:""`
	servicemain.GRPCListenFlags  `embed:""`
	servicemain.TLSFlags         `embed:""`
	servicemain.AuthAddrFlag     `embed:""`
	servicemain.RepoAddrFlag     `embed:""`
	servicemain.WebhookAddrFlag  `embed:""`
	servicemain.DeployerAddrFlag `embed:""`
}

func (f *Flags) address(service string) string {
	return map[string]string{"auth": f.AuthAddr, "repo": f.RepoAddr, "webhook": f.WebhookAddr, "deployer": f.DeployerAddr}[service]
}

// program is what is known of a program without its settings.
type program struct {
	calls       []string // the services whose addresses it needs
	opsListen   string
	listen      string
	withoutNATS bool
	// build builds the service over nothing, which validates its settings.
	build func(ctx context.Context, f *Flags, env *servicemain.Env) error
}

func programOf[C any](spec servicemain.Spec[C], prepare func(ctx context.Context, f *Flags, own *C) error) program {
	return program{calls: spec.Calls, opsListen: spec.OpsListen, listen: spec.Listen, withoutNATS: spec.WithoutNATS, build: func(ctx context.Context, f *Flags, env *servicemain.Env) error {
		own := allinone.FlagsOf[C](&f.Settings)
		if prepare != nil {
			if err := prepare(ctx, f, &own); err != nil {
				return err
			}
		}
		_, err := spec.Build(ctx, env, own)
		return err
	}}
}

func programs() map[string]program {
	all := map[string]program{
		"auth": programOf(auth.Spec(), nil), "repo": programOf(repo.Spec(), nil), "webhook": programOf(webhook.Spec(), nil),
		"deployer": programOf(deployer.Spec(), func(ctx context.Context, f *Flags, own *deployer.Flags) error {
			live, err := f.ListenLive(ctx, false)
			own.Live = &live
			return err
		}),
		"gateway": programOf(gateway.Spec(), func(_ context.Context, f *Flags, own *gateway.Flags) error {
			own.SignInFlags, own.Emulator = f.SignInFlags, f.Emulator
			return nil
		}),
	}
	all[whole] = program{opsListen: allinone.DefaultOpsListen, listen: allinone.DefaultListen, build: func(ctx context.Context, f *Flags, env *servicemain.Env) error {
		if err := errors.Join(f.CheckEmulator(), f.CheckEmbedded()); err != nil {
			return err
		}
		for _, name := range allinone.Services() {
			if err := all[name].build(ctx, f, env); err != nil {
				return err
			}
		}
		return nil
	}}
	return all
}

func addressVariable(service string) string { return "DEVPILOT_" + strings.ToUpper(service) + "_ADDR" }

// read reads arguments and environment as the programs do. What is wrong with the environment is returned as
// troubles: where only names are unknown the rest is checked, else flags hold the arguments alone and usable
// is false. The error is of the arguments.
func read(p servicemain.Process) (f *Flags, troubles []error, usable bool, err error) {
	try := func(environ []string) (*Flags, error) {
		f := &Flags{}
		p := p
		p.Environ = environ
		_, err := servicemain.Parse(p, servicemain.Settings{
			Name: "devpilot doctor", Grammar: f,
			Description: "Checks an installation from its settings, the same variables and flags as its programs take, and changes nothing that stays. Ends with 0 when all is well, 1 when something failed (with --strict: or has a warning), 2 when it was called wrongly.",
			Vars:        map[string]string{"listen": "", "grpc_listen": "", "ops_listen": "", "drain_delay": "0s"},
		})
		return f, err
	}
	f, err = try(p.Environ)
	if err == nil || errors.Is(err, servicemain.ErrHelp) {
		return f, nil, true, err
	}
	bare, usage := try(nil)
	if usage != nil {
		return nil, nil, false, usage
	}
	troubles = leaves(err)
	known := slices.DeleteFunc(slices.Clone(p.Environ), func(variable string) bool {
		return slices.ContainsFunc(troubles, func(err error) bool {
			var unknown *servicemain.UnknownError
			return errors.As(err, &unknown) && strings.HasPrefix(variable, unknown.Name+"=")
		})
	})
	if f, err = try(known); err == nil {
		return f, troubles, true, nil
	}
	return bare, troubles, false, nil
}

// leaves are the errors that were joined to one.
func leaves(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, leaves(e)...)
	}
	return all
}

// settings validates the settings as the program does when it starts.
func (x *exam) settings(ctx context.Context) checkup.Check {
	troubles := slices.Clone(x.troubles)
	if x.usable {
		troubles = append(troubles, x.required()...)
		if err := x.validate(ctx); err != nil {
			troubles = append(troubles, leaves(err)...)
		}
	}
	if len(troubles) == 0 {
		return checkup.Well("%s takes them.", x.flags.Service)
	}
	var all []string
	for _, err := range troubles {
		all = append(all, err.Error())
	}
	return checkup.Fail(strings.Join(all, "; "), "Put them right: "+x.flags.Service+" does not start with them. `--help` of the program lists its settings.")
}

// required are the settings that a service cannot do without, and those that go together.
func (x *exam) required() (missing []error) {
	f := x.flags
	if err := f.CheckStores(f.StoreFlags); err != nil {
		missing = append(missing, err)
	}
	if f.Service == whole {
		return missing
	}
	addresses := map[string]string{}
	for _, name := range x.program.calls {
		if f.address(name) != "" {
			addresses[name] = f.address(name)
		}
	}
	if err := f.CheckServices(f.TLSFlags, f.GRPCListen, addresses); err != nil {
		missing = append(missing, err)
	}
	if _, err := f.Open(f.Service, logs.Discard()); err != nil {
		missing = append(missing, err)
	}
	need := func(variable string, given bool) {
		if !given {
			missing = append(missing, fmt.Errorf("%s is not set", variable))
		}
	}
	need("DEVPILOT_NATS_URL", x.program.withoutNATS || !f.NATSURL.IsZero())
	need("DEVPILOT_REDIS_URL", !f.RedisURL.IsZero())
	need("DEVPILOT_ENCRYPTION_KEYSET_FILE", f.EncryptionKeysetFile != "")
	need("DEVPILOT_IDENTITY_KEY_FILE", f.IdentityKeyFile != "")
	for _, name := range x.program.calls {
		need(addressVariable(name), f.address(name) != "")
	}
	return missing
}

// validate builds the service over nothing: building does no I/O, and refuses what makes no sense. Keys are
// checked apart, so that made-up ones do here.
func (x *exam) validate(ctx context.Context) error {
	name, err := x.flags.Name()
	if err != nil {
		return err
	}
	keyset, err := seal.NewKeyset()
	if err != nil {
		return err
	}
	keys, err := identity.NewKeys(allinone.Services()...)
	if err != nil {
		return err
	}
	client, err := redisx.Connect("redis://127.0.0.1:1")
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	env := &servicemain.Env{
		Service: x.flags.Service, Version: servicemain.Version, Logger: logs.Discard(), Now: time.Now, Keyset: keyset, Keys: keys, Redis: client,
		JS: kv.NewSession(nil, stream.Settings{Installation: name}),
		Dial: func(string) (*grpc.ClientConn, error) {
			conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err == nil {
				context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
	}
	if x.flags.Listen != "" {
		at, err := net.ResolveTCPAddr("tcp", x.flags.Listen)
		if err != nil {
			return fmt.Errorf("--listen (DEVPILOT_LISTEN): %w", err)
		}
		env.HTTPAddr, env.HTTPS = at, x.flags.ListenCertFile != ""
	}
	return x.program.build(ctx, x.flags, env)
}
