// Command devpilot is the whole product in one process, for a laptop or one small machine, and the command line
// that speaks with one over its API (services/cli).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/allinone/backup"
	"devpilot.io/bitbucket/services/allinone/doctor"
	"devpilot.io/bitbucket/services/allinone/keyset"
	"devpilot.io/bitbucket/services/allinone/servers"
	"devpilot.io/bitbucket/services/cli"
)

type grammar struct {
	Run struct {
		allinone.Settings `embed:""`
	} `cmd:"" default:"withargs" help:"Start Devpilot (the default)."`
	SignIn struct {
		servicemain.DataFlags `embed:""`
		URL                   string `name:"url" default:"http://${listen}" help:"Address of the running Devpilot."`
	} `cmd:"" name:"sign-in" help:"Print a link that signs you in at a running Devpilot, once, within five minutes."`
	MakeKeys struct {
		Directory string `arg:"" help:"Directory to make them in; nothing in it is overwritten."`
	} `cmd:"" name:"make-keys" help:"Make the keys and the admin token that services in processes of their own need."`
	Certificates struct {
		allinone.CertificateSettings `embed:""`
	} `cmd:"" help:"Make or renew the certificates by which services in processes of their own know each other, and their authority."`
	AcceptLoss struct {
		allinone.LossSettings `embed:""`
	} `cmd:"" name:"accept-loss" help:"Carry on without the records that a damaged store has lost. Stop Devpilot first, and restore a backup instead if there is one."`
	Backup struct {
		backup.Settings `embed:""`
	} `cmd:"" help:"Save all that an installation keeps in NATS in a directory, without stopping it. The encryption keyset is not in it: keep that in another place."`
	Restore struct {
		backup.RestoreSettings `embed:""`
	} `cmd:"" help:"Make what a backup holds in a NATS, or a data directory, that has nothing of the installation. Devpilot must not run; start it afterwards."`
	Servers struct {
		List struct {
			servers.ListSettings `embed:""`
		} `cmd:"" default:"withargs" help:"List the servers with their workers, when they were last heard, and the apps on them (the default)."`
		Move struct {
			servers.MoveSettings `embed:""`
		} `cmd:"" help:"Move the apps of a server that died to another one: what was live is deployed there again at once, and what ran or waited goes there. It may be run again."`
	} `cmd:"" help:"See the deployer's servers, and move the apps of one that died."`
	NATSPermissions struct {
		allinone.PermissionSettings `embed:""`
	} `cmd:"" name:"nats-permissions" help:"Print what each service may do in NATS, for nats-server's configuration."`
	Keyset struct {
		Split struct {
			keyset.SplitSettings `embed:""`
		} `cmd:"" help:"Make a keyset for each service out of the one that all have."`
		Add struct {
			keyset.Settings `embed:""`
		} `cmd:"" help:"Add a new key, which opens and does not seal yet."`
		Promote struct {
			keyset.Settings `embed:""`
		} `cmd:"" help:"Have the key that was added seal, once all processes hold it."`
		Reseal struct {
			keyset.StoreSettings `embed:""`
		} `cmd:"" help:"Seal anew what earlier keys sealed, while Devpilot runs. It may be interrupted and run again."`
		Check struct {
			keyset.CheckSettings `embed:""`
		} `cmd:"" help:"Say what is sealed with which key; fails while anything is with an earlier one."`
		Retire struct {
			keyset.RetireSettings `embed:""`
		} `cmd:"" help:"Drop the earlier keys, where nothing is sealed with them any more."`
	} `cmd:"" help:"Change the encryption keysets while Devpilot runs (deploy/OPERATIONS.md, Keys)."`
	Doctor  struct{} `cmd:"" help:"Check an installation from its settings, and say what to mend (devpilot doctor --help)."`
	Version struct{} `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := lifecycle.Signals(context.Background())
	context.AfterFunc(ctx, stop) // a second signal kills
	code := program(ctx, servicemain.OSProcess())
	stop()
	os.Exit(code)
}

// program runs what the first word says: a command of the command line, or one of the server's own.
func program(ctx context.Context, process servicemain.Process) int {
	if cli.Takes(os.Args[1:]) {
		p := cli.OSProcess()
		p.Version = servicemain.Version
		return cli.Run(ctx, p)
	}
	if len(process.Args) > 0 && process.Args[0] == "doctor" {
		process.Args = process.Args[1:]
		return doctor.Run(ctx, process)
	}
	return run(ctx, process)
}

func run(ctx context.Context, process servicemain.Process) int {
	var c grammar
	parsed, err := servicemain.Parse(process, servicemain.Settings{
		Name: "devpilot", Description: "Deploys code from Bitbucket. Starts all of the product in one process. The command line over its API is in here too: devpilot help lists its commands.", Grammar: &c,
		Vars: map[string]string{"listen": allinone.DefaultListen, "ops_listen": allinone.DefaultOpsListen, "drain_delay": "0s"},
	})
	if errors.Is(err, servicemain.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(process.Stderr, "devpilot: %v\n", err)
		return 2
	}
	switch command, rest, _ := strings.Cut(parsed.Command(), " "); command {
	case "version":
		fmt.Fprintln(process.Stdout, "devpilot", servicemain.Version)
	case "make-keys":
		err = allinone.MakeKeys(process.Stdout, c.MakeKeys.Directory)
	case "certificates":
		err = allinone.MakeCertificates(process.Stdout, c.Certificates.CertificateSettings, time.Now())
	case "sign-in":
		err = allinone.PrintSignInURL(ctx, process.Stdout, c.SignIn.URL, c.SignIn.DataDir)
	case "nats-permissions":
		err = allinone.PrintPermissions(process.Stdout, c.NATSPermissions.PermissionSettings)
	case "accept-loss":
		err = allinone.AcceptLoss(ctx, process.Stdout, c.AcceptLoss.LossSettings)
	case "keyset":
		err = changeKeysets(ctx, process, &c, rest)
	case "backup":
		err = backup.Backup(ctx, process, c.Backup.Settings)
	case "restore":
		err = backup.Restore(ctx, process, c.Restore.RestoreSettings)
	case "servers":
		if step, _, _ := strings.Cut(rest, " "); step == "move" {
			err = servers.Move(ctx, process, c.Servers.Move.MoveSettings)
		} else {
			err = servers.List(ctx, process, c.Servers.List.ListSettings)
		}
	default:
		err = serve(ctx, process, c.Run.Settings)
	}
	if err != nil {
		fmt.Fprintf(process.Stderr, "devpilot: %v\n", err)
		return 1
	}
	return 0
}

func changeKeysets(ctx context.Context, process servicemain.Process, c *grammar, command string) error {
	switch step, _, _ := strings.Cut(command, " "); step {
	case "split":
		return keyset.Split(process.Stdout, c.Keyset.Split.SplitSettings)
	case "add":
		return keyset.Add(process.Stdout, c.Keyset.Add.Settings)
	case "promote":
		return keyset.Promote(process.Stdout, c.Keyset.Promote.Settings)
	case "reseal":
		return keyset.Reseal(ctx, process, c.Keyset.Reseal.StoreSettings)
	case "check":
		return keyset.Check(ctx, process, c.Keyset.Check.CheckSettings)
	default:
		return keyset.Retire(ctx, process, c.Keyset.Retire.RetireSettings)
	}
}

func serve(ctx context.Context, process servicemain.Process, settings allinone.Settings) error {
	logger, err := logs.New(process.Stderr, settings.Format(process.Stderr), settings.LogLevel)
	if err != nil {
		return err
	}
	if settings.Emulator && settings.EmulatorScenario == "" {
		settings.EmulatorScenario = allinone.DefaultScenario
	}
	product, err := allinone.New(ctx, settings, logger)
	if err != nil {
		return err
	}
	out, isFile := process.Stdout.(*os.File)
	product.Out = process.Stdout
	product.Started = func(ctx context.Context, p *allinone.Product) {
		p.Greeting(ctx, process.Stdout, os.Args[0], isFile && isatty.IsTerminal(out.Fd()))
	}
	return product.Run(ctx)
}
